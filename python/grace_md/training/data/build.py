"""From labelled structures to the flat arrays of a shard: neighbour lists, and what reports need of every structure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from ase.data import atomic_numbers, chemical_symbols, covalent_radii
from ase.geometry import complete_cell
from numpy.typing import NDArray

from grace_md._core import build_neighbors
from grace_md.training.data.labels import Record

__all__ = ["Arrays", "Cutoffs", "build_arrays", "geometry_hash", "neighbor_arrays", "text_hash"]

Arrays = dict[str, NDArray[Any]]

STRUCTURES_PER_LIST = 256  # one call of the core; bounds the memory of the vectors
GRID = 1e-4  # of a lattice vector: positions that agree to this are the same for the search of duplicates
CELL_GRID = 1e-4  # A
RADII: NDArray[np.float64] = np.asarray(covalent_radii, dtype=np.float64)


@dataclass(frozen=True)
class Cutoffs:
    """Elements and their pair cutoffs.

    Attributes
    ----------
    elements : symbols, in the order of the rows
    matrix : float64 [n_elements, n_elements], A; pairs with a cutoff <= 0 are not listed
    """

    elements: tuple[str, ...]
    matrix: NDArray[np.float64]

    @classmethod
    def make(cls, elements: Sequence[str], matrix: Any) -> Cutoffs:
        """Check and copy; ValueError for unknown or repeated elements and a matrix of the wrong shape."""
        unknown = [element for element in elements if element not in atomic_numbers]
        if unknown or len(set(elements)) != len(elements) or not elements:
            raise ValueError(f"`elements` = {list(elements)} must be chemical symbols such as 'Si', each one once.")
        values = np.array(matrix, dtype=np.float64)
        if values.ndim == 0:
            values = np.full((len(elements), len(elements)), float(values))
        if (
            values.shape != (len(elements),) * 2
            or not np.isfinite(values).all()
            or not np.array_equal(values, values.T)
        ):
            raise ValueError(
                f"`pair_cutoffs` must be a finite symmetric matrix [{len(elements)}, {len(elements)}] in A, one row "
                f"per element; got shape {list(values.shape)}."
            )
        return cls(tuple(elements), values)

    @property
    def index(self) -> NDArray[np.int64]:
        """Row of each atomic number, -1 for elements that are not listed; int64 [119]."""
        table = np.full(len(chemical_symbols), -1, dtype=np.int64)
        table[[atomic_numbers[element] for element in self.elements]] = np.arange(len(self.elements))
        return table

    def reordered(self, elements: Sequence[str]) -> NDArray[np.float64]:
        """Return the matrix in another order of the elements, or for some of them."""
        rows = [self.elements.index(element) for element in elements]
        return self.matrix[np.ix_(rows, rows)]


def text_hash(text: str) -> int:
    """64 bits of a text, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def geometry_hash(record: Record) -> int:
    """64 bits that are equal for the same structure with its atoms in another order or in other periodic images.

    Positions count to 1e-4 of a lattice vector. Rotated or translated copies are different structures here.
    """
    cell = complete_cell(record.cell) if record.pbc.any() else np.eye(3)
    fractional = np.linalg.solve(cell.T, record.positions.T).T
    free = ~record.pbc
    fractional[:, free] -= fractional[:, free].min(axis=0)
    points = np.rint(fractional / GRID).astype(np.int64)
    points[:, record.pbc] %= round(1.0 / GRID)
    rows = np.column_stack([record.numbers, points])
    rows = rows[np.lexsort(rows.T[::-1])]
    shape = np.rint(record.cell[record.pbc] / CELL_GRID).astype(np.int64)
    parts = (record.pbc.tobytes(), shape.astype("<i8").tobytes(), rows.astype("<i8").tobytes())
    return int.from_bytes(hashlib.blake2b(b"|".join(parts), digest_size=8).digest(), "little")


def _smallest(values: NDArray[Any], largest: int) -> NDArray[Any]:
    """Return integers in the smallest type that holds 0..largest."""
    return values.astype(np.uint16 if largest < 2**16 else np.int32)


def _minimum_per_row(values: NDArray[np.float64], first: NDArray[np.int64]) -> NDArray[np.float64]:
    """Minimum of each compressed row, infinity for empty ones."""
    found = np.full(len(first) - 1, np.inf)
    filled = np.flatnonzero(np.diff(first))
    if len(filled):
        found[filled] = np.minimum.reduceat(values, first[filled])
    return found


def neighbor_arrays(records: Sequence[Record], cutoffs: Cutoffs) -> Iterator[Arrays]:
    """Yield the lists of some structures at a time, with the closest distance and contact of each structure.

    Arrays of each piece as in `build_arrays`: n_neighbors, neighbor, shift, n_bonds, closest, contact, n_isolated. The
    atomic numbers must be among those of `cutoffs`.
    """
    index, matrix = cutoffs.index, cutoffs.matrix
    waiting = iter(records)
    while some := list(islice(waiting, STRUCTURES_PER_LIST)):
        counts = np.array([len(r.numbers) for r in some], dtype=np.int64)
        first_atom = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        numbers = np.concatenate([r.numbers for r in some])
        positions = np.concatenate([r.positions for r in some])
        cells = np.array([r.cell for r in some])
        periodic = np.array([r.pbc for r in some])
        species = index[numbers].astype(np.int32)
        found = build_neighbors(positions, species, cells, periodic, first_atom, matrix, 0.0, 1)
        n_neighbors = np.diff(found.first)
        center = np.repeat(np.arange(len(numbers)), n_neighbors)
        distance = np.linalg.norm(found.vectors(positions, cells), axis=1)
        ratio = distance / (RADII[numbers[center]] + RADII[numbers[found.neighbor]])
        first_bond = np.asarray(found.first)[first_atom].astype(np.int64)
        start = np.repeat(first_atom[:-1], np.diff(first_bond))  # of the structure of each bond
        yield {
            "n_neighbors": n_neighbors.astype(np.int32),
            "neighbor": (found.neighbor - start).astype(np.int32),
            "shift": np.asarray(found.shift),
            "n_bonds": np.diff(first_bond).astype(np.int64),
            "closest": _minimum_per_row(distance, first_bond),
            "contact": _minimum_per_row(ratio, first_bond),
            "n_isolated": np.add.reduceat((n_neighbors == 0).astype(np.int32), first_atom[:-1]),
        }


def _force_columns(records: Sequence[Record]) -> Arrays:
    largest, square, net, labelled = [], [], [], []
    for record in records:
        known = record.forces[~np.isnan(record.forces[:, 0])]
        norms2 = np.einsum("na,na->n", known, known)
        largest.append(np.sqrt(norms2.max()) if len(known) else np.nan)
        square.append(norms2.sum())
        net.append(np.linalg.norm(known.sum(axis=0)) if len(known) == len(record.forces) else np.nan)
        labelled.append(len(known))
    return {
        "force_max": np.array(largest),
        "force_square": np.array(square),
        "force_net": np.array(net),
        "n_forces": np.array(labelled, dtype=np.int32),
    }


def build_arrays(records: Iterable[Record], cutoffs: Cutoffs) -> tuple[Arrays, list[str]]:
    """Return the arrays of one shard, and the names of the configuration types that `config_type` counts.

    Returns
    -------
    arrays, per structure [S]
        n_atoms int32, n_bonds int64, cell float64 [S, 3, 3], pbc bool [S, 3], energy float64 (eV, NaN: missing), stress
        float64 [S, 6] (eV/A^3), weights float64 [S, 3] (energy, forces, stress), row int64 (in the source), group and
        geometry uint64 (hashes), config_type int32, volume (A^3, NaN unless periodic), force_max, force_net (eV/A),
        force_square (sum of squares), n_forces (atoms with labels), closest (A), contact (distance over the sum of
        covalent radii), n_isolated (atoms without neighbour)
    per atom [N]
        numbers uint8 (atomic), positions, forces float64 [N, 3], n_neighbors; atom_weight float64 if any structure has
        them
    per bond [B], sorted by (center, neighbor)
        neighbor (number of the atom within its structure), shift int8 or int16 [B, 3]

    Raises
    ------
    ValueError
        An element without cutoffs; a cell that is too small for the cutoffs.
    """
    records = list(records)
    _refuse_unknown(records, cutoffs)
    lists = list(neighbor_arrays(records, cutoffs))
    joined = {key: np.concatenate([part[key] for part in lists]) for key in lists[0]}
    largest = max(len(r.numbers) for r in records)
    joined["neighbor"] = _smallest(joined["neighbor"], largest)
    joined["n_neighbors"] = _smallest(joined["n_neighbors"], int(joined["n_neighbors"].max(initial=0)))
    wide = np.abs(joined["shift"]).max(initial=0) > np.iinfo(np.int8).max
    joined["shift"] = joined["shift"].astype(np.int16 if wide else np.int8)
    types = sorted({r.config_type for r in records})
    geometry = np.array([geometry_hash(r) for r in records], dtype=np.uint64)
    group = np.array([text_hash(r.group) if r.group else 0 for r in records], dtype=np.uint64)
    arrays: Arrays = {
        "n_atoms": np.array([len(r.numbers) for r in records], dtype=np.int32),
        "cell": np.array([r.cell * r.pbc[:, None] for r in records]),
        "pbc": np.array([r.pbc for r in records]),
        "energy": np.array([r.energy for r in records]),
        "stress": np.array([r.stress for r in records]),
        "weights": np.array([r.weights for r in records]),
        "row": np.array([r.row for r in records], dtype=np.int64),
        "group": np.where(group == 0, geometry, group),  # without a group, copies of one structure are one
        "geometry": geometry,
        "config_type": np.array([types.index(r.config_type) for r in records], dtype=np.int32),
        "volume": np.array([r.volume for r in records]),
        **_force_columns(records),
        "numbers": np.concatenate([r.numbers for r in records]).astype(np.uint8),
        "positions": np.concatenate([r.positions for r in records]),
        "forces": np.concatenate([r.forces for r in records]),
        **joined,
    }
    if any(r.atom_weights is not None for r in records):
        arrays["atom_weight"] = np.concatenate(
            [np.ones(len(r.numbers)) if r.atom_weights is None else r.atom_weights for r in records]
        )
    return arrays, types


def _refuse_unknown(records: Sequence[Record], cutoffs: Cutoffs) -> None:
    index = cutoffs.index
    for record in records:
        if record.numbers.min() < 1 or record.numbers.max() >= len(index):
            raise ValueError(f"structure {record.row} has atomic numbers that are no elements; remove it.")
        missing = sorted({chemical_symbols[z] for z in record.numbers[index[record.numbers] < 0]})
        if missing:
            raise ValueError(
                f"structure {record.row} has {', '.join(missing)}, outside the elements of the model "
                f"({' '.join(cutoffs.elements)}); add the element to the model or remove the structure."
            )
