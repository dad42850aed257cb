"""When a run stops before its end: signals, and the time that was given to it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

__all__ = ["Stop", "parse_time_limit"]

_CLOCK = re.compile(r"(?:(\d+)-)?(\d+):([0-5]\d)(?::([0-5]\d))?")


def parse_time_limit(text: str) -> float:
    """Return the seconds of ``HH:MM``, ``HH:MM:SS`` or ``D-HH:MM``; ValueError for anything else, and for zero."""
    match = _CLOCK.fullmatch(text.strip())
    days, hours, minutes, seconds = (int(word or 0) for word in match.groups()) if match else (0, 0, 0, 0)
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    if total == 0:
        raise ValueError(f"`--time-limit {text}` must be a time such as 23:30 (hours:minutes), 0:05:00 or 1-12:00.")
    return float(total)


class Stop:
    """Whether a run is to stop.

    Parameters
    ----------
    seconds : time that is left to it; None for no limit
    clock : returns seconds; replaced in tests

    Attributes
    ----------
    reason : why it stops, empty while it does not
    """

    def __init__(self, seconds: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = None if seconds is None else clock() + seconds
        self.reason = ""

    def asked(self) -> bool:
        """Whether to stop now."""
        if not self.reason and self._end is not None and self._clock() >= self._end:
            self.reason = "time limit"
        return bool(self.reason)

    def ask(self, reason: str) -> None:
        """Stop at the next question, for example at a signal."""
        self.reason = reason
