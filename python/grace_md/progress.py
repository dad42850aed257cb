"""A progress bar with the time left, for commands that take longer than a breath."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

BAR_WIDTH = 30
REDRAW_SECONDS = 0.2
PLAIN_STEP = 0.1  # without a terminal: one line per this share of the work


def format_seconds(seconds: float) -> str:
    """Return a duration such as ``"45 s"``, ``"3:05"`` or ``"2:03:05"``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    hours, rest = divmod(whole, 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class ProgressBar:
    """One line that is redrawn on a terminal; a few plain lines in a log file.

    Parameters
    ----------
    total : float
        Amount of work (steps, structures, ...).
    label : str
        What is being done.
    start : float
        Work that was already done before (a resumed run); it does not count for the time left.
    stream : TextIO, optional
        Where to write, default stderr.
    clock : callable
        Returns seconds; replaced in tests.
    """

    def __init__(
        self,
        total: float,
        label: str = "",
        start: float = 0.0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total = total
        self.label = label
        self.start = start
        self.done = start
        self.note = ""
        self._stream = sys.stderr if stream is None else stream
        self._tty = self._stream.isatty()
        self._clock = clock
        self._begin = clock()
        self._last_drawn = -1.0
        self._next_share = self._share()
        self._closed = False

    def _share(self) -> float:
        return 1.0 if self.total <= 0 else min(1.0, self.done / self.total)

    def seconds_left(self) -> float | None:
        """Return the estimated time left in seconds, None before anything was done."""
        progress = self.done - self.start
        if progress <= 0:
            return None
        return (self._clock() - self._begin) / progress * max(0.0, self.total - self.done)

    def set(self, done: float, note: str = "") -> None:
        """Set the work done so far; `note` is a short text at the end of the line, for example the temperature."""
        self.done = done
        self.note = note
        if self._tty:
            now = self._clock()
            if now - self._last_drawn >= REDRAW_SECONDS or self.done >= self.total:
                self._last_drawn = now
                self._stream.write("\r" + self.line() + "\x1b[K")
                self._stream.flush()
        elif self._share() >= self._next_share:
            lines = math.floor(self._share() / PLAIN_STEP + 1e-9) + 1
            self._next_share = math.inf if self._share() >= 1.0 else min(1.0, lines * PLAIN_STEP)
            self._stream.write(self.line() + "\n")
            self._stream.flush()

    def update(self, amount: float = 1.0, note: str = "") -> None:
        """Add `amount` to the work done."""
        self.set(self.done + amount, note)

    def line(self) -> str:
        """Return the text of the line."""
        share = self._share()
        filled = int(share * BAR_WIDTH)
        bar = f"[{'#' * filled}{'.' * (BAR_WIDTH - filled)}]" if self._tty else ""
        elapsed = self._clock() - self._begin
        left = self.seconds_left()
        times = f"{format_seconds(elapsed)} elapsed"
        if share < 1.0 and left is not None:
            times += f", {format_seconds(left)} left"
        pieces = [self.label, bar, f"{100 * share:3.0f} %", f"{self.done:.0f}/{self.total:.0f}", times, self.note]
        return "  ".join(piece for piece in pieces if piece)

    def close(self) -> None:
        """Finish the line; harmless when called twice."""
        if not self._closed and self._tty:
            self._stream.write("\r" + self.line() + "\x1b[K\n")
            self._stream.flush()
        self._closed = True

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
