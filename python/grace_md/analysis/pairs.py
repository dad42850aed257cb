"""Pairs of atoms within a distance, with every periodic image, for analysis and packing.

Unlike the neighbour list of the evaluator (`grace_md.neighbors`), which serves one model with its pair cutoffs, this
search takes two sets of points and returns distances only. It explicitly copies the images that can matter, so cells
thinner than the distance are right: the final lava cell of the paper is 5.2 A thin.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["closest_contact", "pairs_within"]

# Candidate pairs examined at once; bounds the working memory to about 200 MB.
_CHUNK = 2_000_000
_MANY_POINTS = 5_000


def pairs_within(
    positions: ArrayLike, cell: ArrayLike, cutoff: float, centres: ArrayLike | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """All pairs (centre, atom image) closer than `cutoff` in a fully periodic cell.

    Parameters
    ----------
    positions : array_like, shape (n_atoms, 3)
        Positions in A; they may lie outside the cell.
    cell : array_like, shape (3, 3)
        Rows are lattice vectors in A.
    cutoff : float
        Distance in A. It may exceed the cell edges: an atom then meets several images of another one and of itself.
    centres : array_like, shape (n_centres, 3), optional
        Points to search around. Default: the atoms themselves, and then a pair of an atom with itself at zero
        distance is left out.

    Returns
    -------
    i, j : ndarray of int64, shape (n_pairs,)
        Index of the centre and of the atom; directed, so that (i, j) and (j, i) both occur when `centres` is None.
    distance : ndarray of float64, shape (n_pairs,)
        Distances in A.

    Raises
    ------
    ValueError
        If the cell has no volume, or positions or cutoff are not finite.
    """
    points = np.asarray(positions, dtype=float).reshape(-1, 3)
    lattice = np.asarray(cell, dtype=float).reshape(3, 3)
    around = points if centres is None else np.asarray(centres, dtype=float).reshape(-1, 3)
    if not (np.isfinite(points).all() and np.isfinite(around).all() and np.isfinite(lattice).all() and cutoff > 0.0):
        raise ValueError(f"`positions`, `cell` and `cutoff` = {cutoff} must be finite and the cutoff positive.")
    volume = abs(np.linalg.det(lattice))
    if not volume > 0.0:
        raise ValueError("`cell` has zero volume; give three independent lattice vectors.")
    if len(points) == 0 or len(around) == 0:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)

    # Everything happens in a frame in which the wrapped points fill 0 <= fractional < 1.
    inverse = np.linalg.inv(lattice)
    points = _wrap(points @ inverse) @ lattice
    around = _wrap(around @ inverse) @ lattice
    images, owner = _with_images(points, lattice, inverse, cutoff)

    bins = _Bins(images, cutoff)
    none = np.empty(0, np.int64)
    found = [(none, none, np.empty(0))]
    for centre, candidate in bins.candidates(around):
        difference = images[candidate] - around[centre]
        squared = np.einsum("px,px->p", difference, difference)
        keep = squared < cutoff * cutoff
        if centres is None:
            # The home copy of every atom comes first in `images`, so an atom meets itself at equal indices only.
            keep &= candidate != centre
        found.append((centre[keep], owner[candidate[keep]], np.sqrt(squared[keep])))
    return (
        np.concatenate([part[0] for part in found]),
        np.concatenate([part[1] for part in found]),
        np.concatenate([part[2] for part in found]),
    )


def closest_contact(positions: ArrayLike, cell: ArrayLike, radii: ArrayLike) -> tuple[float, tuple[int, int], float]:
    """Closest contact measured in sums of radii.

    Parameters
    ----------
    positions : array_like, shape (n_atoms, 3)
    cell : array_like, shape (3, 3)
    radii : array_like, shape (n_atoms,)
        Covalent radii in A.

    Returns
    -------
    ratio : float
        Smallest d_ij / (r_i + r_j); infinity if no pair is closer than the largest sum of radii.
    pair : tuple of int
        The two atoms; (-1, -1) if there is none.
    distance : float
        Their distance in A; infinity if there is none.
    """
    radius = np.asarray(radii, dtype=float)
    i, j, distance = pairs_within(positions, cell, 2.0 * float(radius.max()))
    if len(distance) == 0:
        return np.inf, (-1, -1), np.inf
    ratio = distance / (radius[i] + radius[j])
    worst = int(np.argmin(ratio))
    return float(ratio[worst]), (int(i[worst]), int(j[worst])), float(distance[worst])


def _wrap(fractional: NDArray[np.float64]) -> NDArray[np.float64]:
    wrapped: NDArray[np.float64] = fractional - np.floor(fractional)
    wrapped[wrapped >= 1.0] = 0.0  # -1e-17 wraps to 1.0 in floating point
    return wrapped


def _with_images(
    points: NDArray[np.float64], lattice: NDArray[np.float64], inverse: NDArray[np.float64], cutoff: float
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Points followed by their images within `cutoff` of the cell, and the index of the atom behind each."""
    # Distance between opposite faces a is 1 / |column a of the inverse|.
    reach = cutoff * np.linalg.norm(inverse, axis=0)
    repeats = np.ceil(reach).astype(int)
    fractional = points @ inverse
    images, owner = [points], [np.arange(len(points))]
    for shift in itertools.product(*(range(-n, n + 1) for n in repeats)):
        if shift == (0, 0, 0):
            continue
        moved = fractional + np.array(shift)
        near = np.all((moved > -reach - 1e-9) & (moved < 1.0 + reach + 1e-9), axis=1)
        images.append(moved[near] @ lattice)
        owner.append(np.flatnonzero(near))
    return np.concatenate(images), np.concatenate(owner).astype(np.int64)


class _Bins:
    """Points sorted into cubes, to be searched in the cubes around a centre.

    Cubes of half the cutoff hold 1.7 times fewer candidates than cubes of the cutoff, but there are 125 of them.
    """

    def __init__(self, points: NDArray[np.float64], cutoff: float) -> None:
        self.reach = 2 if len(points) > _MANY_POINTS else 1
        self.edge = cutoff / self.reach
        self.origin = points.min(axis=0)
        index = np.floor((points - self.origin) / self.edge).astype(np.int64)
        self.shape = index.max(axis=0) + 1
        flat = np.ravel_multi_index(tuple(index.T), tuple(self.shape))
        self.order = np.argsort(flat, kind="stable")
        self.first = np.searchsorted(flat[self.order], np.arange(int(np.prod(self.shape)) + 1))

    def candidates(self, centres: NDArray[np.float64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Yield (centre, point) index arrays that hold every pair closer than the cutoff, in bounded chunks."""
        home = np.floor((centres - self.origin) / self.edge).astype(np.int64)
        for offset in itertools.product(range(-self.reach, self.reach + 1), repeat=3):
            box = home + np.array(offset)
            inside = np.flatnonzero(np.all((box >= 0) & (box < self.shape), axis=1))
            if len(inside) == 0:
                continue
            flat = np.ravel_multi_index(tuple(box[inside].T), tuple(self.shape))
            start, count = self.first[flat], self.first[flat + 1] - self.first[flat]
            ends = np.cumsum(count)
            low = 0
            while low < len(inside):
                base = ends[low - 1] if low else 0
                high = max(low + 1, int(np.searchsorted(ends, base + _CHUNK, side="right")))
                part = count[low:high]
                within = np.arange(int(part.sum())) - np.repeat(np.cumsum(part) - part, part)
                yield np.repeat(inside[low:high], part), self.order[np.repeat(start[low:high], part) + within]
                low = high
