"""Energies of sets on one scale: an offset per element, fitted to compositions that two sets share.

For a composition c with element fractions x_c, let e(c) be the lowest energy per atom that a set has of it. The offsets
o of a set B against the reference set A are the least-squares solution of

    sum_Z x_c,Z o_Z = e_B(c) - e_A(c)

over the compositions of both; energies of B become E - sum_Z n_Z o_Z. The lowest energies of unlike structures differ
for other reasons than the method, so offsets that explain less than half of the difference are reported, not used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from grace_md.merging.entries import Entry

__all__ = ["Lowest", "Offsets", "fit_offsets"]

EXPLAINED = 0.5  # rms left / rms before, at most, of a fit that is used
RANK_RELATIVE = 1e-8  # singular values below this share of the largest one do not determine a direction


@dataclass
class Lowest:
    """Lowest energies per atom of a set by reduced composition.

    Attributes
    ----------
    energies : eV per atom by composition
    fractions : share of each element (atomic number) by composition
    elements : atomic numbers that the set has at all
    """

    energies: dict[str, float] = field(default_factory=dict)
    fractions: dict[str, dict[int, float]] = field(default_factory=dict)
    elements: set[int] = field(default_factory=set)

    def add(self, entry: Entry) -> None:
        """Take note of an entry with an energy."""
        if entry.record is None or not np.isfinite(entry.record.energy):
            return
        n = len(entry.frame.numbers)
        energy = entry.record.energy / n
        self.elements |= entry.counts.keys()
        if energy < self.energies.get(entry.composition, np.inf):
            self.energies[entry.composition] = energy
            self.fractions[entry.composition] = {z: count / n for z, count in entry.counts.items()}


@dataclass
class Offsets:
    """Offsets of one set against the reference.

    Attributes
    ----------
    values : eV by atomic number; 0 for elements that no shared composition has
    n_compositions, rank : compositions in both sets, and directions that they determine
    rms_before, rms_after : eV per atom over these compositions; NaN where there are none
    unknown : symbols of elements of the set without an offset
    """

    values: dict[int, float]
    n_compositions: int
    rank: int
    rms_before: float
    rms_after: float
    unknown: list[str]

    @property
    def used(self) -> bool:
        """Whether the fit explains enough of the difference for the offsets to be subtracted."""
        return self.n_compositions > 0 and self.rms_after <= EXPLAINED * self.rms_before

    def of(self, counts: Mapping[int, int]) -> float:
        """Return what is subtracted from the energy (eV) of a structure with these atoms."""
        return sum(n * self.values.get(z, 0.0) for z, n in counts.items()) if self.used else 0.0

    @property
    def n_fitted(self) -> int:
        """Elements that shared compositions have."""
        return len(self.values) - len(self.unknown)

    def warnings(self) -> list[str]:
        """Return what a user should know before using the merged energies."""
        if not self.n_compositions:
            return ["the sets share no composition, so no offset was fitted: their energies are not on one scale"]
        found = []
        if not self.used:
            found.append(
                f"the offsets were NOT subtracted: {self.rms_after:.3g} of {self.rms_before:.3g} eV/atom are left, so "
                "the structures of the shared compositions differ, not only the methods"
            )
        if self.rank < self.n_fitted:
            found.append(
                f"{self.n_compositions} shared compositions determine only {self.rank} combinations of the offsets of "
                f"{self.n_fitted} elements: the smallest offsets that fit were taken"
            )
        if self.unknown:
            found.append(f"no shared composition has {' '.join(self.unknown)}: their offsets are 0")
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain values for the summary."""
        clean = [None if not np.isfinite(x) else x for x in (self.rms_before, self.rms_after)]
        return {
            "eV_per_atom_of_element": {chemical_symbols[z]: value for z, value in sorted(self.values.items())},
            "shared_compositions": self.n_compositions,
            "rank": self.rank,
            "subtracted": self.used,
            "elements_fitted": self.n_fitted,
            "rms_before_eV_per_atom": clean[0],
            "rms_after_eV_per_atom": clean[1],
            "warnings": self.warnings(),
        }


def fit_offsets(reference: Lowest, other: Lowest) -> Offsets:
    """Return the offsets of `other` that bring its energies to the scale of `reference`."""
    shared = sorted(reference.energies.keys() & other.energies.keys())
    elements = sorted({z for name in shared for z in other.fractions[name]})
    missing = sorted(other.elements - set(elements))
    values = dict.fromkeys([*elements, *missing], 0.0)
    unknown = [chemical_symbols[z] for z in missing]
    if not shared:
        return Offsets(values, 0, 0, float("nan"), float("nan"), unknown)
    column = {z: k for k, z in enumerate(elements)}
    matrix = np.zeros((len(shared), len(elements)))
    for row, name in enumerate(shared):
        for z, share in other.fractions[name].items():
            matrix[row, column[z]] = share
    target = np.array([other.energies[name] - reference.energies[name] for name in shared])
    solution, _, rank, _ = np.linalg.lstsq(matrix, target, rcond=RANK_RELATIVE)
    values.update(zip(elements, solution.tolist(), strict=True))
    after = target - matrix @ solution
    rms = [float(np.sqrt(np.mean(x**2))) for x in (target, after)]
    return Offsets(values, len(shared), int(rank), rms[0], rms[1], unknown)
