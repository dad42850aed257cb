"""Runs: what is accepted, bit-by-bit determinism, executors, interruptions of every kind, refusals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import smax_stand_in as stand_in
from grace_md import cli
from grace_md.smax.committer import Committer
from grace_md.smax.executors import MAX_BREAKS, InlineExecutor, WorkerPool
from grace_md.smax.folder import read
from grace_md.smax.run_settings import RunSettings
from grace_md.smax.status import status, status_lines
from grace_md.smax.stopping import Stop, parse_time_limit
from grace_md.smax.tasks import Searched
from grace_md.strict import ConfigError
from smax_runs import assert_same_run, log_dets, short, state_of


def test_a_run_and_what_it_leaves(tmp_path: Path) -> None:
    outcome = short(tmp_path / "run")
    assert (outcome.status, outcome.accepted) == ("complete", 60)
    structures = list(read(tmp_path / "run"))
    assert len(structures) == 60
    assert len({atoms.info["smax_index"] for atoms in structures}) == 60
    last = structures[-1]
    assert {"smax_index", "smax_seed", "smax_mode", "smax_gain", "smax_log_det", "smax_d2_mean", "smax_d2_max",
            "smax_evaluations"} <= set(last.info)  # fmt: skip
    assert last.arrays["effective_radius"].shape == (len(last),)
    exact = stand_in.found(stand_in.settings(), None, int(last.info["smax_index"])).candidate
    assert np.array_equal(last.positions, exact.positions)
    assert np.array_equal(last.arrays["effective_radius"], exact.radii)
    manifest = json.loads((tmp_path / "run/manifest.json").read_text())
    assert manifest["config"] == json.loads(json.dumps(stand_in.settings().plain()))
    assert manifest["decided"] == manifest["accepted"] + sum(manifest["rejected"].values())
    assert set(manifest["rejected"]) == {"core overlap", "no entropy gain"}
    assert {"versions", "core_sha256", "config_sha256", "seed", "ridge", "n_seed", "wall_seconds"} <= set(manifest)
    assert [card["n_structures"] for card in manifest["shards"]] == [25, 25, 10]
    log = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert log[-1]["step"] == 60
    assert log[-1]["atom_items"] == sum(map(len, structures))


def test_ln_det_grows_with_every_accepted_structure(tmp_path: Path) -> None:
    """Also when searches have seen older statistics: eight batches are under way at once here."""
    with ThreadPoolExecutor(4) as threads:
        short(tmp_path / "run", executor=threads, workers=8)
    found = log_dets(tmp_path / "run")
    assert len(found) > 30
    assert np.all(np.diff(found) > 0.0)
    entropy = state_of(tmp_path / "run").entropy
    assert found[-1] == pytest.approx(entropy.log_det("atom"), rel=1e-12)


@pytest.mark.parametrize("mode", ["config", "mixed"])
def test_other_statistics(tmp_path: Path, mode: str) -> None:
    short(tmp_path / "run", 80, stand_in.settings(statistics={"mode": mode}))
    found = status(tmp_path / "run")
    assert found["config_items"] == 80
    assert ("atom_log_det" in found) == (mode == "mixed")
    assert len([line for line in status_lines(found) if line.startswith("entropy")]) == (2 if mode == "mixed" else 1)


@pytest.mark.parametrize("workers", [2, 5])
def test_deterministic_runs_do_not_depend_on_workers(tmp_path: Path, workers: int) -> None:
    short(tmp_path / "one", deterministic=True)
    with ThreadPoolExecutor(workers) as threads:
        short(tmp_path / "many", deterministic=True, executor=threads, workers=workers)
    assert_same_run(tmp_path / "one", tmp_path / "many")


class Interrupted(Exception):
    """What stands for a crash of the parent."""


@pytest.mark.parametrize("restart_after", [0, 9])
@pytest.mark.parametrize("commits", [1, 2, 3, 4, 6, 9])
def test_resumed_equals_uninterrupted_bit_by_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, commits: int, restart_after: int
) -> None:
    """The parent dies in the midst of a commit: in seed phases, in rounds and between them."""
    config = stand_in.settings(statistics={"restart_after": restart_after})
    short(tmp_path / "whole", config=config, deterministic=True)
    original, count = Committer._clock, 0

    def clock(self: Committer, *args: Any) -> None:
        nonlocal count
        count += 1
        if count > commits:
            raise Interrupted  # structures are written, the state is not
        original(self, *args)

    monkeypatch.setattr(Committer, "_clock", clock)
    with pytest.raises(Interrupted):
        short(tmp_path / "broken", config=config, deterministic=True)
    monkeypatch.undo()
    assert state_of(tmp_path / "broken").commits == commits
    outcome = short(tmp_path / "broken", config=config, deterministic=True, resume=True)
    assert outcome.status == "complete"
    assert_same_run(tmp_path / "whole", tmp_path / "broken")
    steps = [json.loads(line)["step"] for line in (tmp_path / "broken/metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))


@pytest.mark.parametrize("first", [5, 13, 14, 31, 59])
def test_a_run_in_two_parts_equals_one(tmp_path: Path, first: int) -> None:
    """Enough structures in the midst of a batch, of a round and of the seed phase; then more are asked for."""
    short(tmp_path / "whole", deterministic=True)
    short(tmp_path / "parts", first, deterministic=True)
    assert len(list(read(tmp_path / "parts"))) == first
    short(tmp_path / "parts", deterministic=True, resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_a_worker_that_is_killed_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short(tmp_path / "whole", deterministic=True)
    monkeypatch.setenv("SMAX_TEST_MARK", str(tmp_path / "mark"))
    outcome = short(tmp_path / "killed", deterministic=True, workers=2, search=stand_in.deadly_search)
    assert (tmp_path / "mark").read_text() == "killed"
    assert outcome.status == "complete"
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


class Dying(Executor):
    """Breaks with every task."""

    def submit(self, *_args: Any, **_kwargs: Any) -> Future[Any]:
        from concurrent.futures.process import BrokenProcessPool

        future: Future[Any] = Future()
        future.set_exception(BrokenProcessPool("a worker died"))
        return future


def test_workers_that_die_again_and_again(tmp_path: Path) -> None:
    made: list[Dying] = []

    def make() -> Dying:
        made.append(Dying())
        return made[-1]

    with pytest.raises(RuntimeError, match=rf"died {MAX_BREAKS + 1} times without a result .* fewer --workers"):
        short(tmp_path / "run", executor=make, workers=2)
    assert len(made) == MAX_BREAKS + 1
    with pytest.raises(RuntimeError, match=r"the injected executor is broken .* resume=True"):
        short(tmp_path / "other", executor=Dying(), workers=2)
    assert short(tmp_path / "other", resume=True).status == "complete"


def test_injected_executor_stays_open_and_a_made_one_is_closed(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as threads:
        assert short(tmp_path / "a", executor=threads, workers=2).accepted == 60
        assert threads.submit(int, "3").result() == 3
    made: list[ThreadPoolExecutor] = []

    def make() -> ThreadPoolExecutor:
        made.append(ThreadPoolExecutor(2))
        return made[-1]

    assert short(tmp_path / "b", executor=make, workers=2).accepted == 60
    with pytest.raises(RuntimeError, match="shutdown"):
        made[0].submit(int, "3")
    assert json.loads((tmp_path / "b/manifest.json").read_text())["executor"] == "ThreadPoolExecutor"


def test_an_error_of_a_search_reaches_the_user(tmp_path: Path) -> None:
    def failing(_config: Any, snapshot: Any, indices: Any) -> Any:
        if snapshot is not None:
            raise ConfigError("no cell fits candidate 24; allow more atoms.")
        return stand_in.search(_config, snapshot, indices)

    with pytest.raises(ConfigError, match="no cell fits candidate 24"):
        short(tmp_path / "run", search=failing)
    accepted = state_of(tmp_path / "run").accepted
    assert accepted > 0
    assert len(list(read(tmp_path / "run"))) == accepted


RUN = """
import sys
sys.path.insert(0, {tests!r})
import smax_stand_in as stand_in
from grace_md.smax.generation import generate
from grace_md.smax.run_settings import RunSettings
if __name__ == "__main__":
    outcome = generate(stand_in.settings(), {folder!r}, 100_000, workers={workers}, deterministic={deterministic},
                       resume=True, search=stand_in.slow_search, run=RunSettings(8, 3, 25))
    sys.exit(75 if outcome.status == "stopped" else 0)
"""


@pytest.mark.parametrize(("number", "workers", "deterministic"), [
    (signal.SIGTERM, 1, True), (signal.SIGINT, 2, False), (signal.SIGTERM, 2, True), (signal.SIGKILL, 2, False),
])  # fmt: skip
def test_signals_keep_what_is_accepted(tmp_path: Path, number: int, workers: int, deterministic: bool) -> None:
    folder = tmp_path / "run"
    script = tmp_path / "run.py"
    tests = str(Path(stand_in.__file__).parent)
    script.write_text(RUN.format(tests=tests, folder=str(folder), workers=workers, deterministic=deterministic))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    with subprocess.Popen(
        [sys.executable, str(script)], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        log, end = folder / "metrics.jsonl", time.monotonic() + 60
        while time.monotonic() < end and not (log.exists() and len(log.read_text().splitlines()) >= 12):
            time.sleep(0.01)
        before = state_of(folder).accepted
        process.send_signal(number)
        output, errors = process.communicate(timeout=60)
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 75, errors
        assert "the same command with --resume goes on from here" in output
        assert json.loads((folder / "manifest.json").read_text())["stopped_by"] == signal.Signals(number).name
    after = state_of(folder)
    assert after.accepted >= before
    assert len(list(read(folder))) == after.accepted
    more = after.accepted + 5
    layout = RunSettings(8, 3, 25)
    assert short(folder, more, resume=True, deterministic=deterministic, run=layout).accepted == more
    indices = [atoms.info["smax_index"] for atoms in read(folder)]
    assert len(set(indices)) == more
    if deterministic:
        short(tmp_path / "whole", more, deterministic=True, run=layout)
        assert_same_run(tmp_path / "whole", folder)


def test_time_limit(tmp_path: Path) -> None:
    outcome = short(tmp_path / "run", 10_000, time_limit=0.2, search=stand_in.slow_search)
    assert (outcome.status, outcome.reason) == ("stopped", "time limit")
    assert 0 < outcome.accepted < 10_000
    assert status(tmp_path / "run")["status"] == "stopped"
    seconds = 0.0
    stop = Stop(5.0, clock=lambda: seconds)
    assert not stop.asked()
    seconds = 5.0
    assert stop.asked()


@pytest.mark.parametrize(
    ("text", "seconds"), [("23:30", 84_600), ("0:05:00", 300), ("1-12:00", 129_600), ("100:00", 360_000)]
)
def test_words_for_time_limits(text: str, seconds: int) -> None:
    assert parse_time_limit(text) == seconds


@pytest.mark.parametrize("text", ["90", "1:75", "0:00", "soon", "-1:00", ""])
def test_bad_time_limits(text: str) -> None:
    with pytest.raises(ValueError, match=f"`--time-limit {text}` must be a time such as 23:30"):
        parse_time_limit(text)


def test_refusals(tmp_path: Path) -> None:
    short(tmp_path / "run", 20)
    with pytest.raises(FileExistsError, match=r"holds 20 accepted structures; add --resume .* --force"):
        short(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"another `seed` \(and 1 more\); use the same settings .* --force"):
        short(tmp_path / "run", config=stand_in.settings(seed=2, density={"phi_max": 1.2}), resume=True)
    with pytest.raises(ConfigError, match="was begun without --deterministic; leave it out"):
        short(tmp_path / "run", resume=True, deterministic=True)
    with pytest.raises(ConfigError, match="was begun without --extend"):
        short(tmp_path / "run", resume=True, extend=["other.extxyz"])
    assert short(tmp_path / "run", 30, resume=True, run=RunSettings(4, 2, 7)).accepted == 30  # layout is free
    short(tmp_path / "rounds", 20, deterministic=True)
    with pytest.raises(ConfigError, match=r"another `run\.batch`"):
        short(tmp_path / "rounds", resume=True, deterministic=True, run=RunSettings(4, 3, 25))
    (tmp_path / "rounds/note.txt").write_text("mine")
    assert short(tmp_path / "rounds", 10, force=True).accepted == 10
    assert (tmp_path / "rounds/note.txt").exists()
    assert len(list(read(tmp_path / "rounds"))) == 10
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/manifest.json").write_text("{}")
    with pytest.raises(FileExistsError, match=r"has manifest\.json but no state\.npz"):
        short(tmp_path / "foreign")
    with pytest.raises(ValueError, match="`n` = 0 must be at least 1"):
        short(tmp_path / "none", 0)
    with pytest.raises(ValueError, match="`workers` = 0 must be at least 1"):
        short(tmp_path / "none", workers=0)
    assert not (tmp_path / "none").exists()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    def search(config: Any, snapshot: Any, indices: Any) -> Any:
        with pytest.raises(RuntimeError, match="another process is generating in"):
            short(tmp_path / "run", resume=True)
        return stand_in.search(config, snapshot, indices)

    assert short(tmp_path / "run", 5, search=search).accepted == 5
    assert short(tmp_path / "run", 6, resume=True).accepted == 6


def test_resume_of_nothing_begins(tmp_path: Path) -> None:
    assert short(tmp_path / "run", 12, resume=True).accepted == 12
    assert short(tmp_path / "run", 12, resume=True).status == "complete"  # nothing to do


def test_candidates_come_once_and_none_is_forgotten(tmp_path: Path) -> None:
    seen: list[int] = []

    def search(config: Any, snapshot: Any, indices: Any) -> Any:
        if snapshot is not None:
            seen.extend(indices)
        return stand_in.search(config, snapshot, indices)

    short(tmp_path / "run", 30, search=search)
    short(tmp_path / "run", 60, search=search, resume=True)
    state = state_of(tmp_path / "run")
    assert state.decided + len(state.pending) == state.next_index
    assert (
        not set(range(state.next_index))
        - set(seen)
        - {a.info["smax_index"] for a in read(tmp_path / "run")}
        - {i for i in range(state.next_index) if i % 11 == 5}
    )


def test_layout_is_checked() -> None:
    for name in ("batch", "round_batches", "structures_per_shard"):
        with pytest.raises(ConfigError, match=rf"`run\.{name}` = 0 must be at least 1"):
            RunSettings(**{name: 0}).check()


def test_pool_limits_and_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    seen: dict[str, str | None] = {}

    class Watching(InlineExecutor):
        def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
            seen.update({name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")})
            return super().submit(*args, **kwargs)

    pool = WorkerPool(4, Watching())
    assert pool.submit(int, "5").result() == 5
    assert seen == {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ
    assert WorkerPool(1).limit == 1
    assert WorkerPool(16).limit == 18


def test_the_clock_of_a_task_is_that_of_its_thread() -> None:
    from grace_md.smax.tasks import run_search

    result = run_search(stand_in.slow_search, stand_in.settings(), None, [0])
    assert isinstance(result, Searched)
    assert 0.0 < result.seconds < 0.02  # sleeping costs no processor


def test_command_stops_with_75(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from grace_md.smax.generation import generate

    monkeypatch.setattr(generate, "__kwdefaults__", {**generate.__kwdefaults__, "search": stand_in.search})
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**stand_in.settings().plain(), "run": {"batch": 8}}))
    words = ["smax", "generate", str(file), "-n", "1000000", "-o", str(tmp_path / "run"), "--workers", "1"]
    monkeypatch.setattr("grace_md.smax.stopping.parse_time_limit", lambda _: 0.2)
    assert cli.main([*words, "--time-limit", "0:01"]) == 75
    words[4] = str(state_of(tmp_path / "run").accepted + 3)
    assert cli.main([*words, "--resume"]) == 0
    assert cli.main(words) == 1  # refuses
