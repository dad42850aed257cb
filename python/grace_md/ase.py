"""ASE calculator: energies, forces and stresses of GRACE models from the C++ core."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from numpy.typing import NDArray

from grace_md._core import Evaluator, ModelSpec, NeighborList, build_neighbors
from grace_md.model import GraceModel
from grace_md.neighbors import VerletList

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ["GraceCalculator"]

logger = logging.getLogger("grace_md")

CLOSE_CONTACT = 0.3  # A; below, a warning: no model is trained there
VOIGT = ([0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1])  # xx, yy, zz, yz, xz, xy


class GraceCalculator(Calculator):  # type: ignore[misc]
    """GRACE potential for ASE.

    Parameters
    ----------
    model : path of a weight file (`.npz`) or GraceModel
    device : "auto" | "cpu"
    precision : "fp64" | "mixed" | "fp32"
        mixed and fp32 evaluate the network in single precision; positions, energies, forces and sums stay double.
    radial : "table" | "exact"
        Tabulated radial functions (error in `radial_report`), or the radial network itself.
    threads : int
        OpenMP threads; 0: OMP_NUM_THREADS or all cores.
    skin : float
        Angstrom added to the cutoffs of the neighbour list, which is reused until atoms moved too far.

    Results: energy, free_energy (eV), energies [n] (eV), forces [n, 3] (eV/A), stress [6] and stresses [n, 6]
    (eV/A^3, ASE sign and Voigt order; stresses sum to stress; only where the cell has a volume).

    Raises ValueError in one sentence for an unknown element, positions that are not finite and cells without volume.
    """

    implemented_properties: list[str] = [  # noqa: RUF012 - as ASE declares it
        "energy",
        "free_energy",
        "energies",
        "forces",
        "stress",
        "stresses",
    ]

    def __init__(
        self,
        model: str | os.PathLike[str] | GraceModel,
        device: str = "auto",
        precision: str = "fp64",
        radial: str = "table",
        threads: int = 0,
        skin: float = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model = model if isinstance(model, GraceModel) else GraceModel.load(model)
        self._options: dict[str, Any] = {
            "precision": precision,
            "radial": radial,
            "device": device,
            "n_threads": threads,
        }
        self._threads = threads
        self._skin = skin
        self._elements: list[str] = []
        self._evaluator: Evaluator | None = None
        self._spec: ModelSpec = self.model.spec
        self._lists: VerletList | None = None
        self._warned = False
        self._prepare(self.model.elements[:1])  # options are checked now, not at the first step
        self._elements = []

    # ------------------------------------------------------------------------------------------- evaluation

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Fill `results` (ASE calls this)."""
        super().calculate(atoms, properties, system_changes)
        if self.atoms is None:
            raise ValueError("`atoms` is missing: attach the calculator to a structure first.")
        neighbors, positions, cells, species = self._moving(self.atoms)
        with_virials = "stresses" in properties
        raw = self._run(neighbors, positions, cells, species, atom_virial=with_virials)
        self.results = _results(self.atoms, raw, slice(None), raw["virial"][0])
        missing = [name for name in properties if name in ("stress", "stresses") and name not in self.results]
        if missing:
            raise PropertyNotImplementedError(f"{missing[0]} needs three cell vectors that span a volume.")

    def evaluate(self, structures: Sequence[Atoms]) -> list[dict[str, Any]]:
        """Evaluate many structures in one call; one dictionary of results each, keys as ASE's (per-atom ones too)."""
        structures = list(structures)
        if not structures:
            return []
        self._prepare({symbol for atoms in structures for symbol in atoms.get_chemical_symbols()})
        first = np.cumsum([0, *[len(atoms) for atoms in structures]], dtype=np.int64)
        positions = np.concatenate([atoms.positions for atoms in structures])
        species = np.concatenate([self._species(atoms) for atoms in structures])
        cells = np.array([atoms.cell.array for atoms in structures])
        periodic = np.array([atoms.pbc for atoms in structures])
        neighbors = build_neighbors(
            positions, species, cells, periodic, first, self._spec.pair_cutoffs, 0.0, self._threads
        )
        raw = self._run(neighbors, positions, cells, species, atom_virial=True)
        return [
            _results(atoms, raw, slice(first[k], first[k + 1]), raw["virial"][k]) for k, atoms in enumerate(structures)
        ]

    def compute_atoms(
        self, atoms: Atoms, indices: Sequence[int] | NDArray[np.integer[Any]], *, forces: bool = True
    ) -> dict[str, NDArray[np.float64]]:
        """Energies (and forces) of some atoms, at the cost of their neighbourhood only.

        Parameters
        ----------
        indices : atoms wanted, each once.
        forces : also the total forces on them; needs the energies of every atom that sees them (one cutoff away, two
            for two-layer models).

        Returns
        -------
        dict with energies [n] in eV and forces [n, 3] in eV/A, in the order of `indices`.
        """
        wanted = np.asarray(indices).reshape(-1)
        if wanted.dtype == bool:
            raise ValueError("`indices` is a boolean mask: pass np.flatnonzero(mask).")
        wanted = wanted.astype(np.int64)
        if len(wanted) and (wanted.min() < 0 or wanted.max() >= len(atoms)):
            raise ValueError(f"`indices` must lie in [0, {len(atoms)}), got {wanted.min()} .. {wanted.max()}.")
        neighbors, positions, cells, species = self._moving(atoms)
        selection = np.unique(wanted)
        if forces:
            for _ in range(self.model.n_layers):
                selection = _with_observers(neighbors, selection, symmetric=self._symmetric)
        raw = self._run(neighbors, positions, cells, species, selection=selection.astype(np.int32), forces=forces)
        out = {"energies": raw["atomic_energies"][wanted]}
        if forces:
            out["forces"] = raw["forces"][wanted]
        return out

    # ------------------------------------------------------------------------------------------- information

    @property
    def radial_report(self) -> dict[str, Any]:
        """Size and measured relative errors of the radial tables (zero for radial="exact")."""
        return dict(self._ready.radial_report)

    @property
    def description(self) -> str:
        """Processor, precision, tables and threads in words."""
        return self._ready.description

    # ------------------------------------------------------------------------------------------- details

    @property
    def _ready(self) -> Evaluator:
        assert self._evaluator is not None
        return self._evaluator

    def _prepare(self, symbols: set[str] | Sequence[str]) -> None:
        """Make the evaluator for the elements met so far: weights of other elements stay out of the caches."""
        new = set(symbols) - set(self._elements)
        if self._evaluator is not None and not new:
            return
        unknown = sorted(new - set(self.model.elements))
        if unknown:
            raise ValueError(
                f"The element {unknown[0]} is not in {self.model.name}; it knows {' '.join(self.model.elements)}."
            )
        wanted = new | set(self._elements)
        self._elements = [element for element in self.model.elements if element in wanted]
        self._spec = ModelSpec(self.model.arrays, self.model.name, self._elements)
        self._evaluator = Evaluator(self._spec, **self._options)
        cutoffs = self._spec.pair_cutoffs
        self._symmetric = bool(np.array_equal(cutoffs, cutoffs.T))
        self._lists = VerletList(cutoffs, self._skin, self._threads)

    def _species(self, atoms: Atoms) -> NDArray[np.int32]:
        index = {symbol: k for k, symbol in enumerate(self._elements)}
        return np.array([index[symbol] for symbol in atoms.get_chemical_symbols()], dtype=np.int32)

    def _moving(self, atoms: Atoms) -> tuple[NeighborList, NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Return neighbours from the cached list, positions, cells and species of one structure."""
        self._prepare(set(atoms.get_chemical_symbols()))
        species = self._species(atoms)
        assert self._lists is not None
        neighbors = self._lists.update(atoms.positions, atoms.cell.array, atoms.pbc, species)
        return neighbors, atoms.positions, atoms.cell.array[None], species

    def _run(
        self,
        neighbors: NeighborList,
        positions: NDArray[Any],
        cells: NDArray[Any],
        species: NDArray[Any],
        **options: Any,
    ) -> dict[str, Any]:
        raw = self._ready.compute(neighbors, positions, cells, species, **options)
        if raw["closest_distance"] < CLOSE_CONTACT and not self._warned:
            self._warned = True
            i, j = raw["closest_pair"]
            logger.warning(
                "Atoms %d and %d are %.3f A apart, closer than any model is trained for; check the structure "
                "(reported once).",
                i,
                j,
                raw["closest_distance"],
            )
        return raw


def _with_observers(neighbors: NeighborList, atoms: NDArray[np.int64], *, symmetric: bool) -> NDArray[np.int64]:
    """`atoms` and every atom that has one of them in its neighbour row."""
    first, neighbor = neighbors.first, neighbors.neighbor
    if symmetric:  # then the observers of an atom are its own neighbours
        rows = [neighbor[first[i] : first[i + 1]] for i in atoms]
        return np.unique(np.concatenate([atoms, *rows]))
    center = np.repeat(np.arange(neighbors.n_atoms), np.diff(first))
    return np.unique(np.concatenate([atoms, center[np.isin(neighbor, atoms)]]))


def _results(atoms: Atoms, raw: dict[str, Any], part: slice, virial: NDArray[np.float64]) -> dict[str, Any]:
    energies = raw["atomic_energies"][part]
    energy = float(energies.sum())
    results = {"energy": energy, "free_energy": energy, "energies": energies, "forces": raw["forces"][part]}
    volume = abs(float(np.linalg.det(atoms.cell.array)))
    if volume > 0.0:
        results["stress"] = -(0.5 * (virial + virial.T))[VOIGT] / volume
        if "atom_virial" in raw:
            local = raw["atom_virial"][part]
            results["stresses"] = -(0.5 * (local + local.transpose(0, 2, 1)))[:, VOIGT[0], VOIGT[1]] / volume
    return results
