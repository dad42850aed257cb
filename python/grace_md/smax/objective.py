"""The function that candidates climb (equation 4 of the paper, normalised), for many of them at once.

    Phi = (M'/n_new) [S(D + c) - S(D)] - K V_core / N
    V_core = sum over pairs closer than d_ij = (core_i + core_j)/2, images included, of (1 - r_ij/d_ij)^2

The gain of S alone is of order 1/M; the factor M'/n_new keeps the meaning of K while the data set grows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from grace_md import _core
from grace_md.smax.candidate import Batch
from grace_md.smax.cells import heights
from grace_md.smax.entropy import entropy_gain
from grace_md.smax.statistics import Snapshot

if TYPE_CHECKING:
    from grace_md.smax.config import CellSettings, DensitySettings
    from grace_md.smax.descriptors import Descriptor

__all__ = [
    "CellLimits",
    "CoreOverlap",
    "CoreProblem",
    "EntropyProblem",
    "core_overlap",
    "smallest_distance_ratio",
]

Floats = NDArray[np.float64]
MIN_DISTANCE = 1e-12  # A; atoms in one place have no direction to push them apart


@dataclass(frozen=True)
class CoreOverlap:
    """Repulsion of cores.

    Attributes
    ----------
    energy : float64 [S]
        V_core.
    gradient : float64 [N, 3]
        By positions, 1/A.
    strain : float64 [S, 3, 3]
        By a strain e of positions and cell, x -> x (1 + e).
    """

    energy: Floats
    gradient: Floats
    strain: Floats


def _close_pairs(batch: Batch) -> tuple[NDArray[np.int64], Floats, Floats, Floats]:
    """Directed pairs with overlapping cores: centre, r_ij (vectors, A), |r_ij| and d_ij."""
    largest = np.maximum.reduceat(batch.core_radii, batch.first_atom[:-1])
    species = batch.owner.astype(np.int32)  # one species per candidate: each has its own cutoff
    found = _core.build_neighbors(
        batch.positions, species, batch.cells, batch.periodic, batch.first_atom, np.diag(largest), 0.0, 1
    )
    center = np.repeat(np.arange(len(species)), np.diff(found.first))
    vector = found.vectors(batch.positions, batch.cells)
    distance = np.sqrt(np.einsum("pk,pk->p", vector, vector))
    d = 0.5 * (batch.core_radii[center] + batch.core_radii[found.neighbor])
    close = distance < d
    return center[close], vector[close], np.maximum(distance[close], MIN_DISTANCE), d[close]


def core_overlap(batch: Batch) -> CoreOverlap:
    """V_core of every candidate and its derivatives."""
    center, vector, distance, d = _close_pairs(batch)
    depth = 1.0 - distance / d
    pull = (2.0 * depth / (d * distance))[:, None] * vector  # both directions of a pair push its centre
    owner = batch.owner[center]
    n_atoms, n_candidates = len(batch.owner), len(batch)
    products = (vector[:, :, None] * pull[:, None, :]).reshape(-1, 9)
    gradient = np.stack([np.bincount(center, column, n_atoms) for column in pull.T], axis=1)
    strain = np.stack([np.bincount(owner, column, n_candidates) for column in products.T], axis=1)
    return CoreOverlap(
        energy=0.5 * np.bincount(owner, depth**2, n_candidates).astype(np.float64),
        gradient=gradient.astype(np.float64, copy=False),
        strain=-0.5 * strain.astype(np.float64, copy=False).reshape(-1, 3, 3),
    )


def smallest_distance_ratio(batch: Batch) -> Floats:
    """Smallest r_ij/d_ij of every candidate, [S]; 1 if no cores overlap."""
    center, _, distance, d = _close_pairs(batch)
    result = np.ones(len(batch))
    np.minimum.at(result, batch.owner[center], distance / d)
    return result


class _Problem:
    """Candidates as rows of variables: the positions and, with `relax_cell`, three rows for the cell.

    With E the three rows over the edge of the cell, positions and cells are those of the start times (1 + E). Rows thus
    have the unit of lengths, and steps of a row the size of moves of atoms.
    """

    def __init__(self, batch: Batch, relax_cell: bool) -> None:
        self.start = batch
        self.batch = batch
        self.relax_cell = relax_cell
        self.edge = np.cbrt(np.abs(np.linalg.det(batch.cells)))
        self.counts = batch.counts + (3 if relax_cell else 0)
        self.first_row = np.concatenate([[0], np.cumsum(self.counts)]).astype(np.int64)
        self.is_atom = np.ones(int(self.first_row[-1]), dtype=np.bool_)
        if relax_cell:
            self.is_atom[(self.first_row[1:, None] - np.arange(1, 4)).ravel()] = False

    def rows(self) -> Floats:
        """Variables of the batch at its start, [R, 3], Angstrom."""
        rows = np.zeros((len(self.is_atom), 3))
        rows[self.is_atom] = self.start.positions
        return rows

    def place(self, rows: Floats) -> Batch:
        """Return the candidates at `rows` [R, 3]."""
        if not self.relax_cell:
            return self.start.at(rows, self.start.cells)
        deformation = self._deformation(rows)
        positions = np.einsum("ik,ikl->il", rows[self.is_atom], deformation[self.start.owner])
        return self.start.at(positions, self.start.cells @ deformation)

    def _deformation(self, rows: Floats) -> Floats:
        strain = rows[~self.is_atom].reshape(-1, 3, 3) / self.edge[:, None, None]
        return np.asarray(np.eye(3) + strain)

    def _gradient(self, rows: Floats, by_position: Floats, by_strain: Floats) -> Floats:
        """Derivatives by rows from those by positions and by strains of the present cell."""
        if not self.relax_cell:
            return by_position
        result = np.empty_like(rows)
        deformation = self._deformation(rows)
        result[self.is_atom] = np.einsum("ik,ilk->il", by_position, deformation[self.start.owner])
        by_cell = np.linalg.solve(deformation.transpose(0, 2, 1), by_strain) / self.edge[:, None, None]
        result[~self.is_atom] = by_cell.reshape(-1, 3)
        return result


class CoreProblem(_Problem):
    """Maximise -V_core alone."""

    def __init__(self, batch: Batch) -> None:
        super().__init__(batch, relax_cell=False)

    def select(self, kept: NDArray[np.bool_]) -> CoreProblem:
        """Return the problem of some candidates."""
        return CoreProblem(self.start.select(kept))

    def evaluate(self, rows: Floats) -> tuple[Floats, Floats]:
        """Values [S] and gradients [R, 3]."""
        core = core_overlap(self.place(rows))
        return -core.energy, -core.gradient


@dataclass(frozen=True)
class CellLimits:
    """Where cells may go when they are varied.

    Attributes
    ----------
    smallest, largest : float64 [S]
        Volumes, A^3.
    min_height, max_aspect : float
        As in the section `cell` of the settings.
    """

    smallest: Floats
    largest: Floats
    min_height: float
    max_aspect: float

    @classmethod
    def of(cls, sphere_volumes: Floats, density: DensitySettings, cell: CellSettings) -> CellLimits:
        """Limits of candidates whose spheres have these volumes, [S], A^3."""
        return cls(
            sphere_volumes / density.phi_highest, sphere_volumes / density.phi_lowest, cell.min_height, cell.max_aspect
        )

    def broken(self, cells: Floats) -> NDArray[np.bool_]:
        """Return which of the cells [S, 3, 3] are beyond a limit."""
        volume = np.linalg.det(cells)
        inside = (volume >= self.smallest) & (volume <= self.largest)
        high = np.zeros((len(cells), 3))
        high[inside] = heights(cells[inside])
        inside &= (high.min(axis=1) >= self.min_height) & (high.max(axis=1) <= self.max_aspect * high.min(axis=1))
        return np.asarray(~inside)

    def select(self, kept: NDArray[np.bool_]) -> CellLimits:
        """Return the limits of some candidates."""
        return CellLimits(self.smallest[kept], self.largest[kept], self.min_height, self.max_aspect)


class EntropyProblem(_Problem):
    """Maximise Phi against the statistics of `snapshot`.

    Parameters
    ----------
    batch : Batch
    descriptor : Descriptor
        Called once per evaluation, for all candidates.
    snapshot : Snapshot
    core_strength : float
        K.
    limits : CellLimits or None
        Given: the cells are varied too, within these limits.
    """

    def __init__(
        self,
        batch: Batch,
        descriptor: Descriptor,
        snapshot: Snapshot,
        core_strength: float,
        limits: CellLimits | None = None,
    ) -> None:
        super().__init__(batch, relax_cell=limits is not None)
        self.limits = limits
        self.descriptor = descriptor
        self.snapshot = snapshot
        self.core_strength = core_strength

    def select(self, kept: NDArray[np.bool_]) -> EntropyProblem:
        """Return the problem of some candidates."""
        limits = None if self.limits is None else self.limits.select(kept)
        return EntropyProblem(self.start.select(kept), self.descriptor, self.snapshot, self.core_strength, limits)

    def _inside(self, rows: Floats) -> tuple[Batch, NDArray[np.bool_]]:
        """Candidates at `rows`, those with cells beyond the limits back at their start; and which these are."""
        batch = self.place(rows)
        if self.limits is None:
            return batch, np.zeros(len(batch), dtype=np.bool_)
        broken = self.limits.broken(batch.cells)
        cells = np.where(broken[:, None, None], self.start.cells, batch.cells)
        positions = np.where(broken[batch.owner, None], self.start.positions, batch.positions)
        return batch.at(positions, cells), broken

    def evaluate(self, rows: Floats) -> tuple[Floats, Floats]:
        """Values [S] and gradients [R, 3]; -inf and zero where features are not finite or cells beyond the limits."""
        batch, bad = self._inside(rows)
        features = self.descriptor.values(batch)
        finite = np.isfinite(features).all(axis=1)
        if not finite.all():
            bad[batch.owner[~finite]] = True
            features = np.where(bad[batch.owner, None], 0.0, features)
        gain = entropy_gain(self.snapshot, batch, features)
        beta = np.where(bad[batch.owner, None], 0.0, gain.gradient) if bad.any() else gain.gradient
        by_position, by_strain = self.descriptor.gradients(beta)
        core = core_overlap(batch)
        weight = self.core_strength / batch.counts
        value = gain.normalised - weight * core.energy
        by_position = by_position - weight[batch.owner, None] * core.gradient
        by_strain = by_strain - weight[:, None, None] * core.strain
        gradient = self._gradient(rows, by_position, by_strain)
        if bad.any():
            value[bad] = -np.inf
            gradient[np.repeat(bad, self.counts)] = 0.0
        return value, gradient
