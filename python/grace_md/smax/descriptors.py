"""Features of atomic environments for the entropy: SNAP bispectrum components, or a power spectrum.

Neither sees elements. Chemistry enters through one cutoff radius per atom: with the rule "centre" atom i sees what is
closer than c_i, with the rule "pair" what is closer than (c_i + c_j)/2, which is the convention of LAMMPS.
"""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
from ase import Atoms
from numpy.typing import ArrayLike, NDArray

from grace_md._core import SnapKernel
from grace_md.smax.compression import Compressed
from grace_md.smax.power_spectrum import PowerSpectrum

__all__ = ["Descriptor", "DescriptorBatch", "SnapDescriptor", "make_descriptor", "snap_descriptors"]

Floats = NDArray[np.float64]
CutoffRule = Literal["centre", "pair"]
RULES = ("centre", "pair")
KINDS = ("snap", "ace")


class DescriptorBatch(Protocol):
    """Structures side by side: what a descriptor reads of them.

    Attributes
    ----------
    positions : float64 [N, 3]
        Of all atoms, structure after structure, Angstrom.
    cells : float64 [S, 3, 3]
        Rows are lattice vectors, Angstrom.
    periodic : bool [S, 3]
    first_atom : int64 [S + 1]
        Number of the first atom of each structure, then N.
    cutoffs : float64 [N]
        Radius of each atom, Angstrom.
    """

    @property
    def positions(self) -> Floats: ...  # noqa: D102
    @property
    def cells(self) -> Floats: ...  # noqa: D102
    @property
    def periodic(self) -> NDArray[np.bool_]: ...  # noqa: D102
    @property
    def first_atom(self) -> NDArray[np.int64]: ...  # noqa: D102
    @property
    def cutoffs(self) -> Floats: ...  # noqa: D102


class DescriptorSettings(Protocol):
    """Settings of `make_descriptor`: kind ("snap" or "ace"), twojmax, rfac0, rmin0 (A) of snap, cutoff_rule, power."""

    @property
    def kind(self) -> str: ...
    @property
    def twojmax(self) -> int: ...
    @property
    def rfac0(self) -> float: ...
    @property
    def rmin0(self) -> float: ...
    @property
    def cutoff_rule(self) -> CutoffRule: ...
    @property
    def power(self) -> float: ...


class Descriptor(Protocol):
    """Features of the atoms of many structures, and the adjoint of their derivatives."""

    @property
    def n_features(self) -> int:
        """The number m of features per atom."""

    def values(self, batch: DescriptorBatch) -> Floats:
        """Features [N, m]."""

    def gradients(self, beta: Floats) -> tuple[Floats, Floats]:
        """Derivatives of sum_i beta_i . b_i, beta [N, m], at the last `values`.

        Returns
        -------
        dx : float64 [N, 3]
            By positions, 1/A.
        strain : float64 [S, 3, 3]
            By a strain e of positions and cell, x -> x (1 + e).
        """


def _is_pair_rule(rule: str) -> bool:
    if rule not in RULES:
        msg = f"`cutoff_rule` must be 'centre' or 'pair', got {rule!r}"
        raise ValueError(msg)
    return rule == "pair"


class SnapDescriptor:
    """SNAP bispectrum components (A. P. Thompson et al., J. Comput. Phys. 285, 316 (2015)).

    Parameters
    ----------
    twojmax : int
        Twice the largest angular momentum; 8 gives 55 components.
    rfac0 : float
        Part of the half circle that distances from rmin0 to the cutoff are mapped to, in (0, 1].
    rmin0 : float
        Angstrom; below every cutoff.
    cutoff_rule : "centre" or "pair"
        Cutoff of a bond: c_i, or (c_i + c_j)/2.
    device : "cpu", "cuda", "cuda:N" or "auto"
        Where it is computed. cuda never falls back to the CPU; auto takes a GPU where there is one.

    Raises
    ------
    ValueError
        Arguments out of range, a GPU that cannot be used; `values` also raises it for positions that are not finite,
        periodic cells without volume and atoms in the same place.
    """

    def __init__(
        self,
        twojmax: int = 8,
        rfac0: float = 0.99363,
        rmin0: float = 0.0,
        cutoff_rule: CutoffRule = "centre",
        device: str = "cpu",
    ) -> None:
        self._pair_rule = _is_pair_rule(cutoff_rule)
        self._kernel = SnapKernel(twojmax, rfac0, rmin0, device)

    @property
    def device(self) -> str:
        """Where it is computed: "cpu", or the number and name of a GPU."""
        return self._kernel.device

    @property
    def n_features(self) -> int:
        """The number of components per atom."""
        return self._kernel.n_features

    def values(self, batch: DescriptorBatch) -> Floats:
        """Components B_{j1 j2 j}, j >= j1 >= j2, of every atom, [N, n_features]."""
        return self._kernel.descriptors(
            batch.positions, batch.cells, batch.periodic, batch.first_atom, batch.cutoffs, self._pair_rule
        )

    def gradients(self, beta: Floats) -> tuple[Floats, Floats]:
        """Derivatives of sum_i beta_i . b_i of the last `values` by positions [N, 3] and by strain [S, 3, 3]."""
        return self._kernel.gradients(beta)


def make_descriptor(settings: DescriptorSettings, device: str = "cpu") -> Descriptor:
    """Return the descriptor that section `descriptor` of the settings names.

    Raises
    ------
    ValueError
        An unknown kind or rule, parameters out of range, or a device that cannot be used.
    """
    made = _uncompressed(settings, device)
    return made if settings.power == 1.0 else Compressed(made, settings.power)


def _uncompressed(settings: DescriptorSettings, device: str) -> Descriptor:
    if settings.kind == "snap":
        return SnapDescriptor(settings.twojmax, settings.rfac0, settings.rmin0, settings.cutoff_rule, device)
    if settings.kind == "ace":
        if device != "cpu":
            msg = f"`descriptor.kind` = 'ace' has no kernels for {device}; use snap there, or device cpu"
            raise ValueError(msg)
        return PowerSpectrum(pair_rule=_is_pair_rule(settings.cutoff_rule))
    msg = f"`descriptor.kind` must be one of {', '.join(KINDS)}, got {settings.kind!r}"
    raise ValueError(msg)


class _OneStructure:
    """An ASE structure as a batch."""

    def __init__(self, atoms: Atoms, cutoffs: ArrayLike) -> None:
        radii = np.asarray(cutoffs, dtype=np.float64)
        if radii.ndim > 1 or (radii.ndim == 1 and len(radii) != len(atoms)):
            msg = f"`cutoffs` must be one number or have shape [{len(atoms)}], got {list(radii.shape)}"
            raise ValueError(msg)
        self.positions: Floats = np.asarray(atoms.positions, dtype=np.float64)
        self.cells: Floats = np.asarray(atoms.cell[:], dtype=np.float64)[None]
        self.periodic: NDArray[np.bool_] = np.asarray(atoms.pbc, dtype=np.bool_)[None]
        self.first_atom: NDArray[np.int64] = np.array([0, len(atoms)], dtype=np.int64)
        self.cutoffs: Floats = np.full(len(atoms), radii) if radii.ndim == 0 else radii


def snap_descriptors(
    atoms: Atoms,
    cutoffs: ArrayLike,
    *,
    cutoff_rule: CutoffRule = "centre",
    rfac0: float = 0.99363,
    rmin0: float = 0.0,
    twojmax: int = 8,
    device: str = "cpu",
) -> Floats:
    """SNAP bispectrum components of every atom of a structure, with a cutoff radius per atom.

    With x = (r - rmin0)/(rc - rmin0), every neighbour has the weight (cos(pi x) + 1)/2 and the place t = rfac0 pi x on
    the third angle of a sphere in four dimensions; the density there, the atom itself included with weight 1, is
    expanded in Wigner matrices U^j, and

        B_{j1 j2 j} = sum over m, m' of conj(U^j_{m m'}) times the Clebsch-Gordan product of U^{j1} and U^{j2}

    (Thompson et al., J. Comput. Phys. 285, 316 (2015)). These are the numbers of LAMMPS ``compute sna/atom`` with
    switchflag 1, bzeroflag 0, bnormflag 0 and weights 1; with `cutoff_rule` "pair" and one LAMMPS type per atom,
    ``rcutfac`` times ``R_i`` is half of `cutoffs`.

    Parameters
    ----------
    atoms : ase.Atoms
        Positions, cell and pbc are read. Cells may be smaller than the cutoffs, and atoms may lie outside.
    cutoffs : float or [n_atoms]
        Radius of every atom, Angstrom.
    cutoff_rule : "centre" or "pair"
        A neighbour counts within c_i of the centre, or within (c_i + c_j)/2.
    rfac0 : float
        In (0, 1].
    rmin0 : float
        Angstrom; below every cutoff.
    twojmax : int
        Twice the largest angular momentum, 0 to 14; 8 gives 55 components.
    device : "cpu", "cuda", "cuda:N" or "auto"
        Worth it for large structures: starting a GPU takes longer than a million atoms there. Many structures are one
        call of a `SnapDescriptor`, which is made once.

    Returns
    -------
    float64 [n_atoms, n_components]
        In the order of (j1, j2, j), j >= j1 >= j2, as in LAMMPS. The values do not depend on rotations, translations
        and permutations of the atoms.

    Raises
    ------
    ValueError
        Cutoffs, positions or parameters that are not finite or out of range, a periodic cell without volume, two atoms
        in the same place; a GPU that cannot be used.

    Examples
    --------
    >>> from ase.build import bulk
    >>> snap_descriptors(bulk("W", "bcc", a=3.2), 4.8).shape
    (1, 55)
    """
    return SnapDescriptor(twojmax, rfac0, rmin0, cutoff_rule, device).values(_OneStructure(atoms, cutoffs))
