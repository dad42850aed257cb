"""From numbers of candidates to structures at a local maximum of the objective: all that a worker does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from grace_md.smax.candidate import Batch, Candidate
from grace_md.smax.cells import heights, niggli, sphere_volume
from grace_md.smax.config import SmaxConfig
from grace_md.smax.descriptors import Descriptor
from grace_md.smax.devices import descriptor_on
from grace_md.smax.entropy import EntropyGain, entropy_gain
from grace_md.smax.objective import (
    CellLimits,
    CoreProblem,
    EntropyProblem,
    core_overlap,
    smallest_distance_ratio,
)
from grace_md.smax.optimiser import maximise
from grace_md.smax.sampling import Sampler
from grace_md.smax.statistics import Snapshot

__all__ = ["REASONS", "Found", "hard_checks", "search"]

# Words for structures that fail a hard check, in the order of the checks.
REASONS = ("not finite", "core overlap", "density", "aspect", "height")
ROUNDING = 1e-9  # relative: limits hold for what is drawn at them


@dataclass(frozen=True)
class Found:
    """A candidate at the end of its search.

    Attributes
    ----------
    candidate : Candidate
        As it is to be stored: atoms inside a Niggli-reduced cell.
    features : float64 [N, m]
        Descriptors of its atoms.
    evaluations : int
        Evaluations of the descriptors.
    reason : str or None
        One of `REASONS` if it failed a hard check, else None.
    d2_mean, d2_max : float
        Mahalanobis squares of its items against the snapshot; NaN in the seed phase.
    objective : float
        Phi; NaN in the seed phase.
    """

    candidate: Candidate
    features: NDArray[np.float64]
    evaluations: int
    reason: str | None
    d2_mean: float
    d2_max: float
    objective: float


def search(
    settings: SmaxConfig,
    snapshot: Snapshot | None,
    indices: Sequence[int],
    *,
    descriptor: Descriptor | None = None,
    device: str = "cpu",
) -> list[Found]:
    """Draw the candidates `indices`, relax their cores, maximise Phi against `snapshot` and check them.

    The result depends on settings, snapshot and indices only, not on the process; candidate k is the same in any
    company, up to the rounding of sums.

    Parameters
    ----------
    settings : SmaxConfig
    snapshot : Snapshot or None
        None for the seed phase: candidates are drawn and their cores relaxed, no more.
    indices : sequence of int
        They are worked on side by side; 32 to 64 make good use of the kernel.
    descriptor : Descriptor, optional
        In the place of the one that `settings.descriptor` names.
    device : "cpu", "cuda" or "cuda:N"
        Where that one is computed.

    Returns
    -------
    list of Found
        In the order of `indices`.

    Raises
    ------
    ConfigError
        If no cell can be drawn for the elements of a candidate.
    """
    if not len(indices):
        return []
    if descriptor is None:
        descriptor = descriptor_on(settings.descriptor, device)
    sampler = Sampler(settings)
    candidates = [sampler.draw(int(index)) for index in indices]
    batch = Batch.of(candidates)
    batch = _relax_cores(batch, settings)
    evaluations = np.zeros(len(batch), dtype=np.int64)
    if snapshot is not None:
        spheres = np.array([sphere_volume(c.radii) for c in candidates])
        limits = CellLimits.of(spheres, settings.density, settings.cell) if settings.optimiser.relax_cell else None
        problem = EntropyProblem(batch, descriptor, snapshot, settings.objective.core_strength, limits)
        # Phi is at most the gain: what stays below zero would not be accepted.
        optimiser = settings.optimiser
        maximum = maximise(problem, problem.rows(), optimiser, optimiser.max_iterations, floor=0.0)
        # What Phi still pushes together is small; the features hardly notice, and they are computed again.
        batch, evaluations = _relax_cores(problem.place(maximum.rows), settings), maximum.evaluations
    finished = [_stored(c, batch, s, settings) for s, c in enumerate(candidates)]
    return _examine(finished, descriptor, snapshot, settings, evaluations + 1)


def _relax_cores(batch: Batch, settings: SmaxConfig) -> Batch:
    """Move overlapping cores apart, and nothing else."""
    optimiser = replace(
        settings.optimiser,
        gradient_tolerance=settings.optimiser.core_gradient_tolerance,
        objective_tolerance=settings.optimiser.core_objective_tolerance,
    )
    problem = CoreProblem(batch)
    return batch.at(maximise(problem, problem.rows(), optimiser, optimiser.core_iterations).rows, batch.cells)


def _stored(candidate: Candidate, batch: Batch, s: int, settings: SmaxConfig) -> Candidate:
    """The candidate where it ended: wrapped, and reduced again if its cell has moved."""
    positions = batch.positions[batch.first_atom[s] : batch.first_atom[s + 1]]
    cell = batch.cells[s]
    if not (np.all(np.isfinite(positions)) and np.all(np.isfinite(cell)) and np.linalg.det(cell)):
        return replace(candidate, positions=positions, cell=cell)
    if settings.optimiser.relax_cell and settings.cell.niggli:
        cell = niggli(cell)
    fractions = positions @ np.linalg.inv(cell)
    fractions -= np.floor(fractions)
    fractions[fractions >= 1.0] = 0.0  # a tiny negative number plus one
    return replace(candidate, positions=fractions @ cell, cell=cell)


def _examine(
    candidates: list[Candidate],
    descriptor: Descriptor,
    snapshot: Snapshot | None,
    settings: SmaxConfig,
    evaluations: NDArray[np.int64],
) -> list[Found]:
    """Features, checks and figures of the structures as they will be stored."""
    reasons = hard_checks(candidates, settings)
    usable = np.array([reason != "not finite" for reason in reasons])
    features = [np.full((len(c), descriptor.n_features), np.nan) for c in candidates]
    figures = [(np.nan, np.nan, np.nan)] * len(candidates)
    if usable.any():
        batch = Batch.of([c for c, good in zip(candidates, usable, strict=True) if good])
        values = descriptor.values(batch)
        for s, k in enumerate(np.flatnonzero(usable)):
            features[k] = values[batch.first_atom[s] : batch.first_atom[s + 1]]
            if not np.all(np.isfinite(features[k])):
                reasons[k] = "not finite"
        if snapshot is not None:
            gain = entropy_gain(snapshot, batch, np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0))
            core = settings.objective.core_strength * core_overlap(batch).energy / batch.counts
            for s, k in enumerate(np.flatnonzero(usable)):
                figures[k] = _figures(gain, batch, s, float(core[s]))
    return [
        Found(candidate, rows, int(n), reason, *figure)
        for candidate, rows, n, reason, figure in zip(candidates, features, evaluations, reasons, figures, strict=True)
    ]


def _figures(gain: EntropyGain, batch: Batch, s: int, core: float) -> tuple[float, float, float]:
    d2 = gain.d2[batch.first_atom[s] : batch.first_atom[s + 1]]
    return float(d2.mean()), float(d2.max()), float(gain.normalised[s]) - core


def hard_checks(candidates: Sequence[Candidate], settings: SmaxConfig) -> list[str | None]:
    """Return the first check that each structure fails, one of `REASONS`, or None.

    Checks: finite positions and cells; r_ij >= (1 - core_tolerance) d_ij; the packing number within phi_lowest and
    phi_highest; the aspect and the heights of the cell.
    """
    reasons: list[str | None] = [_cell_check(candidate, settings) for candidate in candidates]
    finite = [k for k, reason in enumerate(reasons) if reason != "not finite"]
    if finite:
        ratios = smallest_distance_ratio(Batch.of([candidates[k] for k in finite]))
        for k, ratio in zip(finite, ratios, strict=True):
            if not ratio >= 1.0 - settings.checks.core_tolerance:
                reasons[k] = "core overlap"
    return reasons


def _cell_check(candidate: Candidate, settings: SmaxConfig) -> str | None:
    if not (np.all(np.isfinite(candidate.positions)) and np.all(np.isfinite(candidate.cell))):
        return "not finite"
    if not abs(np.linalg.det(candidate.cell)) > 0.0:
        return "not finite"
    density, cell = settings.density, settings.cell
    if not density.phi_lowest * (1.0 - ROUNDING) <= candidate.packing <= density.phi_highest * (1.0 + ROUNDING):
        return "density"
    high = heights(candidate.cell)
    if not high.max() <= cell.max_aspect * high.min() * (1.0 + ROUNDING):
        return "aspect"
    if not high.min() >= cell.min_height * (1.0 - ROUNDING):
        return "height"
    return None
