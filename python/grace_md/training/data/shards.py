"""`ShardSet`: a data set on disk or in memory, whose structures are fetched by number."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import chemical_symbols
from numpy.typing import ArrayLike, NDArray

from grace_md.progress import ProgressBar
from grace_md.training.data.build import Arrays, Cutoffs, build_arrays
from grace_md.training.data.labels import LabelKeys, extract, resolve_keys
from grace_md.training.data.readers import frame_from_atoms
from grace_md.training.data.storage import CorruptShardError, Shard, read_index

if TYPE_CHECKING:
    from grace_md.torch.batch import AtomsBatch
    from grace_md.training.data.collate import Labels

__all__ = ["ShardSet"]

OPEN_SHARDS = 256  # maps that are kept open; more would meet the limit of open files
AGAIN = "run the conversion again: it replaces what is damaged and keeps the rest"


class ShardSet:
    """Structures with labels and neighbour lists, mapped from disk.

    Parameters
    ----------
    paths : path or sequence of paths
        Directories that `convert` made; several sets with the same cutoffs are one.

    Raises
    ------
    FileNotFoundError
        A directory that is not a finished set.
    CorruptShardError
        A shard that is missing or truncated (`verify` also compares checksums).
    ValueError
        Sets of different cutoffs.

    Attributes
    ----------
    elements : list of str
        Order of the species of batches: the elements of the set by symbol, until `for_model` gives another order.
    present : list of str
        Elements that occur, by symbol.
    pair_cutoffs : float64 [n_elements, n_elements], A, of the neighbour lists, in the order of `elements`
    source_names : list of str
    source_weights : float64 [n_sources], multiply the weights of the structures of each source; may be changed
    config_types : list of str
    checks : list of dict, results of the label checks made by the conversion
    sha256 : hash of the content of all shards
    """

    def __init__(self, paths: str | PathLike[str] | Sequence[str | PathLike[str]]) -> None:
        folders = [Path(p) for p in ([paths] if isinstance(paths, (str, PathLike)) else paths)]
        if not folders:
            raise ValueError("`paths` is empty: give at least one directory of shards.")
        self._read(folders, [read_index(folder) for folder in folders])

    @classmethod
    def from_index(cls, folder: Path, index: dict[str, Any]) -> ShardSet:
        """Open a set whose index has not been written yet."""
        found = cls.__new__(cls)
        found._read([folder], [index])
        return found

    def _read(self, folders: list[Path], indices: list[dict[str, Any]]) -> None:
        shards: list[Shard] = []
        sources: list[dict[str, Any]] = []
        for folder, index in zip(folders, indices, strict=True):
            shards += [Shard(folder, {**card, "source": card["source"] + len(sources)}) for card in index["shards"]]
            sources += index["sources"]
        self._setup(shards, sources, [Cutoffs.make(i["elements"], i["pair_cutoffs"]) for i in indices])
        self.checks: list[dict[str, Any]] = [check for index in indices for check in index["checks"]]
        for shard in shards:
            if problem := shard.problem():
                raise CorruptShardError(f"{problem}; {AGAIN}.")

    def _setup(self, shards: list[Shard], sources: list[dict[str, Any]], cutoffs: list[Cutoffs]) -> None:
        self._shards = shards
        self._open: OrderedDict[int, None] = OrderedDict()
        self._lock = threading.Lock()  # loaders fetch from threads
        self._columns: dict[str, NDArray[Any]] = {}
        numbers = sorted({z for shard in shards for z in shard.card["atomic_numbers"]})
        self.present: list[str] = sorted(chemical_symbols[z] for z in numbers)
        self.cutoffs = self._common(cutoffs)
        self.source_names: list[str] = [source["name"] for source in sources]
        self.source_weights: NDArray[np.float64] = np.array([float(source["weight"]) for source in sources])
        self.provenance: list[dict[str, Any]] = sources
        sizes = [shard.card["n_structures"] for shard in shards]
        self._first: NDArray[np.int64] = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)
        self.config_types: list[str] = sorted({t for shard in shards for t in shard.card["config_types"]})
        self.elements: list[str] = list(self.present)
        self.pair_cutoffs: NDArray[np.float64] = self.cutoffs.reordered(self.elements)
        self.sha256 = hashlib.sha256("".join(shard.card["sha256"] for shard in shards).encode()).hexdigest()

    def _common(self, cutoffs: list[Cutoffs]) -> Cutoffs:
        """Cutoffs of the elements that occur, which all sets must share."""
        pairs: dict[tuple[str, str], float] = {}
        for one in cutoffs:
            known = [element for element in one.elements if element in self.present]
            for a, row in zip(known, one.reordered(known), strict=True):
                for b, value in zip(known, row, strict=True):
                    if pairs.setdefault((a, b), float(value)) != float(value):
                        raise ValueError(
                            f"The sets have neighbour lists of different cutoffs for {a}-{b} ({pairs[a, b]:g} and "
                            f"{value:g} A); convert them with the same `pair_cutoffs`."
                        )
        matrix = [[pairs.get((a, b), 0.0) for b in self.present] for a in self.present]
        return Cutoffs.make(self.present, matrix)

    @classmethod
    def from_atoms(
        cls,
        structures: Iterable[Atoms],
        elements: Sequence[str],
        pair_cutoffs: ArrayLike,
        keys: LabelKeys | None = None,
        name: str = "structures in memory",
    ) -> ShardSet:
        """Make a set in memory, of few structures; labels are checked only for shape. Raises as `convert` does."""
        asked = keys or LabelKeys()
        frames = [frame_from_atoms(atoms, row, name) for row, atoms in enumerate(structures)]
        if not frames:
            raise ValueError("`structures` is empty: give at least one structure.")
        resolved = resolve_keys(asked, frames, name)
        cutoffs = Cutoffs.make(elements, pair_cutoffs)
        arrays, types = build_arrays([extract(frame, resolved) for frame in frames], cutoffs)
        digest = hashlib.sha256()
        for values in arrays.values():
            digest.update(np.ascontiguousarray(values).tobytes())
        card = {
            "n_structures": len(frames),
            "n_atoms": int(arrays["n_atoms"].sum()),
            "n_bonds": int(arrays["n_bonds"].sum()),
            "atomic_numbers": [int(z) for z in np.unique(arrays["numbers"])],
            "sha256": digest.hexdigest(),
            "config_types": types,
            "source": 0,
        }
        found = cls.__new__(cls)
        found._setup([Shard(None, card, arrays)], [{"name": name, "weight": 1.0}], [cutoffs])
        found.checks = []
        return found

    # What is in the set ----------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return int(self._first[-1])

    @property
    def n_structures(self) -> int:
        """Number of structures."""
        return len(self)

    def column(self, name: str) -> NDArray[Any]:
        """Return one quantity of every structure (`grace_md.training.data.build.build_arrays` lists them)."""
        if name not in self._columns:
            if name == "config_type":
                parts = [
                    np.array([self.config_types.index(t) for t in shard.card["config_types"]])[self._arrays(n)[name]]
                    for n, shard in enumerate(self._shards)
                ]
            else:
                parts = [np.array(self._arrays(n)[name]) for n in range(len(self._shards))]
            self._columns[name] = np.concatenate(parts)
        return self._columns[name]

    @property
    def n_atoms(self) -> NDArray[np.int32]:
        """Atoms of each structure."""
        return self.column("n_atoms")

    @property
    def n_bonds(self) -> NDArray[np.int64]:
        """Directed bonds of each structure."""
        return self.column("n_bonds")

    @property
    def energy(self) -> NDArray[np.float64]:
        """Energies in eV, NaN where missing."""
        return self.column("energy")

    @property
    def stress(self) -> NDArray[np.float64]:
        """Stresses [n_structures, 6] in eV/A^3, NaN where missing."""
        return self.column("stress")

    @property
    def source_of(self) -> NDArray[np.int32]:
        """Number of the source of each structure."""
        sizes = np.diff(self._first)
        return np.repeat(np.array([shard.card["source"] for shard in self._shards], dtype=np.int32), sizes)

    @property
    def config_type_of(self) -> NDArray[np.int32]:
        """Number of the configuration type of each structure, in `config_types`."""
        return self.column("config_type")

    def describe(self, index: int) -> str:
        """Words for messages and reports: the source, the number in it, the formula."""
        number, local = self._locate(index)
        shard, arrays = self._shards[number], self._arrays(number)
        first = shard.first_atom[local : local + 2]
        formula = Atoms(numbers=arrays["numbers"][first[0] : first[1]]).get_chemical_formula()
        source = self.source_names[shard.card["source"]]
        return f"structure {int(arrays['row'][local])} of {source} ({formula})"

    def atoms(self, index: int) -> Atoms:
        """Return one structure as `ase.Atoms`, its labels as results of a calculator."""
        number, local = self._locate(index)
        shard, arrays = self._shards[number], self._arrays(number)
        a, b = shard.first_atom[local : local + 2]
        atoms = Atoms(
            numbers=arrays["numbers"][a:b].astype(int),
            positions=arrays["positions"][a:b],
            cell=arrays["cell"][local],
            pbc=arrays["pbc"][local],
        )
        known: dict[str, Any] = {}
        if not np.isnan(arrays["energy"][local]):
            known["energy"] = float(arrays["energy"][local])
        if not np.isnan(arrays["forces"][a:b]).any():
            known["forces"] = np.array(arrays["forces"][a:b])
        if not np.isnan(arrays["stress"][local]).any():
            known["stress"] = np.array(arrays["stress"][local])
        atoms.calc = SinglePointCalculator(atoms, **known)
        atoms.info["config_type"] = shard.card["config_types"][int(arrays["config_type"][local])]
        return atoms

    # Access ----------------------------------------------------------------------------------------------------------

    def _arrays(self, number: int) -> Arrays:
        shard = self._shards[number]
        with self._lock:
            arrays = shard.arrays()
            if shard.is_mapped:
                self._open[number] = None
                self._open.move_to_end(number)
                if len(self._open) > OPEN_SHARDS:
                    self._shards[self._open.popitem(last=False)[0]].close()
            return arrays

    def _locate(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"`index` = {index} is outside the {len(self)} structures of the set.")
        number = int(np.searchsorted(self._first, index, side="right")) - 1
        return number, index - int(self._first[number])

    def gather(self, indices: NDArray[np.int64]) -> list[tuple[Shard, Arrays, int]]:
        """Return the shard, its arrays and the place in it of each structure."""
        if len(indices) and (indices.min() < 0 or indices.max() >= len(self)):
            raise IndexError(f"`indices` must lie in 0..{len(self) - 1}; got {indices.min()} to {indices.max()}.")
        numbers = np.searchsorted(self._first, indices, side="right") - 1
        places = indices - self._first[numbers]
        return [
            (self._shards[n], self._arrays(n), place)
            for n, place in zip(numbers.tolist(), places.tolist(), strict=True)
        ]

    def batch(self, indices: ArrayLike) -> tuple[AtomsBatch, Labels]:
        """Return structures as one batch with its labels; ``-1 - i`` is structure i with all weights zero."""
        from grace_md.training.data.collate import collate  # noqa: PLC0415 - converting needs no torch

        return collate(self, np.asarray(indices, dtype=np.int64))

    def for_model(self, elements: Sequence[str], pair_cutoffs: ArrayLike) -> ShardSet:
        """Number the species as a model does, after checking that the neighbour lists are those of the model.

        Raises
        ------
        ValueError
            An element of the set that the model lacks, or pairs with another cutoff.
        """
        wanted = Cutoffs.make(elements, pair_cutoffs)
        missing = [element for element in self.present if element not in wanted.elements]
        if missing:
            first = int(np.argmax(self.composition_counts(elements=missing).sum(axis=1) > 0))
            raise ValueError(
                f"The data have {', '.join(missing)}, outside the elements of the model ({' '.join(elements)}), for "
                f"example {self.describe(first)}; add the element to the model or remove these structures."
            )
        mine, others = self.cutoffs.reordered(self.present), wanted.reordered(self.present)
        if not np.allclose(mine, others, rtol=0.0, atol=1e-9):
            a, b = np.argwhere(~np.isclose(mine, others, rtol=0.0, atol=1e-9))[0]
            raise ValueError(
                f"The neighbour lists of the data have the cutoff {mine[a, b]:g} A for {self.present[a]}-"
                f"{self.present[b]}, the model has {others[a, b]:g} A; convert the data again with its cutoffs."
            )
        self.elements, self.pair_cutoffs = list(elements), wanted.matrix
        return self

    @property
    def species_index(self) -> NDArray[np.int64]:
        """Row in `elements` of each atomic number, -1 where there is none; int64 [119]."""
        return Cutoffs(tuple(self.elements), self.pair_cutoffs).index

    def verify(self, *, progress: bool = False) -> None:
        """Read every byte and compare checksums; CorruptShardError names the first shard that is damaged."""
        total = sum(shard.card.get("bytes", 0) for shard in self._shards) / 1e6
        with ProgressBar(total, "checking (MB)") as bar:
            for shard in self._shards:
                if problem := shard.problem(full=True):
                    raise CorruptShardError(f"{problem}; {AGAIN}.")
                if progress:
                    bar.update(shard.card.get("bytes", 0) / 1e6)

    # Statistics of a fit ----------------------------------------------------------------------------------------------

    def _some(self, name: str, indices: ArrayLike | None) -> NDArray[Any]:
        values = self.column(name)
        return values if indices is None else values[np.asarray(indices, dtype=np.int64)]

    def average_neighbors(self, indices: ArrayLike | None = None) -> float:
        """Directed bonds per atom, over all structures or some."""
        return float(self._some("n_bonds", indices).sum() / self._some("n_atoms", indices).sum(dtype=np.int64))

    def force_rms(self, indices: ArrayLike | None = None) -> float:
        """Root mean square of the labelled force vectors' components, eV/A; NaN without any."""
        count = 3 * int(self._some("n_forces", indices).sum(dtype=np.int64))
        return float(np.sqrt(self._some("force_square", indices).sum() / count)) if count else float("nan")

    def composition_counts(
        self, indices: ArrayLike | None = None, elements: Sequence[str] | None = None
    ) -> NDArray[np.float64]:
        """Return the atoms of each element (default: `elements` of the set) in each structure.

        Returns
        -------
        float64 [n_structures or n_indices, n_elements]
        """
        wanted = self.elements if elements is None else list(elements)
        index = Cutoffs(tuple(wanted), np.zeros((len(wanted),) * 2)).index
        rows = np.arange(len(self)) if indices is None else np.asarray(indices, dtype=np.int64)
        counts = np.zeros((len(rows), len(wanted)))
        owner = np.searchsorted(self._first, rows, side="right") - 1
        for number in np.unique(owner):
            arrays, shard = self._arrays(int(number)), self._shards[int(number)]
            n = shard.card["n_structures"]
            species = index[arrays["numbers"]]
            flat = (np.repeat(np.arange(n), arrays["n_atoms"]) * len(wanted) + species)[species >= 0]
            full = np.bincount(flat, minlength=n * len(wanted)).reshape(n, len(wanted))
            mine = owner == number
            counts[mine] = full[rows[mine] - self._first[number]]
        return counts

    def split(self, fraction: float, seed: int = 0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the structures to train on and those to validate on, about `fraction` of all.

        The share of a structure is decided by a hash of its group (`LabelKeys.group`), or of its geometry where it has
        none: it depends neither on the order nor on the other structures, groups stay together, and so do copies.

        Raises ValueError for a fraction outside 0..1 or one that leaves a side empty.
        """
        if not 0.0 < fraction < 1.0:
            raise ValueError(f"`fraction` = {fraction} must lie between 0 and 1.")
        mixed = self.column("group") ^ np.uint64(seed * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF)
        mixed = (mixed ^ (mixed >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)  # wraps around: splitmix64
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        share = (mixed ^ (mixed >> np.uint64(31))).astype(np.float64) / 2.0**64
        valid = share < fraction
        if valid.all() or not valid.any():
            groups = len(np.unique(self.column("group")))
            side = "train" if valid.all() else "validate"
            raise ValueError(
                f"The split of {groups} groups leaves nothing to {side} on; change the fraction or the seed."
            )
        return np.flatnonzero(~valid), np.flatnonzero(valid)
