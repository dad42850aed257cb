"""SIGTERM and Ctrl-C as a question that long runs ask between two steps."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType, TracebackType

__all__ = ["StopRequest"]


class StopRequest:
    """Within a `with` block: SIGTERM and the first Ctrl-C set `asked`; a second Ctrl-C ends the program at once.

    Handlers can only be set in the main thread; elsewhere `asked` stays false and signals act as before.
    """

    def __init__(self) -> None:
        self.asked = False
        self._kept: dict[int, object] = {}

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.asked:
            raise KeyboardInterrupt
        self.asked = True
        sys.stderr.write("\nstopping after this step ...\n")
        sys.stderr.flush()

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._kept = {number: signal.signal(number, self._handle) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._kept.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal returned
        self._kept = {}
