"""Structures of the benchmarks: a bcc crystal and the nine-element lava.

ASE is imported where it is used: `sites` and the constants serve a machine without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from grace_md._core import build_neighbors

if TYPE_CHECKING:
    from ase import Atoms

    from grace_md import GraceModel

LAVA_DENSITY = 2.5  # g/cm3, basaltic melt
LATTICE_CONSTANT = 3.2  # A; 58 neighbours within 6 A
RATTLE = 0.1  # A
STEP = 0.005  # A, about one time step of 1 fs at 2000 K


def sites(n_atoms: int) -> tuple[NDArray[np.float64], float]:
    """Return the positions of a bcc crystal whose size comes closest to `n_atoms`, and the edge of its cubic cell."""
    n_cells = max(1, round((n_atoms / 2) ** (1 / 3)))
    axis = np.arange(n_cells)
    corners = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    pair = np.array([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]])
    return LATTICE_CONSTANT * (corners[:, None, :] + pair).reshape(-1, 3), LATTICE_CONSTANT * n_cells


def bcc(n_atoms: int, element: str = "Fe") -> Atoms:
    """Return a rattled bcc crystal with the cubic cell whose size comes closest to `n_atoms` (432 = 2 * 6^3)."""
    from ase.build import bulk  # noqa: PLC0415 - optional

    n_cells = max(1, round((n_atoms / 2) ** (1 / 3)))
    atoms = bulk(element, "bcc", a=LATTICE_CONSTANT, cubic=True) * (n_cells, n_cells, n_cells)
    atoms.rattle(RATTLE, seed=1)
    return atoms


def lava(n_atoms: int) -> Atoms:
    """Return a random packing of the paper's lava (Table 8) at 2.5 g/cm3."""
    from grace_md.workflows.composition import LAVA, scale_composition  # noqa: PLC0415 - needs ASE
    from grace_md.workflows.packing import random_packing  # noqa: PLC0415 - needs ASE

    return random_packing(scale_composition(LAVA, n_atoms), density=LAVA_DENSITY, seed=1)


def many_elements(n_atoms: int) -> Atoms:
    """Return the crystal of `bcc` with the nine elements of the lava at random places."""
    from grace_md.workflows.composition import LAVA, scale_composition  # noqa: PLC0415 - needs ASE

    atoms = bcc(n_atoms)
    composition = scale_composition(LAVA, len(atoms))
    symbols = np.repeat(list(composition), list(composition.values()))
    atoms.symbols = np.random.default_rng(0).permutation(symbols)
    return atoms


def species(model: GraceModel, atoms: Atoms) -> NDArray[np.int32]:
    """Return the place of each atom's element in `model.elements`."""
    from ase.data import atomic_numbers, chemical_symbols  # noqa: PLC0415 - optional

    places = np.full(len(chemical_symbols), -1, dtype=np.int32)
    places[[atomic_numbers[element] for element in model.elements]] = np.arange(len(model.elements))
    return places[atoms.numbers]


def count_neighbors(model: GraceModel, atoms: Atoms) -> float:
    """Return the neighbours per atom within the pair cutoffs."""
    pairs = build_neighbors(
        atoms.positions,
        species(model, atoms),
        atoms.cell.array[None],
        atoms.pbc[None],
        np.array([0, len(atoms)]),
        model.pair_cutoffs,
    )
    return pairs.n_pairs / len(atoms)


def steps(atoms: Atoms, n: int = 8) -> list[NDArray[np.float64]]:
    """Return `n` positions a time step away from `atoms`: calculators must not answer from their cache."""
    random = np.random.default_rng(3)
    return [atoms.positions + STEP * random.normal(size=atoms.positions.shape) for _ in range(n)]
