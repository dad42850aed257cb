"""The exact decision on a structure that a search has found, and what follows from accepting it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from grace_md.smax.candidate import Mode
from grace_md.smax.entropy import rank_n_gain
from grace_md.smax.statistics import EntropyState, Statistics, log_det, mode_snapshot

if TYPE_CHECKING:
    from grace_md.smax.config import SmaxConfig
    from grace_md.smax.search import Found

__all__ = ["NO_GAIN", "Decision", "commit", "decide", "entropy_change"]

NO_GAIN = "no entropy gain"


@dataclass(frozen=True)
class Decision:
    """The outcome for one structure.

    Attributes
    ----------
    accepted : bool
    reason : str or None
        Why not; one of `grace_md.smax.search.REASONS` or "no entropy gain". None if accepted.
    log_det_before, log_det_after : float
        S = ln det Sigma of the items of the candidate's mode without and with it; NaN in the seed phase and for
        structures that failed a hard check.
    gain : float
        S(D + c) - S(D), without the cancellation in the difference of the two.
    """

    accepted: bool
    reason: str | None
    log_det_before: float
    log_det_after: float
    gain: float


def entropy_change(state: EntropyState, features: NDArray[np.float64], mode: Mode) -> tuple[float, float]:
    """Return S(D) and S(D + c) - S(D) for a structure with `features` [N, m], both exact in double precision.

    Raises
    ------
    SingularStatisticsError
        If Sigma is not positive definite.
    """
    items = features if mode == "atom" else features.mean(axis=0, keepdims=True)
    part, ridge = state.of(mode), state.ridge[mode]
    before = state.log_det(mode)
    if ridge is None:
        return before, rank_n_gain(mode_snapshot(part, None), items)
    joined = part.merged(Statistics.of([items], part.n_features))  # the ridge stays as it is when items are added
    return before, log_det(joined.covariance() + np.diag(ridge)) - before


def decide(state: EntropyState, found: Found, settings: SmaxConfig) -> Decision:
    """Accept if S(D + c) > S(D) for the statistics as they are now; in the seed phase, whatever passed the checks.

    Raises
    ------
    SingularStatisticsError
        If S has no meaning.
    """
    nan = float("nan")
    if found.reason is not None:
        return Decision(False, found.reason, nan, nan, nan)
    if state.seeding:
        return Decision(True, None, nan, nan, nan)
    before, gain = entropy_change(state, found.features, found.candidate.mode)
    accepted = gain > 0.0
    return Decision(accepted, None if accepted else NO_GAIN, before, before + gain, gain)


def commit(state: EntropyState, found: Found, settings: SmaxConfig) -> None:
    """Add an accepted structure to `state`; the seed phase ends and ridges are dropped when their time has come.

    Raises
    ------
    SingularStatisticsError
        If the seed phase ends with features that depend on each other even with the ridge.
    """
    state.add(found.features)
    state.update_phase(settings.statistics)
