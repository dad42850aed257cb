"""Generating a set: batches of candidates against snapshots of the statistics, one committer, any executor.

The greedy scheme of the paper is sequential in its statistics only. Workers maximise batches against a snapshot that
may be a few commits old; the committer decides on each structure with the statistics as they are, so that ln det grows
with every accepted one, whatever the search was based on.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from grace_md.interrupt import on_stop_signal
from grace_md.progress import ProgressBar
from grace_md.smax.committer import Committer
from grace_md.smax.config import SmaxConfig
from grace_md.smax.devices import choose_device
from grace_md.smax.executors import WorkerPool, usable_cores
from grace_md.smax.extension import extend_state
from grace_md.smax.folder import RunFolder, holds_run, modes, refuse_existing
from grace_md.smax.lock import FolderLock
from grace_md.smax.run_settings import RunSettings
from grace_md.smax.search import search as search_candidates
from grace_md.smax.state import RunState
from grace_md.smax.stopping import Stop
from grace_md.smax.tasks import Search, Searched, Tasks, run_search

__all__ = ["Outcome", "generate"]

POLL_SECONDS = 0.2  # between two looks at signals and the clock while nothing comes back


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes
    ----------
    status : "complete" or "stopped"
    folder : of the run
    accepted : structures in it
    reason : why it stopped: a signal, "time limit", or nothing
    """

    status: str
    folder: Path
    accepted: int
    reason: str


def generate(
    config: SmaxConfig,
    folder: str | Path,
    n: int,
    *,
    run: RunSettings | None = None,
    workers: int | None = None,
    executor: Executor | Callable[[], Executor] | None = None,
    deterministic: bool = False,
    resume: bool = False,
    extend: Sequence[str | Path] = (),
    time_limit: float | None = None,
    force: bool = False,
    say: Callable[[str], None] | None = None,
    search: Search | None = None,
) -> Outcome:
    """Generate structures until a folder holds `n` accepted ones; `grace_md.smax.read` yields them as `ase.Atoms`.

    Parameters
    ----------
    config : settings of the method
    folder : where shards, statistics and the manifest go
    n : accepted structures to end with; more with ``resume=True`` goes on with a complete run
    run : sizes of batches, rounds and shards, and the device of the descriptors
    workers : processes, each with one thread; default: all cores. One: no further process. With an `executor`: tasks
        that are to be under way at the same time
    executor : any `concurrent.futures.Executor` (threads, ``mpi4py.futures.MPIPoolExecutor``, executorlib's
        ``FluxJobExecutor``, ``dask.distributed.Client().get_executor()``), which stays open; or a function that
        makes one, which can replace it when a worker dies
    deterministic : synchronous rounds, decisions in the order of candidate numbers: the same bits for the same
        settings, whatever the number of workers and interruptions
    resume : go on with the run in `folder`, if there is one
    extend : files, ASE databases or folders of `grace-md smax` whose structures count as accepted before
    time_limit : seconds after which to stop
    force : remove an earlier run in `folder`
    say : takes lines for people; default: print them
    search : replaces the search for candidates; tests do

    Returns
    -------
    Outcome
        "stopped" after SIGTERM, Ctrl-C or the time limit: everything accepted is kept, resume goes on from there.

    Raises
    ------
    ConfigError, FileExistsError, CorruptShardError, OSError, SingularStatisticsError, ...
        One sentence each, with the remedy. What was accepted before is kept.
    """
    if n < 1:
        raise ValueError(f"`n` = {n} must be at least 1: the number of structures to accept.")
    cores = usable_cores() if workers is None else workers
    if cores < 1:
        raise ValueError(f"`workers` = {cores} must be at least 1.")
    run = RunSettings() if run is None else run
    stop = Stop(time_limit)
    pool = WorkerPool(cores, executor)
    tell = _print if say is None else say
    device, choice = choose_device(run.device, config.descriptor.kind)
    if choice:
        tell(choice)
    with on_stop_signal(stop.ask, "stopping; what is accepted is kept ..."), FolderLock() as lock:
        try:
            lock.acquire(Path(folder))
            opened, state = _open(
                config, Path(folder), run, pool, tell, stop, deterministic, resume, extend, force, device
            )
            lock.acquire(Path(folder))  # if it is new
            opened.record["target"] = n
            opened.record["device"] = device
            loop = _Run(opened, state, n, pool, stop, search or partial(search_candidates, device=device))
            outcome = loop.run(deterministic=deterministic)
        except BaseException:
            pool.close(kill=True)
            raise
        pool.close(kill=outcome.status == "stopped" or loop.left_over)
    tell(_last_words(outcome, state))
    return outcome


def _open(
    config: SmaxConfig,
    path: Path,
    run: RunSettings,
    pool: WorkerPool,
    tell: Callable[[str], None],
    stop: Stop,
    deterministic: bool,
    resume: bool,
    extend: Sequence[str | Path],
    force: bool,
    device: str,
) -> tuple[RunFolder, RunState]:
    if resume and not force and holds_run(path):
        folder, state = RunFolder.resume(path, config, run, deterministic=deterministic)
        folder.require_same_extension(extend)
        folder.require_same_device(device)
        tell(f"going on with {state.accepted} accepted structures in {path}")
        return folder, state
    if not force:
        refuse_existing(path)
    base, sources = extend_state(config, extend, pool, tell, stop, device)
    folder, state = RunFolder.begin(
        path, config, run, deterministic=deterministic, n_features=base.atom.n_features, force=force
    )
    if sources:
        state.entropy, state.base = base, deepcopy(base)
        folder.record["extended"] = sources
    return folder, state


class _Run:
    """The loop of one call."""

    def __init__(
        self, folder: RunFolder, state: RunState, target: int, pool: WorkerPool, stop: Stop, search: Search
    ) -> None:
        self.folder, self.state, self.pool, self.stop, self.search = folder, state, pool, stop, search
        self.config, self.settings = folder.config, folder.run
        self.committer = Committer(folder, state, target)
        self.tasks = Tasks(pool)
        self.left_over = False

    def run(self, *, deterministic: bool) -> Outcome:
        status, reason = "failed", ""
        folder, state, committer = self.folder, self.state, self.committer
        folder.record.update(workers=self.pool.workers)
        folder.save(state)
        with ProgressBar(committer.target, "accepted", start=state.accepted) as self.bar:
            while not committer.full and not self.stop.asked():
                if deterministic:
                    self._round()
                else:
                    self._stream()
        status = "complete" if committer.full else "stopped"
        reason = "" if committer.full else self.stop.reason
        self.left_over = len(self.tasks) > 0
        self.tasks.cancel()
        folder.record.update(status=status, stopped_by=reason, executor=self.pool.name)
        committer.close()
        return Outcome(status, folder.path, state.accepted, reason)

    def _stream(self) -> None:
        """Keep all workers busy with the latest snapshot, commit what comes back as it comes."""
        busy: set[int] = set()
        while not self.committer.full and not self.stop.asked():
            while len(self.tasks) < self.pool.limit and not self.stop.asked():
                indices = self.state.take(self.settings.batch, busy)
                busy |= set(indices)
                self._submit(indices)
            results = self.tasks.finished(POLL_SECONDS)
            for indices, _ in results:
                busy -= set(indices)
            if results:
                self._commit([result for _, result in results])

    def _round(self) -> None:
        """Search candidates against one snapshot and decide on them in the order of their numbers.

        Batches are committed as soon as all before them are; after an interruption the rest is searched against the
        same statistics.
        """
        state, size = self.state, self.settings.batch
        if state.round_indices is None:
            state.round_indices = sorted(state.take(size * self.settings.round_batches))
            state.round_entropy = deepcopy(state.entropy)
        assert state.round_entropy is not None
        snapshot = state.round_entropy.snapshot(self.config.statistics)
        pending = set(state.pending)
        batches = [state.round_indices[k : k + size] for k in range(0, len(state.round_indices), size)]
        batches = [batch for batch in batches if pending & set(batch)]  # in whole: sums are over the same candidates
        arrived: dict[int, Searched] = {}
        submitted = decided = 0
        while decided < len(batches):
            while submitted < len(batches) and len(self.tasks) < self.pool.limit:
                self.tasks.submit(submitted, run_search, self.search, self.config, snapshot, batches[submitted])
                submitted += 1
            arrived |= dict(self.tasks.finished(POLL_SECONDS))
            while decided in arrived:
                last = decided == len(batches) - 1
                self._commit([arrived.pop(decided)], end_of_round=last)
                decided += 1
                if self.committer.full:
                    return
            if self.stop.asked():
                return

    def _submit(self, indices: list[int]) -> None:
        self.tasks.submit(tuple(indices), run_search, self.search, self.config, self.committer.snapshot(), indices)

    def _commit(self, results: list[Searched], *, end_of_round: bool = False) -> None:
        self.committer.commit(results, end_of_round=end_of_round)
        state = self.state
        note = f"{100.0 * state.accepted / max(1, state.decided):.0f} % of candidates, {state.rate:.2f}/s"
        if state.entropy.seeding:
            note += ", seed phase"
        else:
            note += "".join(f", ln det {state.entropy.log_det(m):.2f}" for m in modes(self.config))
        self.bar.set(state.accepted, note)


def _last_words(outcome: Outcome, state: RunState) -> str:
    rejected = ", ".join(f"{count} {reason}" for reason, count in sorted(state.rejected.items())) or "none"
    line = (
        f"{outcome.status}: {state.accepted} structures ({state.atoms} atoms) of {state.decided} candidates in "
        f"{outcome.folder}; rejected: {rejected}"
    )
    return line + ("; the same command with --resume goes on from here" if outcome.status == "stopped" else "")


def _print(line: str) -> None:
    print(line, file=sys.stdout, flush=True)  # noqa: T201 - the lines for people
