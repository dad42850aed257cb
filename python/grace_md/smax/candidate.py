"""A structure on its way into the data set, and many of them side by side for the kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

__all__ = ["Batch", "Candidate", "Mode"]

Mode = Literal["atom", "config"]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Candidate:
    """One periodic structure with the radii of its atoms.

    Attributes
    ----------
    index : int
        Number within the run; with the seed, it determines everything that is drawn.
    numbers : int64 [N]
        Atomic numbers.
    positions : float64 [N, 3]
        Angstrom.
    cell : float64 [3, 3]
        Rows are lattice vectors, Angstrom.
    radii, cutoffs, core_radii : float64 [N]
        Effective radius of each atom, cutoff of its descriptor and its core radius, Angstrom.
    mode : "atom" or "config"
        Which statistics it is to extend.
    extreme : bool
        Whether it has the smaller cores of extreme candidates.
    """

    index: int
    numbers: NDArray[np.int64]
    positions: Floats
    cell: Floats
    radii: Floats
    cutoffs: Floats
    core_radii: Floats
    mode: Mode
    extreme: bool

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def packing(self) -> float:
        """Packing number phi: the volume of spheres of the effective radii over that of the cell."""
        return float(4.0 / 3.0 * np.pi * np.sum(self.radii**3) / abs(np.linalg.det(self.cell)))

    def atoms(self, **info: Any) -> Atoms:
        """Return ASE Atoms with `info` and the array ``effective_radius``."""
        atoms = Atoms(numbers=self.numbers, positions=self.positions, cell=self.cell, pbc=True, info=info)
        atoms.set_array("effective_radius", np.array(self.radii))
        return atoms


@dataclass(frozen=True)
class Batch:
    """S candidates side by side, as the kernels take them; S + 1 offsets ``first_atom`` separate them.

    Attributes
    ----------
    positions : float64 [N, 3]
    cells : float64 [S, 3, 3]
    periodic : bool [S, 3]
    first_atom : int64 [S + 1]
    numbers : int64 [N]
    cutoffs, core_radii : float64 [N]
        Angstrom.
    owner : int64 [N]
        The candidate of each atom.
    config : bool [S]
        True for candidates of mode "config".
    """

    positions: Floats
    cells: Floats
    periodic: NDArray[np.bool_]
    first_atom: NDArray[np.int64]
    numbers: NDArray[np.int64]
    cutoffs: Floats
    core_radii: Floats
    owner: NDArray[np.int64]
    config: NDArray[np.bool_]

    @classmethod
    def of(cls, candidates: Sequence[Candidate]) -> Batch:
        """Put candidates (at least one) side by side."""
        counts = np.array([len(c) for c in candidates], dtype=np.int64)
        return cls(
            positions=np.concatenate([c.positions for c in candidates]),
            cells=np.array([c.cell for c in candidates]),
            periodic=np.ones((len(candidates), 3), dtype=np.bool_),
            first_atom=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            numbers=np.concatenate([c.numbers for c in candidates]),
            cutoffs=np.concatenate([c.cutoffs for c in candidates]),
            core_radii=np.concatenate([c.core_radii for c in candidates]),
            owner=np.repeat(np.arange(len(candidates), dtype=np.int64), counts),
            config=np.array([c.mode == "config" for c in candidates]),
        )

    def __len__(self) -> int:
        return len(self.cells)

    @property
    def counts(self) -> NDArray[np.int64]:
        """Atoms of each candidate, [S]."""
        return np.diff(self.first_atom)

    def at(self, positions: Floats, cells: Floats) -> Batch:
        """Return the same candidates at other places."""
        return Batch(
            positions,
            cells,
            self.periodic,
            self.first_atom,
            self.numbers,
            self.cutoffs,
            self.core_radii,
            self.owner,
            self.config,
        )

    def select(self, kept: NDArray[np.bool_]) -> Batch:
        """Return the candidates with ``kept[s]``, in order."""
        atoms = kept[self.owner]
        counts = self.counts[kept]
        return Batch(
            positions=self.positions[atoms],
            cells=self.cells[kept],
            periodic=self.periodic[kept],
            first_atom=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            numbers=self.numbers[atoms],
            cutoffs=self.cutoffs[atoms],
            core_radii=self.core_radii[atoms],
            owner=np.repeat(np.arange(len(counts), dtype=np.int64), counts),
            config=self.config[kept],
        )
