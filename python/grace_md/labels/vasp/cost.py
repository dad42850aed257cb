"""How expensive calculations are relative to each other, before any is started."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from grace_md.labels.vasp.inputs import kpoint_mesh

__all__ = ["EXPONENT", "Cost", "estimate", "valence_electrons"]

EXPONENT = 2.5  # of the electrons: between the square of small cells and the cube of large ones
_CORES = [0, *(atomic_numbers[gas] for gas in ("He", "Ne", "Ar", "Kr", "Xe", "Rn"))]
_FULL_F = 14


@dataclass(frozen=True)
class Cost:
    """Valence electrons, mesh and points of half of it (time reversal), and electrons^2.5 times points."""

    electrons: int
    mesh: tuple[int, int, int]
    points: int

    @property
    def relative(self) -> float:
        """Work in arbitrary units: 1 is one electron at one point."""
        return float(self.electrons**EXPONENT * self.points)


def valence_electrons(number: int) -> int:
    """Return the electrons outside the noble gas core, without a full f shell: an estimate, PAW data differ by a few.

    Filled d shells of the p block are left out as well.
    """
    core = max(z for z in _CORES if z < number)
    electrons = number - core
    if core >= atomic_numbers["Xe"] and electrons > _FULL_F + 2:
        electrons -= _FULL_F
    return electrons - 10 if core >= atomic_numbers["Ar"] and electrons > 12 else electrons


def estimate(atoms: Atoms) -> Cost:
    """Return the cost of one structure; molecules need one k-point."""
    mesh = kpoint_mesh(atoms) if atoms.pbc.any() else (1, 1, 1)
    electrons = sum(valence_electrons(int(z)) for z in atoms.numbers)
    return Cost(electrons, mesh, (int(np.prod(mesh)) + 1) // 2)
