"""Searches under way: what was submitted, what came back, and what a broken pool lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Future, wait
from dataclasses import dataclass
from typing import Any

from grace_md.smax.config import SmaxConfig
from grace_md.smax.executors import WorkerPool
from grace_md.smax.search import Found
from grace_md.smax.statistics import Snapshot

__all__ = ["Search", "Searched", "Tasks", "run_search"]

Search = Callable[[SmaxConfig, "Snapshot | None", Sequence[int]], Sequence[Found]]


@dataclass(frozen=True)
class Searched:
    """What a task brings back.

    Attributes
    ----------
    found : one for each candidate number, in their order
    seconds : of processor time of its thread
    seeded : whether it was of the seed phase, without maximisation
    """

    found: Sequence[Found]
    seconds: float
    seeded: bool


def run_search(search: Search, settings: SmaxConfig, snapshot: Snapshot | None, indices: Sequence[int]) -> Searched:
    """Search and take the time; this is what workers execute."""
    begin = time.thread_time()
    found = search(settings, snapshot, indices)
    return Searched(found, time.thread_time() - begin, snapshot is None)


class Tasks:
    """Tasks of one pool.

    Tasks that a broken pool loses are submitted again with the same arguments.
    """

    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool
        self._waiting: dict[Future[Any], tuple[Any, tuple[Any, ...]]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def submit(self, key: Any, *task: Any) -> None:
        """Submit ``task[0](*task[1:])``; `key` comes back with its result."""
        self._waiting[self._pool.submit(*task)] = (key, task)

    def finished(self, timeout: float) -> list[tuple[Any, Any]]:
        """Wait until something is finished, at most `timeout` seconds; return keys and results in arrival order.

        Raises what a task raised, and RuntimeError where broken pools cannot be replaced.
        """
        done, _ = wait(self._waiting, timeout=timeout, return_when=FIRST_COMPLETED)
        results, broken = [], False
        for future in [future for future in self._waiting if future in done]:
            try:
                results.append((self._waiting[future][0], future.result()))
            except (BrokenExecutor, CancelledError):
                broken = True
                continue
            del self._waiting[future]
        if broken:
            self._again()
        elif results:
            self._pool.succeeded()
        return results

    def _again(self) -> None:
        """Submit what a broken pool has lost to a new one; results that it still brought stay."""
        lost = []
        for future in list(self._waiting):
            if not future.done() or future.cancelled() or future.exception() is not None:
                lost.append(self._waiting.pop(future))
        self._pool.replace()
        for key, task in lost:
            self.submit(key, *task)

    def cancel(self) -> None:
        """Take back what has not begun."""
        for future in self._waiting:
            future.cancel()
