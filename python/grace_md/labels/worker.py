"""One process that labels: it claims jobs until there are none, is asked to stop, or too many structures fail."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ase import Atoms

from grace_md.labels.farm import Farm, item_folder
from grace_md.labels.recipes.base import Recipe
from grace_md.labels.records import (
    REJECTED,
    FullDiskError,
    LabelFailedError,
    LabelRejectedError,
    Outcome,
    RecordWriter,
    full_disk,
)
from grace_md.labels.store import HEARTBEAT_SECONDS, Claim, Counts

__all__ = ["FINISHED", "OVER_BUDGET", "STOPPED", "Limits", "Worker", "label_jobs", "over_budget"]

FINISHED, STOPPED, OVER_BUDGET = 0, 75, 3  # 75: the code that queues take for "start me again"
REPORT_SECONDS = 2.0
SMALLEST_SAMPLE = 20  # structures before a share of failures means anything


@dataclass(frozen=True)
class Limits:
    """When a worker stops by itself.

    Attributes
    ----------
    max_failures : share of failed structures among those tried (of at least 20, or of all where there are fewer)
    deadline : time.monotonic() at which it must have stopped; a structure that would take longer is not begun
    """

    max_failures: float = 0.2
    deadline: float | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.max_failures <= 1.0:
            raise ValueError(f"`max_failures` = {self.max_failures} must be a share between 0 and 1, for example 0.2.")


def over_budget(counts: Counts, max_failures: float) -> bool:
    """Whether so many structures failed that going on is a waste; rejected ones do not count."""
    tried = counts.done + counts.failed
    return counts.failed > max_failures * max(tried, min(SMALLEST_SAMPLE, counts.total))


class Worker:
    """Labels jobs of a farm in this process.

    Parameters
    ----------
    farm : whose jobs
    recipe : what labels them; it is started by `run`
    limits : when to stop
    stop : set from outside to stop after the structure in progress
    """

    def __init__(
        self,
        farm: Farm,
        recipe: Recipe | None = None,
        limits: Limits | None = None,
        stop: threading.Event | None = None,
        threads: int = 1,
    ) -> None:
        self.farm = farm
        self.recipe = farm.recipe() if recipe is None else recipe
        self.limits = limits or Limits()
        self.stop = stop or threading.Event()
        self.should_stop: Callable[[], bool] = self.stop.is_set
        self._threads = threads
        self._last_seconds = 0.0

    def run(self) -> int:
        """Label until there is nothing to claim; return FINISHED, STOPPED or OVER_BUDGET.

        Raises FullDiskError when a label cannot be written; the job is then free for the next run.
        """
        self.recipe.start(self._threads)
        while True:
            if over_budget(self.farm.store.counts(), self.limits.max_failures):
                return OVER_BUDGET
            if self._time_is_up():
                return STOPPED
            claim = self.farm.store.claim()
            if claim is None:
                return FINISHED
            code = self._work(claim)
            if code != FINISHED:
                return code

    def _time_is_up(self) -> bool:
        deadline = self.limits.deadline
        return self.should_stop() or (deadline is not None and time.monotonic() + self._last_seconds > deadline)

    def _work(self, claim: Claim) -> int:
        """Label what is missing of one job."""
        folder = self.farm.job_folder(claim.job)
        writer = RecordWriter(folder, claim.attempt, claim.round, self._provenance())
        known = self.farm.outcomes(claim.job, claim.round)
        with self._heartbeats(claim) as lost:
            try:
                code = self._items(claim, folder, writer, known, lost)
                writer.sync()  # before the database says that it is there
                self.farm.store.report(claim, known.values(), "finished" if len(known) == claim.n else "waiting")
            except BaseException:
                self._give_back(claim, known)
                raise
            finally:
                writer.close()
        return code

    def _give_back(self, claim: Claim, known: dict[int, Outcome]) -> None:
        try:
            self.farm.store.report(claim, known.values(), "waiting")
        except (OSError, RuntimeError):
            return  # on a full disk: a claim of a process that is gone is free anyway

    def _items(
        self, claim: Claim, folder: Path, writer: RecordWriter, known: dict[int, Outcome], lost: threading.Event
    ) -> int:
        structures = self.farm.structures(claim.job)
        reported = time.monotonic()
        for item, atoms in enumerate(structures):
            if item in known:
                continue
            if self._time_is_up():
                return STOPPED
            if lost.is_set():
                return FINISHED  # somebody else works on it
            known[item] = self._label(item, atoms, item_folder(folder, item, claim.n), writer)
            failed = known[item].reason and known[item].status != REJECTED
            if failed or time.monotonic() - reported > REPORT_SECONDS:
                reported = time.monotonic()
                self.farm.store.report(claim, known.values())
                if failed and over_budget(self.farm.store.counts(), self.limits.max_failures):
                    return OVER_BUDGET
        return FINISHED

    def _label(self, item: int, atoms: Atoms, folder: Path, writer: RecordWriter) -> Outcome:
        """Label one structure; whatever the calculator raises becomes the reason of a failure."""
        begin = time.perf_counter()
        writer.started(item)
        status, reason = "failed", ""
        try:
            self.farm.config.accept.check_structure(atoms)
            if self.recipe.batch == 1:
                folder.mkdir(exist_ok=True)
            label = self.recipe.label(atoms, folder)
            label.check(len(atoms), need_stress=False)
            self.farm.config.accept.check_label(label)
        except LabelRejectedError as error:
            status, reason = REJECTED, str(error)
        except LabelFailedError as error:
            reason = str(error)
        except FullDiskError:
            raise
        except Exception as error:
            if disk := full_disk(error, folder):
                raise disk from error
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
        seconds = self._last_seconds = time.perf_counter() - begin
        if reason:
            writer.failed(item, reason, seconds, status)
            return Outcome(item, status, 0, seconds, reason)
        writer.done(item, label, seconds)
        return Outcome(item, "labelled", 0, seconds)

    def _provenance(self) -> dict[str, object]:
        return {"recipe": self.recipe.name, "versions": self.recipe.versions()}

    @contextmanager
    def _heartbeats(self, claim: Claim) -> Iterator[threading.Event]:
        """Show every now and then that the job is worked on; the event is set if it was given to someone else."""
        over, lost = threading.Event(), threading.Event()

        def beat() -> None:
            while not over.wait(HEARTBEAT_SECONDS):
                try:
                    if not self.farm.store.heartbeat(claim):
                        lost.set()
                        return
                except (OSError, RuntimeError):
                    continue  # a full disk or a lock of somebody: the next beat may succeed

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield lost
        finally:
            over.set()
            thread.join()


def label_jobs(folder: str, max_failures: float = 0.2, seconds: float | None = None) -> int:
    """Label jobs of the farm in `folder` until there are none or `seconds` are over: to be given to any executor.

    ``executor.submit(label_jobs, "farm")`` once per worker works with `concurrent.futures`, executorlib (Flux, SLURM),
    mpi4py, parsl and Dask, and as a job of jobflow: the function and what it takes and returns are plain. Returns
    FINISHED (0), STOPPED (75) or OVER_BUDGET (3).
    """
    deadline = None if seconds is None else time.monotonic() + seconds
    return Worker(Farm(folder), limits=Limits(max_failures, deadline)).run()
