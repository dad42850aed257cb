"""Several workers as processes of this host, with progress; a worker that dies is replaced."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time
from collections import Counter
from multiprocessing.process import BaseProcess
from pathlib import Path

from grace_md.interrupt import on_stop_signal
from grace_md.labels.farm import Farm
from grace_md.labels.records import FAILED
from grace_md.labels.worker import FINISHED, OVER_BUDGET, STOPPED, Limits, Worker, over_budget
from grace_md.progress import ProgressBar

__all__ = ["failure_summary", "run_farm"]

POLL_SECONDS = 0.5
# Deaths of workers without any structure settled between, for each worker. One structure may cause three of them.
MOST_DEATHS = 5
BROKEN = 1


def _threads_per_worker() -> int:
    """One, unless OMP_NUM_THREADS says otherwise: structures are small, and waiting threads cost more than they do.

    CHGNet with two threads on two cores, one of them busy with something else, took 20 times as long as with one.
    """
    words = os.environ.get("OMP_NUM_THREADS", "1").split(",")[0]
    return max(1, int(words)) if words.isdigit() else 1


def _work(folder: Path, limits: Limits, threads: int, parent: int) -> None:
    """Body of a worker process: its exit code says how it ended."""
    stop = threading.Event()
    with on_stop_signal(lambda _: stop.set(), note=""):
        try:
            worker = Worker(Farm(folder), limits=limits, stop=stop, threads=threads)
            # Without its parent nobody could stop it: it ends as if it had been asked to.
            worker.should_stop = lambda: stop.is_set() or os.getppid() != parent
            code = worker.run()
        except KeyboardInterrupt:
            code = STOPPED
        except Exception as error:
            sys.stderr.write(f"\nworker: {error}\n")
            code = BROKEN
    sys.exit(code)


class _Pool:
    def __init__(self, folder: Path, workers: int, limits: Limits) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._arguments = (folder, limits, _threads_per_worker(), os.getpid())
        self._most_deaths, self._deaths, self._settled = MOST_DEATHS * workers, 0, -1
        self.alive: list[BaseProcess] = []
        self.codes: list[int] = []
        for _ in range(workers):
            self._start()

    def _start(self) -> None:
        process = self._context.Process(target=_work, args=self._arguments)
        process.start()
        self.alive.append(process)

    def reap(self, settled: int, *, replace: bool) -> None:
        """Collect exit codes; a worker that a signal ended is replaced, unless that happens without any progress."""
        if settled != self._settled:
            self._settled, self._deaths = settled, 0
        for process in [p for p in self.alive if p.exitcode is not None]:
            self.alive.remove(process)
            code = process.exitcode or 0
            self.codes.append(code)
            if code < 0:
                sys.stderr.write(f"\na worker was ended by signal {-code}\n")
                self._deaths += 1
                if replace and self._deaths < self._most_deaths:
                    self._start()

    def ask_to_stop(self) -> None:
        for process in self.alive:
            process.terminate()


def run_farm(folder: str | os.PathLike[str], *, workers: int = 1, limits: Limits | None = None) -> int:
    """Label the jobs of a farm by `workers` processes; return FINISHED, STOPPED, OVER_BUDGET or 1.

    SIGTERM and Ctrl-C stop after the structure in progress (STOPPED, 75). The same call goes on. Several calls may run
    at the same time, on several hosts.
    """
    if workers < 1:
        raise ValueError(f"`workers` = {workers} must be at least 1.")
    limits = limits or Limits()
    farm = Farm(folder)
    start = farm.store.counts()
    workers = min(workers, max(1, start.total - start.settled))
    stop = threading.Event()
    saved = os.environ.get("OMP_NUM_THREADS")
    os.environ.setdefault("OMP_NUM_THREADS", str(_threads_per_worker()))  # read when libraries are loaded
    try:
        with on_stop_signal(lambda _: stop.set()), ProgressBar(start.total, "labels", start=start.settled) as bar:
            pool = _Pool(farm.folder, workers, limits)
            _watch(farm, pool, bar, stop)
    finally:
        if saved is None:
            del os.environ["OMP_NUM_THREADS"]
    counts = farm.store.counts()
    if over_budget(counts, limits.max_failures):
        return OVER_BUDGET
    if counts.finished == counts.waiting + counts.claimed + counts.finished:
        return FINISHED
    if stop.is_set() or STOPPED in pool.codes:
        return STOPPED
    return BROKEN if any(pool.codes) else FINISHED


def _watch(farm: Farm, pool: _Pool, bar: ProgressBar, stop: threading.Event) -> None:
    asked = False
    begin = time.monotonic()
    first = bar.done
    while pool.alive:
        stop.wait(POLL_SECONDS) if not asked else time.sleep(POLL_SECONDS)
        if stop.is_set() and not asked:
            asked = True
            pool.ask_to_stop()
        counts = farm.store.counts()
        pool.reap(counts.settled, replace=not asked)
        rate = (counts.settled - first) / (time.monotonic() - begin)
        problems = [f"{n} {word}" for n, word in ((counts.failed, "failed"), (counts.rejected, "rejected")) if n]
        bar.set(counts.settled, ", ".join([f"{rate:.3g}/s", *problems]))


def failure_summary(farm: Farm, most: int = 5) -> list[str]:
    """Return the most frequent reasons of failures, each with its number and one example."""
    examples: dict[str, str] = {}
    counter: Counter[str] = Counter()
    for job, item, status, reason in farm.store.reasons():
        if status == FAILED:
            kind = "".join("#" if c.isdigit() else c for c in reason)  # numbers differ from structure to structure
            counter[kind] += 1
            examples.setdefault(kind, f"{reason} (job {job}, structure {item})")
    return [f"{count} x {examples[kind]}" for kind, count in counter.most_common(most)]
