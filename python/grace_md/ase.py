"""ASE calculator: energies, forces and stresses of GRACE models from the C++ core."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray

from grace_md._core import Evaluator, ModelSpec, NeighborList, build_neighbors, cuda_probe
from grace_md.model import GraceModel
from grace_md.neighbors import VerletList

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ["GraceCalculator"]

logger = logging.getLogger("grace_md")

CLOSE_CONTACT = 0.3  # A; below, a warning: no model is trained there
GRADIENTS = {"forces", "stress", "stresses"}
VOIGT = ([0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1])  # xx, yy, zz, yz, xz, xy


class GraceCalculator(Calculator):  # type: ignore[misc]
    """GRACE potential for ASE.

    Parameters
    ----------
    model : path of a weight file (`.npz`) or GraceModel
    device : "auto" | "cpu" | "cuda" | "cuda:N"
        auto: the environment variable GRACE_MD_DEVICE, else the first GPU that can be used, else the CPU; says which at
        level INFO. cuda never falls back. ("emulated": the GPU code on the CPU, very slow, for tests.)
    precision : "auto" | "fp64" | "mixed" | "fp32"
        mixed and fp32 evaluate the network in single precision; positions, energies, forces and sums stay double.
        auto: mixed on a GPU, fp64 on the CPU.
    radial : "table" | "exact"
        Tabulated radial functions (error in `radial_report`), or the radial network itself.
    threads : int
        OpenMP threads; 0: OMP_NUM_THREADS or all cores.
    skin : float
        Angstrom added to the cutoffs of the neighbour list, which is reused until atoms moved too far.
    deterministic : bool
        On a GPU: the same bits in every run and for every `chunksize`, for a little time. The CPU always does so, for
        one number of threads.
    chunksize : int
        Atoms that share the work space at a time; changes memory and speed only. 0: chosen by the core.

    Only what ASE asks for is computed: an energy alone does without the cost of forces.

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
        precision: str = "auto",
        radial: str = "table",
        threads: int = 0,
        skin: float = 0.5,
        deterministic: bool = False,
        chunksize: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model = model if isinstance(model, GraceModel) else GraceModel.load(model)
        self._options: dict[str, Any] = {
            "precision": precision,
            "radial": radial,
            "device": device,
            "n_threads": threads,
            "chunk": chunksize,
            "deterministic": deterministic,
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
        if device == "auto":
            reason = cuda_probe()["reason"] if self._ready.device_kind == "cpu" else ""
            logger.info("device auto: %s%s", self.description, f" ({reason})" if reason else "")

    # ------------------------------------------------------------------------------------------- evaluation

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy", "forces"),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Fill `results` (ASE calls this); with forces and stress only if `properties` names one that needs them."""
        super().calculate(atoms, properties, system_changes)
        if self.atoms is None:
            raise ValueError("`atoms` is missing: attach the calculator to a structure first.")
        raw = self._evaluate_one(
            self.atoms, forces=not GRADIENTS.isdisjoint(properties), atom_virial="stresses" in properties
        )
        self.results = _results(self.atoms, raw, slice(None), 0)
        missing = [name for name in properties if name in ("stress", "stresses") and name not in self.results]
        if missing:
            raise PropertyNotImplementedError(f"{missing[0]} needs three cell vectors that span a volume.")

    def evaluate(self, structures: Sequence[Atoms]) -> list[dict[str, Any]]:
        """Evaluate many structures in one call; one dictionary of results each, keys as ASE's (per-atom ones too)."""
        structures = list(structures)
        if not structures:
            return []
        self._prepare(set().union(*map(_symbols, structures)))
        first = np.cumsum([0, *[len(atoms) for atoms in structures]], dtype=np.int64)
        positions = np.concatenate([atoms.positions for atoms in structures])
        species = np.concatenate([self._species(atoms) for atoms in structures])
        cells = np.array([atoms.cell.array for atoms in structures])
        periodic = np.array([atoms.pbc for atoms in structures])
        if self._ready.lists_neighbors:
            raw = self._ready.compute_structures(
                positions, cells, periodic, species, first, rebuild="rebuild", atom_virial=True
            )
        else:
            neighbors = build_neighbors(
                positions, species, cells, periodic, first, self._spec.pair_cutoffs, 0.0, self._threads
            )
            raw = self._ready.compute(neighbors, positions, cells, species, atom_virial=True)
        self._warn_of_contacts(raw)
        return [_results(atoms, raw, slice(first[k], first[k + 1]), k) for k, atoms in enumerate(structures)]

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
        self._prepare(_symbols(atoms))
        selection = np.unique(wanted)
        if forces:
            neighbors = self._neighbors(atoms)
            for _ in range(self.model.n_layers):
                selection = _with_observers(neighbors, selection, symmetric=self._symmetric)
        raw = self._evaluate_one(atoms, selection=selection.astype(np.int32), forces=forces)
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
        self._index: NDArray[np.int32] = np.full(len(chemical_symbols), -1, dtype=np.int32)
        self._index[[atomic_numbers[element] for element in self._elements]] = np.arange(len(self._elements))
        self._spec = ModelSpec(self.model.arrays, self.model.name, self._elements)
        self._evaluator = Evaluator(self._spec, **self._options)
        cutoffs = self._spec.pair_cutoffs
        self._symmetric = bool(np.array_equal(cutoffs, cutoffs.T))
        self._lists = VerletList(cutoffs, self._skin, self._threads)

    def _species(self, atoms: Atoms) -> NDArray[np.int32]:
        return np.asarray(self._index[atoms.numbers])

    def _neighbors(self, atoms: Atoms) -> NeighborList:
        """Return the cached list of one structure, made on the CPU."""
        assert self._lists is not None
        return self._lists.update(atoms.positions, atoms.cell.array, atoms.pbc, self._species(atoms))

    def _evaluate_one(self, atoms: Atoms, **options: Any) -> dict[str, Any]:
        """Raw results of one structure, with a cached neighbour list: the evaluator's own if it makes one."""
        self._prepare(_symbols(atoms))
        positions, cells, species = atoms.positions, atoms.cell.array[None], self._species(atoms)
        if self._ready.lists_neighbors:
            raw = self._ready.compute_structures(
                positions, cells, atoms.pbc[None], species, [0, len(atoms)], self._skin, **options
            )
        else:
            raw = self._ready.compute(self._neighbors(atoms), positions, cells, species, **options)
        self._warn_of_contacts(raw)
        return raw

    def _warn_of_contacts(self, raw: dict[str, Any]) -> None:
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


def _symbols(atoms: Atoms) -> set[str]:
    return {chemical_symbols[number] for number in np.unique(atoms.numbers)}


def _with_observers(neighbors: NeighborList, atoms: NDArray[np.int64], *, symmetric: bool) -> NDArray[np.int64]:
    """`atoms` and every atom that has one of them in its neighbour row."""
    first, neighbor = neighbors.first, neighbors.neighbor
    if symmetric:  # then the observers of an atom are its own neighbours
        rows = [neighbor[first[i] : first[i + 1]] for i in atoms]
        return np.unique(np.concatenate([atoms, *rows]))
    center = np.repeat(np.arange(neighbors.n_atoms), np.diff(first))
    return np.unique(np.concatenate([atoms, center[np.isin(neighbor, atoms)]]))


def _results(atoms: Atoms, raw: dict[str, Any], part: slice, structure: int) -> dict[str, Any]:
    energies = raw["atomic_energies"][part]
    energy = float(energies.sum())
    results = {"energy": energy, "free_energy": energy, "energies": energies}
    if "forces" not in raw:
        return results
    results["forces"] = raw["forces"][part]
    volume = abs(float(np.linalg.det(atoms.cell.array)))
    if volume > 0.0:
        virial = raw["virial"][structure]
        results["stress"] = -(0.5 * (virial + virial.T))[VOIGT] / volume
        if "atom_virial" in raw:
            local = raw["atom_virial"][part]
            results["stresses"] = -(0.5 * (local + local.transpose(0, 2, 1)))[:, VOIGT[0], VOIGT[1]] / volume
    return results
