"""The exact decision on a structure that a search has found, and what follows from accepting it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from grace_md.smax.statistics import EntropyState

if TYPE_CHECKING:
    from grace_md.smax.config import SmaxConfig
    from grace_md.smax.search import Found

__all__ = ["Decision", "commit", "decide"]

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
        structures that failed a hard check. The gain is their difference, computed without cancellation in `gain`.
    gain : float
        S(D + c) - S(D).
    """

    accepted: bool
    reason: str | None
    log_det_before: float
    log_det_after: float
    gain: float


def decide(state: EntropyState, found: Found, settings: SmaxConfig) -> Decision:
    """Accept if S(D + c) > S(D) for the statistics as they are now; in the seed phase, whatever passed the checks.

    Raises
    ------
    SingularStatisticsError
        If S has no meaning.
    """
    raise NotImplementedError


def commit(state: EntropyState, found: Found, settings: SmaxConfig) -> None:
    """Add an accepted structure to `state`; the seed phase ends and ridges are dropped when their time has come."""
    state.add(found.features)
    state.update_phase(settings.statistics)
