"""Structures of the benchmarks: a bcc crystal and the nine-element lava."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import bulk
from numpy.typing import NDArray

from grace_md.workflows.composition import LAVA, scale_composition
from grace_md.workflows.packing import random_packing

LAVA_DENSITY = 2.5  # g/cm3, basaltic melt
LATTICE_CONSTANT = 3.2  # A; 58 neighbours within 6 A
RATTLE = 0.1  # A
STEP = 0.005  # A, about one time step of 1 fs at 2000 K


def bcc(n_atoms: int, element: str = "Fe") -> Atoms:
    """Return a rattled bcc crystal with the cubic cell whose size comes closest to `n_atoms` (432 = 2 * 6^3)."""
    n_cells = max(1, round((n_atoms / 2) ** (1 / 3)))
    atoms = bulk(element, "bcc", a=LATTICE_CONSTANT, cubic=True) * (n_cells, n_cells, n_cells)
    atoms.rattle(RATTLE, seed=1)
    return atoms


def lava(n_atoms: int) -> Atoms:
    """Return a random packing of the paper's lava (Table 8) at 2.5 g/cm3."""
    return random_packing(scale_composition(LAVA, n_atoms), density=LAVA_DENSITY, seed=1)


def steps(atoms: Atoms, n: int = 8) -> list[NDArray[np.float64]]:
    """Return `n` positions a time step away from `atoms`: calculators must not answer from their cache."""
    random = np.random.default_rng(3)
    return [atoms.positions + STEP * random.normal(size=atoms.positions.shape) for _ in range(n)]
