"""Labels, compositions and geometry of a data set, in one pass and bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ase.units
import numpy as np
from ase.data import chemical_symbols, covalent_radii
from numpy.typing import NDArray

from grace_md.analysis.dataset_histogram import SparseHistogram
from grace_md.training.data.build import Cutoffs, neighbor_arrays
from grace_md.training.data.labels import Record

__all__ = ["QUANTITIES", "SetStatistics"]

# Quantity -> (words, unit, first width of its bins).
QUANTITIES = {
    "energy": ("energy", "eV/atom", 2.0**-7),
    "force": ("force component", "eV/Å", 2.0**-7),
    "stress": ("stress component", "GPa", 2.0**-4),
    "n_elements": ("elements per configuration", "", 1.0),
    "n_atoms": ("atoms per configuration", "", 1.0),
    "contact": ("shortest distance / sum of covalent radii", "", 2.0**-8),
    "distance": ("shortest distance", "Å", 2.0**-8),
    "packing": ("packing number", "", 2.0**-8),
    "aspect": ("aspect of the cell", "", 2.0**-6),
}
LABELS = ("energy", "force", "stress")
WHOLE = ("n_elements", "n_atoms")
GEOMETRY = ("contact", "distance", "packing", "aspect")
REACH = 2.0  # sums of covalent radii within which the shortest distance is searched
SHARES = (0.0, 0.01, 0.25, 0.5, 0.75, 0.99, 1.0)


def _contact_cutoffs() -> Cutoffs:
    known = [z for z in range(1, len(chemical_symbols)) if z < len(covalent_radii)]
    radii = covalent_radii[known]
    return Cutoffs(tuple(chemical_symbols[z] for z in known), REACH * (radii[:, None] + radii[None, :]))


class SetStatistics:
    """Histograms and counts of one set; add structures in batches.

    Packing number: sum of the volumes of spheres with covalent radii over the volume of the cell. Aspect of the cell:
    largest over smallest distance between opposite faces. Both only of structures that are periodic in all directions.
    The shortest distance counts periodic images, and only up to twice the sum of the covalent radii.

    Attributes
    ----------
    name : of the set
    histograms : by quantity (`QUANTITIES`)
    structures_of, atoms_of : int64 [119], by atomic number
    numbers, sizes : of the structures that were counted, in order; for the choice of samples
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.histograms = {
            quantity: SparseHistogram(row[2], whole=quantity in WHOLE) for quantity, row in QUANTITIES.items()
        }
        self.structures_of: NDArray[np.int64] = np.zeros(len(chemical_symbols), dtype=np.int64)
        self.atoms_of: NDArray[np.int64] = np.zeros(len(chemical_symbols), dtype=np.int64)
        self.n_structures = self.n_atoms = self.n_lonely = self.n_periodic = 0
        self._numbers: list[NDArray[np.int64]] = []
        self._sizes: list[NDArray[np.int32]] = []
        self._cutoffs = _contact_cutoffs()

    def add(self, numbers: Sequence[int], records: Sequence[Record]) -> None:
        """Count some structures, which have these numbers in their files."""
        if not records:
            return
        sizes = np.array([len(record.numbers) for record in records])
        self._numbers.append(np.array(numbers, dtype=np.int64))
        self._sizes.append(sizes.astype(np.int32))
        self.n_structures += len(records)
        self.n_atoms += int(sizes.sum())
        self._add_compositions(records, sizes)
        h = self.histograms
        h["energy"].add(np.array([record.energy for record in records]) / sizes)
        h["force"].add(np.concatenate([record.forces for record in records]))
        h["stress"].add(np.array([record.stress for record in records]) / ase.units.GPa)
        self._add_geometry(records)

    def _add_compositions(self, records: Sequence[Record], sizes: NDArray[np.int64]) -> None:
        n_elements = []
        for record in records:
            if record.numbers.min() < 1 or record.numbers.max() >= len(chemical_symbols):
                raise ValueError(f"structure {record.row} of {self.name} has atoms that are no element; remove it.")
            counts = np.bincount(record.numbers, minlength=len(chemical_symbols))
            self.atoms_of += counts
            self.structures_of += counts > 0
            n_elements.append(np.count_nonzero(counts))
        self.histograms["n_elements"].add(n_elements)
        self.histograms["n_atoms"].add(sizes)

    def _add_geometry(self, records: Sequence[Record]) -> None:
        for found in neighbor_arrays(records, self._cutoffs):
            self.histograms["distance"].add(found["closest"])
            self.histograms["contact"].add(found["contact"])
            self.n_lonely += int(np.isinf(found["closest"]).sum())
        periodic = [record for record in records if record.pbc.all()]
        self.n_periodic += len(periodic)
        if not periodic:
            return
        cells = np.array([record.cell for record in periodic])
        volumes = np.abs(np.linalg.det(cells))
        spheres = np.array([4.0 / 3.0 * np.pi * np.sum(covalent_radii[record.numbers] ** 3) for record in periodic])
        self.histograms["packing"].add(spheres / volumes)
        heights = 1.0 / np.linalg.norm(np.linalg.inv(cells), axis=1)  # columns of the inverse
        self.histograms["aspect"].add(heights.max(axis=1) / heights.min(axis=1))

    @property
    def numbers(self) -> NDArray[np.int64]:
        """Numbers of the counted structures in their files."""
        return np.concatenate(self._numbers) if self._numbers else np.empty(0, dtype=np.int64)

    @property
    def sizes(self) -> NDArray[np.int32]:
        """Atoms of each of them."""
        return np.concatenate(self._sizes) if self._sizes else np.empty(0, dtype=np.int32)

    @property
    def elements(self) -> list[str]:
        """Symbols that occur, by atomic number."""
        return [chemical_symbols[z] for z in np.flatnonzero(self.structures_of)]

    def summary(self) -> dict[str, Any]:
        """Return plain values for machines: counts, elements, and mean, rms and percentiles of every quantity."""
        return {
            "structures": self.n_structures,
            "atoms": self.n_atoms,
            "periodic": self.n_periodic,
            "without_neighbors": self.n_lonely,
            "elements": {
                chemical_symbols[z]: {"structures": int(self.structures_of[z]), "atoms": int(self.atoms_of[z])}
                for z in np.flatnonzero(self.structures_of)
            },
            "quantities": {
                quantity: {
                    "unit": QUANTITIES[quantity][1],
                    "count": histogram.count,
                    "mean": _plain(histogram.mean),
                    "rms": _plain(histogram.rms),
                    "percentiles": [_plain(value) for value in histogram.quantiles(SHARES)],
                }
                for quantity, histogram in self.histograms.items()
            },
            "percentiles_of": [100.0 * share for share in SHARES],
        }


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
