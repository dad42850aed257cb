"""Cells: random shapes of a given volume, what makes one usable, and reduction.

Shapes are F = I + U(-strain, strain)^(3 x 3), scaled to the volume that the packing number asks for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from ase.build.niggli import niggli_reduce_cell
from numpy.typing import NDArray

if TYPE_CHECKING:
    from grace_md.smax.config import CellSettings

__all__ = ["aspect", "draw_cell", "heights", "niggli", "shortest_vector", "sphere_volume"]

Floats = NDArray[np.float64]
HERMITE = 2.0 ** (1.0 / 6.0)  # longest shortest vector of a lattice of unit volume: face-centred cubic
# Multiples of lattice vectors among which the shortest sum is looked for; complete for reduced cells.
_MULTIPLES = np.array([n for n in np.ndindex(5, 5, 5) if n != (2, 2, 2)], dtype=np.float64) - 2.0


def sphere_volume(radii: Floats) -> float:
    """Volume of spheres of these radii, A^3."""
    return float(4.0 / 3.0 * np.pi * np.sum(radii**3))


def heights(cells: Floats) -> Floats:
    """Distances of opposite faces, [..., 3], of cells [..., 3, 3] with a volume, Angstrom."""
    return np.asarray(1.0 / np.linalg.norm(np.linalg.inv(cells), axis=-2))


def aspect(cells: Floats) -> Floats:
    """Return the largest height over the smallest, [...]."""
    found = heights(cells)
    return np.asarray(found.max(axis=-1) / found.min(axis=-1))


def shortest_vector(cells: Floats) -> Floats:
    """Length of the shortest lattice vector, [...], Angstrom: the distance of an atom to its images.

    Exact for reduced cells [..., 3, 3] and for those near a cube; multiples of up to two of each vector are tried.
    """
    return np.asarray(np.sqrt(np.min(np.sum((_MULTIPLES @ cells) ** 2, axis=-1), axis=-1)))


def niggli(cell: Floats) -> Floats:
    """Return the Niggli-reduced cell of the same lattice in the same orientation."""
    _, operation = niggli_reduce_cell(cell)
    return np.asarray(np.asarray(operation, dtype=np.float64).T @ cell)


def draw_cell(rng: np.random.Generator, volume: float, self_distance: float, settings: CellSettings) -> Floats | None:
    """Draw shapes until one is usable, float64 [3, 3]; None after `cell.shape_draws` of them.

    Parameters
    ----------
    volume : float
        A^3.
    self_distance : float
        Smallest distance that an atom may have to its own images, A: no move of atoms can mend that.
    """
    edge = volume ** (1.0 / 3.0)
    # No lattice does better: Hadamard's inequality for the reciprocal vectors, and Hermite's constant (fcc).
    if edge < settings.min_height or self_distance > HERMITE * edge:
        return None
    shapes = np.eye(3) + rng.uniform(-settings.strain, settings.strain, (settings.shape_draws, 3, 3))
    determinants = np.linalg.det(shapes)
    kept = determinants > settings.min_determinant
    cells = shapes[kept] * edge / np.cbrt(determinants[kept])[:, None, None]
    for cell in cells[shortest_vector(cells) >= self_distance]:
        reduced: Floats = niggli(cell) if settings.niggli else cell
        high = heights(reduced)
        if high.min() >= settings.min_height and high.max() <= settings.max_aspect * high.min():
            return reduced
    return None
