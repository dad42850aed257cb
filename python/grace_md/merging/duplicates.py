"""Copies of structures, found by composition and by distances, whatever the order of atoms, the origin or the axes.

The fingerprint of a structure has six numbers in A: averages of its interatomic distances with different weights. Each
pair counts with a fixed pseudo-random weight of its two elements and a smooth function of the distance, so that the
numbers do not jump when an atom crosses the cutoff:

    q_k = sum_ij w_k(Z_i, Z_j) g_k(r_ij) r_ij / sum_ij w_k(Z_i, Z_j) g_k(r_ij),
    g_k(r) = exp(-r / s_k) (1 - (r / r_c)^2)^3,   r_c = 6 A

A structure is a copy if one of the same formula has all six within the tolerance.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from grace_md._core import build_neighbors
from grace_md.merging.entries import Entry
from grace_md.merging.rules import Rule
from grace_md.training.data.labels import Frame
from grace_md.training.data.readers import frame_from_atoms

__all__ = ["Duplicates", "FingerprintSet", "fingerprint", "fingerprints"]

CUTOFF = 6.0  # A
SCALES = (0.5, 0.7, 1.0, 1.5, 2.5, 5.0)  # A, ranges of the weights g_k
WEIGHTS = 0.5, 1.5  # of pairs of elements
TOLERANCE = 1e-4  # A: copies that went through files with five or more decimals
CELL = 8.0  # in tolerances, of the grid of buckets: few neighbouring buckets have to be looked at
MERGE_AT = 200_000  # entries that are kept in a dictionary before they go to the sorted arrays

_rng = np.random.default_rng(20260223)
_TABLE = _rng.uniform(*WEIGHTS, size=(len(SCALES), 120, 120))
PAIR_WEIGHTS = np.maximum(_TABLE, _TABLE.transpose(0, 2, 1))  # symmetric in the two elements


def fingerprints(entries: Sequence[Entry]) -> NDArray[np.float64]:
    """Return the fingerprints [n, 6] of entries in A; zero for a lone atom."""
    return _fingerprints([entry.frame for entry in entries])


def fingerprint(atoms: Atoms) -> NDArray[np.float64]:
    """Return the fingerprint [6] of one structure in A."""
    found: NDArray[np.float64] = _fingerprints([frame_from_atoms(atoms, 0)])[0]
    return found


def _fingerprints(frames: Sequence[Frame]) -> NDArray[np.float64]:
    sizes = [len(frame.numbers) for frame in frames]
    numbers = np.concatenate([frame.numbers for frame in frames])
    positions = np.concatenate([frame.positions for frame in frames])
    cells = np.array([frame.cell for frame in frames])
    first = np.cumsum([0, *sizes], dtype=np.int64)
    periodic = np.array([frame.pbc for frame in frames])
    species = np.zeros(len(numbers), dtype=np.int32)
    pairs = build_neighbors(positions, species, cells, periodic, first, np.array([[CUTOFF]]))
    center = np.repeat(np.arange(pairs.n_atoms), np.diff(pairs.first))
    distances = np.linalg.norm(pairs.vectors(positions, cells), axis=1)
    structure = np.searchsorted(first, center, side="right") - 1
    envelope = np.clip(1.0 - (distances / CUTOFF) ** 2, 0.0, None) ** 3
    found = np.zeros((len(frames), len(SCALES)))
    for k, scale in enumerate(SCALES):
        weights = PAIR_WEIGHTS[k, numbers[center], numbers[pairs.neighbor]] * np.exp(-distances / scale) * envelope
        total = np.bincount(structure, weights, minlength=len(frames))
        moment = np.bincount(structure, weights * distances, minlength=len(frames))
        found[:, k] = np.divide(moment, total, out=np.zeros(len(total)), where=total > 0.0)
    return found


class FingerprintSet:
    """Fingerprints that were seen, 56 bytes each: buckets of a grid, in sorted arrays and a small dictionary.

    Parameters
    ----------
    tolerance : A, largest difference of any component between copies
    """

    def __init__(self, tolerance: float = TOLERANCE) -> None:
        self.tolerance = tolerance
        self._keys: NDArray[np.uint64] = np.empty(0, dtype=np.uint64)
        self._values: NDArray[np.float64] = np.empty((0, len(SCALES)))
        self._fresh: dict[int, list[NDArray[np.float64]]] = {}
        self._n_fresh = 0

    def __len__(self) -> int:
        return len(self._keys) + self._n_fresh

    def _buckets(self, formula: str, value: NDArray[np.float64]) -> Iterator[int]:
        """Keys of the bucket of a value, first, and of those that reach within the tolerance."""
        size = CELL * self.tolerance
        own = np.floor(value / size)
        low, high = np.floor((value - self.tolerance) / size), np.floor((value + self.tolerance) / size)
        choices = [[o, *({a, b} - {o})] for o, a, b in zip(own, low, high, strict=True)]
        for cell in product(*choices):
            text = formula.encode() + np.asarray(cell).astype(np.int64).tobytes()
            yield int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")

    def _close(self, values: NDArray[np.float64] | list[NDArray[np.float64]], value: NDArray[np.float64]) -> bool:
        return len(values) > 0 and bool((np.abs(np.asarray(values) - value).max(axis=1) <= self.tolerance).any())

    def contains(self, formula: str, value: NDArray[np.float64]) -> bool:
        """Return whether a structure of this formula was seen within the tolerance."""
        for key in self._buckets(formula, value):
            if self._close(self._fresh.get(key, []), value):
                return True
            begin, end = np.searchsorted(self._keys, np.uint64(key), "left"), len(self._keys)
            if begin < end and self._keys[begin] == key:
                end = int(np.searchsorted(self._keys, np.uint64(key), "right"))
                if self._close(self._values[begin:end], value):
                    return True
        return False

    def add(self, formula: str, value: NDArray[np.float64]) -> None:
        """Remember a structure."""
        self._fresh.setdefault(next(self._buckets(formula, value)), []).append(value)
        self._n_fresh += 1
        if self._n_fresh >= MERGE_AT:
            self._merge()

    def _merge(self) -> None:
        keys = np.array([key for key, some in self._fresh.items() for _ in some], dtype=np.uint64)
        values = np.array([value for some in self._fresh.values() for value in some])
        keys = np.concatenate([self._keys, keys])
        order = np.argsort(keys, kind="stable")
        self._keys, self._values = keys[order], np.concatenate([self._values, values])[order]
        self._fresh, self._n_fresh = {}, 0


class Duplicates(Rule):
    """Copies of entries that were kept before, in the order of the sets."""

    name = "duplicates"
    stateful = True

    def __init__(self, tolerance: float = TOLERANCE) -> None:
        if not (np.isfinite(tolerance) and tolerance > 0.0):
            raise ValueError(f"rule `{self.name}`: the tolerance {tolerance} is not a number > 0 (A).")
        self._seen = FingerprintSet(tolerance)

    def _formula(self, entry: Entry) -> str:
        return f"{sorted(entry.counts.items())} {entry.frame.pbc.tolist()}"

    def check(self, entries: Sequence[Entry]) -> list[str | None]:
        """Compare with all earlier entries, and remember the new ones; the caller must drop no other of them later."""
        answers: list[str | None] = []
        for entry, value in zip(entries, fingerprints(entries) if entries else [], strict=True):
            copy = self._seen.contains(self._formula(entry), value)
            answers.append("copy of an earlier entry" if copy else None)
            if not copy:
                self._seen.add(self._formula(entry), value)
        return answers

    def observe(self, entries: Sequence[Entry]) -> None:
        """Remember entries without judging them."""
        for entry, value in zip(entries, fingerprints(entries) if entries else [], strict=True):
            self._seen.add(self._formula(entry), value)

    def describe(self) -> str:
        """Return name and tolerance."""
        return f"{self.name}:{self._seen.tolerance:g}"
