"""SIGTERM and Ctrl-C as a question that long runs ask between two steps."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

__all__ = ["StopRequest", "on_stop_signal"]

NOTE = "stopping after this step ..."


@contextmanager
def on_stop_signal(ask: Callable[[str], None], note: str = NOTE) -> Iterator[None]:
    """Within: SIGTERM and the first Ctrl-C call `ask` with the name of the signal; a second Ctrl-C interrupts at once.

    Handlers can only be set in the main thread; elsewhere signals act as before. `note` goes to stderr.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = False

    def handle(number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if number == signal.SIGINT and asked:
            raise KeyboardInterrupt
        asked = True
        ask(signal.Signals(number).name)
        if note:
            sys.stderr.write(f"\n{note}\n")
            sys.stderr.flush()

    kept = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


class StopRequest:
    """Within a `with` block: `asked` turns true at SIGTERM or Ctrl-C, as `on_stop_signal` says."""

    def __init__(self) -> None:
        self.asked = False
        self._context = on_stop_signal(self._ask)

    def _ask(self, _name: str) -> None:
        self.asked = True

    def __enter__(self) -> StopRequest:
        self._context.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._context.__exit__(kind, error, trace)
