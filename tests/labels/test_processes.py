"""Farms and processes: nothing is lost, nothing is labelled twice, whatever happens to a worker."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from ase.io import read

from grace_md.labels import Farm, label_jobs
from grace_md.labels.collect import collect
from grace_md.labels.pool import run_farm
from grace_md.labels.store import JobStore
from grace_md.labels.worker import FINISHED, Limits
from label_tools import calls, make_farm, work

TESTS = Path(__file__).resolve().parents[1]
PATIENCE = 60.0  # s, before a process that should do something is given up


def start_run(farm: Path, *options: str) -> subprocess.Popen[bytes]:
    """`grace-md label run` as a process group of its own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "grace_md.cli", "label", "run", str(farm), *options]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )


def wait_for_calls(log: Path, count: int) -> None:
    begin = time.monotonic()
    while len(calls(log)) < count:
        assert time.monotonic() - begin < PATIENCE, f"only {len(calls(log))} of {count} calculations were begun"
        time.sleep(0.02)


def _claim_all(path: Path, results: multiprocessing.SimpleQueue[list[int]]) -> None:
    store, found = JobStore(path), []
    while (claim := store.claim()) is not None:
        found.append(claim.job)
        store.report(claim, [], "finished")
    results.put(found)


def test_several_processes_claim_every_job_once(tmp_path: Path) -> None:
    farm = make_farm(tmp_path / "farm", 60, 1)
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    processes = [context.Process(target=_claim_all, args=(farm.store.path, results)) for _ in range(4)]
    for process in processes:
        process.start()
    claimed = [job for _ in processes for job in results.get()]
    for process in processes:
        process.join(PATIENCE)
    assert Counter(claimed) == Counter(range(1, 61))


def test_two_workers_share_a_farm(tmp_path: Path) -> None:
    log = tmp_path / "log"
    make_farm(tmp_path / "farm", 24, 2, log=str(log), seconds=0.05)
    assert run_farm(tmp_path / "farm", workers=2, limits=Limits(1.0)) == FINISHED
    assert sorted(calls(log)) == list(range(24))
    processes = {line.split()[1] for line in log.read_text().splitlines()}
    assert str(os.getpid()) not in processes


def test_any_executor_can_label(tmp_path: Path) -> None:
    log = tmp_path / "log"
    make_farm(tmp_path / "farm", 8, 1, log=str(log))
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as executor:
        codes = [executor.submit(label_jobs, str(tmp_path / "farm")).result() for _ in range(2)]
    assert codes == [FINISHED, FINISHED]
    assert sorted(calls(log)) == list(range(8))


@pytest.mark.parametrize("victim", ["group", "parent"])
def test_kill_9_loses_and_doubles_nothing(tmp_path: Path, victim: str) -> None:
    log = tmp_path / "log"
    make_farm(tmp_path / "farm", 20, 5, log=str(log), seconds=0.1)
    process = start_run(tmp_path / "farm")
    wait_for_calls(log, 7)
    if victim == "group":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()  # its worker notices after the structure in progress
    process.wait(PATIENCE)
    if victim == "parent":
        settle = time.monotonic()
        seen = -1
        while seen != len(calls(log)):
            seen = len(calls(log))
            time.sleep(0.5)
            assert time.monotonic() - settle < PATIENCE
        assert seen < 20
    farm = Farm(tmp_path / "farm")
    labelled_before = sum(len(farm.outcomes(job, 0)) for job, *_ in farm.store.jobs())
    assert labelled_before >= 6
    begun_before = len(calls(log))
    assert work(farm) == FINISHED
    again = Counter(calls(log))
    assert set(again) == set(range(20))
    assert len(calls(log)) - begun_before == 20 - labelled_before  # nothing that had a label was calculated again
    assert collect(farm, tmp_path / "out.extxyz").labelled == 20
    assert [atoms.info["number"] for atoms in read(tmp_path / "out.extxyz", ":")] == list(range(20))


def test_sigterm_finishes_the_structure_and_exits_75(tmp_path: Path) -> None:
    log = tmp_path / "log"
    make_farm(tmp_path / "farm", 20, 20, log=str(log), seconds=0.2)
    process = start_run(tmp_path / "farm")
    wait_for_calls(log, 2)
    process.terminate()
    assert process.wait(PATIENCE) == 75
    farm = Farm(tmp_path / "farm")
    counts = farm.store.counts()
    assert counts.done == len(calls(log))  # what was begun was finished
    assert 2 <= counts.done < 20
    assert (counts.claimed, counts.waiting) == (0, 1)


def test_a_structure_that_kills_its_worker_fails_and_the_rest_is_labelled(tmp_path: Path) -> None:
    log = tmp_path / "log"
    make_farm(tmp_path / "farm", 6, 3, log=str(log), bad=[1], how="die")
    process = start_run(tmp_path / "farm", "--max-failures", "1")
    assert process.wait(PATIENCE) == 0
    farm = Farm(tmp_path / "farm")
    counts = farm.store.counts()
    assert (counts.done, counts.failed) == (5, 1)
    assert "died 3 times" in farm.store.reasons()[0][3]
    assert Counter(calls(log)) == {0: 1, 1: 3, 2: 1, 3: 1, 4: 1, 5: 1}
