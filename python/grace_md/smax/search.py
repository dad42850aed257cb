"""From numbers of candidates to structures at a local maximum of the objective: all that a worker does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from grace_md.smax.candidate import Candidate
from grace_md.smax.config import SmaxConfig
from grace_md.smax.statistics import Snapshot

__all__ = ["REASONS", "Found", "search"]

# Words for structures that fail a hard check, in the order of the checks.
REASONS = ("not finite", "core overlap", "density", "aspect", "height")


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


def search(settings: SmaxConfig, snapshot: Snapshot | None, indices: Sequence[int]) -> list[Found]:
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

    Returns
    -------
    list of Found
        In the order of `indices`.

    Raises
    ------
    ConfigError
        If no cell can be drawn for the elements of a candidate.
    """
    raise NotImplementedError
