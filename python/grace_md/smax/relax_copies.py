"""Relaxations that ended in the same place: copies found by descriptors of whole configurations."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from math import gcd
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from numpy.typing import NDArray

from grace_md.merging.duplicates import fingerprint

__all__ = ["DESCRIPTORS", "Distinct", "configuration_descriptor"]

DESCRIPTORS = ("snap", "distances")
CUTOFF_FACTOR = 4.0  # times the covalent radius: the cutoff of the bispectrum components of an atom
DISTANCE_SCALE = 1.0  # A: what the averaged distances are compared with

Array = NDArray[np.float64]


def _snap(atoms: Atoms) -> Array:
    compute = importlib.import_module("grace_md.smax.descriptors").snap_descriptors
    mean: Array = np.asarray(compute(atoms, CUTOFF_FACTOR * covalent_radii[atoms.numbers])).mean(axis=0)
    return mean / max(1e-12, float(np.linalg.norm(mean)))


def _distances(atoms: Atoms) -> Array:
    return fingerprint(atoms) / DISTANCE_SCALE


def configuration_descriptor(name: str) -> Callable[[Atoms], Array]:
    """Return a function from a structure to its descriptor, [m], without a unit.

    Parameters
    ----------
    name : "snap": mean of the 55 bispectrum components over the atoms, divided by its length; "distances": six averages
        of the interatomic distances in A

    Raises ValueError for another name.
    """
    functions: dict[str, Callable[[Atoms], Array]] = {"snap": _snap, "distances": _distances}
    if name not in functions:
        raise ValueError(f"`descriptor` = {name!r} is unknown; it is one of {', '.join(DESCRIPTORS)}.")
    return functions[name]


class Distinct:
    """Structures that differ from all earlier ones.

    Two structures are copies if they have the same elements in the same proportions and their descriptors are closer
    than the tolerance.

    Parameters
    ----------
    tolerance : Euclidean distance of two descriptors; 0 finds no copies
    descriptor : "snap" or "distances"
    """

    def __init__(self, tolerance: float = 1e-3, descriptor: str = "snap") -> None:
        if not (np.isfinite(tolerance) and tolerance >= 0.0):
            raise ValueError(f"`tolerance` = {tolerance} must be a number >= 0.")
        self.tolerance = tolerance
        self._describe = configuration_descriptor(descriptor)
        self._seen: dict[tuple[Any, ...], tuple[int, Array]] = {}

    def is_new(self, atoms: Atoms) -> bool:
        """Return whether no earlier structure is a copy; remember it in that case."""
        if self.tolerance == 0.0:
            return True
        numbers, counts = np.unique(atoms.numbers, return_counts=True)
        divisor = gcd(*counts.tolist())
        key = (*numbers.tolist(), *(counts // divisor).tolist())
        value = self._describe(atoms)
        n, rows = self._seen.get(key, (0, np.empty((4, len(value)))))
        if n and float(np.linalg.norm(rows[:n] - value, axis=1).min()) < self.tolerance:
            return False
        if n == len(rows):
            rows = np.concatenate([rows, np.empty_like(rows)])
        rows[n] = value
        self._seen[key] = n + 1, rows
        return True
