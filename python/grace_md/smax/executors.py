"""Where searches run: in this process, in a pool of processes that is replaced when it breaks, or in any Executor."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

__all__ = ["MAX_BREAKS", "InlineExecutor", "WorkerPool", "usable_cores"]

T = TypeVar("T")

MAX_BREAKS = 5  # pools that may break one after the other without a result between
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class InlineExecutor(Executor):
    """Runs a task when it is submitted, in the thread that submits it."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Run a task and return its finished future."""
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # as executors do: the exception belongs to the future
            future.set_exception(error)
        return future


def _start_worker() -> None:
    """Ctrl-C reaches every process of a terminal; only the parent acts on it, and ends its workers.

    A worker whose parent was killed would wait for work for ever; it ends with its parent.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


@contextmanager
def _single_threaded() -> Iterator[None]:
    """Let processes that start meanwhile use one thread each; libraries read this when they are loaded."""
    kept = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in kept.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class WorkerPool:
    """Submits tasks, and begins a new pool when a worker died.

    Parameters
    ----------
    workers : processes of an own pool, or tasks that an injected executor is to have at the same time
    executor : used instead of an own pool, and left open at the end; a function that makes one may be called again
        when the one before is broken (it is then shut down here)

    Attributes
    ----------
    limit : tasks that should be submitted and unfinished at the same time
    """

    def __init__(self, workers: int, executor: Executor | Callable[[], Executor] | None = None) -> None:
        self._foreign = executor if isinstance(executor, Executor) else None
        self._make: Callable[[], Executor] | None = None
        if self._foreign is None:
            self._make = self._own_pool if executor is None else executor  # type: ignore[assignment]
        self.workers = workers
        inline = executor is None and workers == 1
        self.limit = 1 if inline else workers + max(1, workers // 8)  # the next task waits where it is needed
        self._inline = inline
        self._executor: Executor | None = None
        self._breaks = 0

    @property
    def name(self) -> str:
        """What executes tasks, for the manifest."""
        return "none" if self._executor is None else type(self._executor).__name__

    def _own_pool(self) -> Executor:
        if self._inline:
            return InlineExecutor()
        context = multiprocessing.get_context("spawn")  # no copies of locks, threads and open files
        return ProcessPoolExecutor(self.workers, mp_context=context, initializer=_start_worker)

    def submit(self, function: Callable[..., T], *args: Any) -> Future[T]:
        """Submit a task; RuntimeError if pools break again and again."""
        with _single_threaded():
            if self._executor is None:
                self._executor = self._foreign or (self._make or self._own_pool)()
            try:
                return self._executor.submit(function, *args)
            except BrokenExecutor:
                self.replace()
                assert self._executor is not None
                return self._executor.submit(function, *args)

    def succeeded(self) -> None:
        """Note that a task came back."""
        self._breaks = 0

    def replace(self) -> None:
        """Begin a new pool in the place of a broken one; RuntimeError where that is not possible or does not help."""
        self._breaks += 1
        if self._foreign is not None:
            raise RuntimeError(
                "the injected executor is broken (a worker died); give `executor` a function that makes one, so that a "
                "broken one can be replaced, or continue with resume=True."
            )
        if self._breaks > MAX_BREAKS:
            raise RuntimeError(
                f"workers died {self._breaks} times without a result between, often because memory is short; use fewer "
                "--workers or a smaller --batch, then continue with --resume."
            )
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
        with _single_threaded():
            self._executor = (self._make or self._own_pool)()

    def close(self, *, kill: bool = False) -> None:
        """Shut down what was made here; with `kill` end workers in the middle of their task."""
        if self._executor is None or self._foreign is not None:
            return
        processes = list((getattr(self._executor, "_processes", None) or {}).values()) if kill else []
        self._executor.shutdown(wait=not kill, cancel_futures=True)
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(timeout=10.0)
        self._executor = None
