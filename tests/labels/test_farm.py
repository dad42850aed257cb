"""The state machine of a farm: claims, outcomes, retries, limits; all in one process."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.calculators.emt import EMT
from ase.io import read, write

from grace_md.cli import main
from grace_md.labels import Farm, Label, LabelFailedError, create_farm
from grace_md.labels import store as store_module
from grace_md.labels.collect import collect
from grace_md.labels.pool import failure_summary
from grace_md.labels.recipes import load_config
from grace_md.labels.records import FullDiskError, RecordWriter, read_outcomes
from grace_md.labels.store import STALE_SECONDS, JobStore
from grace_md.labels.worker import FINISHED, OVER_BUDGET, STOPPED, Limits, Worker, over_budget
from grace_md.strict import ConfigError
from label_tools import calls, copper, make_farm, misbehaving_config, work
from tolerances import EXTXYZ_DIGITS, assert_close


def test_labels_are_those_of_the_calculator_in_the_order_of_the_input(tmp_path: Path) -> None:
    images = copper(7)
    for atoms in images:
        atoms.info["energy"] = 1e6  # an old label: it must not survive
    farm = create_farm(tmp_path / "farm", images, load_config({"recipe": "emt", "batch": 3}))
    assert work(farm) == FINISHED
    summary = collect(farm, tmp_path / "out.extxyz")
    assert (summary.labelled, summary.failed, summary.missing) == (7, 0, 0)
    found = read(tmp_path / "out.extxyz", ":")
    assert [atoms.info["number"] for atoms in found] == list(range(7))
    for old, new in zip(copper(7), found, strict=True):
        work_atoms = new.copy()
        work_atoms.calc = EMT()
        assert_close(new.positions, old.positions, EXTXYZ_DIGITS)
        assert_close(new.get_potential_energy(), work_atoms.get_potential_energy(), EXTXYZ_DIGITS)
        assert_close(new.get_forces(), work_atoms.get_forces(), EXTXYZ_DIGITS)
        assert_close(new.get_stress(), work_atoms.get_stress(), EXTXYZ_DIGITS)
        assert_close(new.info["force_consistent_energy"], new.get_potential_energy(), EXTXYZ_DIGITS)
        assert new.info["label_recipe"] == "emt"
        assert "ase " in new.info["label_versions"]
    assert json.loads((tmp_path / "out.extxyz.json").read_text())["labelled"] == 7


def test_a_finished_farm_is_not_labelled_again(tmp_path: Path) -> None:
    log = tmp_path / "log"
    farm = make_farm(tmp_path / "farm", 6, log=str(log))
    assert work(farm) == FINISHED
    assert work(Farm(tmp_path / "farm")) == FINISHED
    assert sorted(calls(log)) == list(range(6))


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("raise", "ValueError: no basis for this structure"),
        ("nan", "the calculator gave a value of the forces that is not finite"),
        ("unconverged", "the self-consistent field did not converge"),
        ("shape", "forces of shape [3, 3] for 4 atoms"),
    ],
)
def test_a_bad_calculation_is_a_failure_with_its_reason(tmp_path: Path, how: str, reason: str) -> None:
    farm = make_farm(tmp_path / "farm", 10, bad=[2, 7], how=how)
    assert work(farm) == FINISHED
    counts = farm.store.counts()
    assert (counts.done, counts.failed, counts.rejected) == (8, 2, 0)
    assert [(job, item) for job, item, *_ in farm.store.reasons()] == [(1, 2), (2, 2)]
    assert all(reason in text for *_, text in farm.store.reasons())
    assert failure_summary(farm)[0].startswith("2 x ")
    collect(farm, tmp_path / "out.extxyz")
    table = (tmp_path / "out.extxyz.failures.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in table[1:]] == ["2", "7"]
    assert reason.replace('"', "") in table[1].replace('"', "")


def test_retry_labels_only_what_failed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    farm = make_farm(tmp_path / "farm", 10, log=str(log), bad=[2, 7])
    work(farm)
    log.unlink()
    assert farm.store.retry() == 2
    recipe = tmp_path / "farm/recipe.json"
    recipe.write_text(recipe.read_text().replace('"raise"', '"none"').replace("[\n    2,\n    7\n   ]", "[]"))
    assert work(Farm(tmp_path / "farm")) == FINISHED
    assert sorted(calls(log)) == [2, 7]
    assert farm.store.counts().done == 10
    assert farm.store.reasons() == []
    assert farm.store.retry() == 0


def test_many_failures_stop_early_and_say_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    farm = make_farm(tmp_path / "farm", 60, bad=list(range(60)))
    assert work(farm, 0.2) == OVER_BUDGET
    assert farm.store.counts().failed == 5  # more than 0.2 of 20
    assert main(["label", "run", str(tmp_path / "farm")]) == 1
    said = capsys.readouterr()
    assert "5 x ValueError: no basis" in said.out
    assert "--max-failures" in said.err
    assert farm.store.counts().failed == 5


def test_a_few_failures_are_within_the_budget(tmp_path: Path) -> None:
    farm = make_farm(tmp_path / "farm", 40, bad=[1, 9, 17, 30])
    assert work(farm, 0.2) == FINISHED
    counts = farm.store.counts()
    assert not over_budget(counts, 0.1)
    assert over_budget(counts, 0.09)


def test_limits_reject_without_counting_as_failures(tmp_path: Path) -> None:
    images = copper(6)
    images[4].positions[1] = images[4].positions[0] + [0.0, 0.0, 1.0]
    images[5].positions[1] += [0.4, 0.4, 0.0]
    config = load_config({"recipe": "emt", "accept": {"min_distance": 0.5, "max_force": 2.0}})
    farm = create_farm(tmp_path / "farm", images, config)
    assert work(farm, 0.0) == FINISHED
    counts = farm.store.counts()
    assert (counts.done, counts.failed, counts.rejected) == (4, 0, 2)
    reasons = [text for *_, text in farm.store.reasons()]
    assert "accept.min_distance" in reasons[0]
    assert "accept.max_force" in reasons[1]


def test_a_stopped_worker_gives_its_job_back(tmp_path: Path) -> None:
    log = tmp_path / "log"
    farm = make_farm(tmp_path / "farm", 10, log=str(log))
    worker = Worker(farm, limits=Limits(1.0))
    worker.should_stop = lambda: len(calls(log)) >= 3
    assert worker.run() == STOPPED
    counts = farm.store.counts()
    assert (counts.done, counts.waiting, counts.claimed) == (3, 2, 0)
    assert work(farm) == FINISHED
    assert sorted(calls(log)) == list(range(10))


def test_a_time_limit_counts_the_next_structure(tmp_path: Path) -> None:
    farm = make_farm(tmp_path / "farm", 10, seconds=0.05)
    worker = Worker(farm, limits=Limits(1.0, deadline=0.0))  # long ago
    assert worker.run() == STOPPED
    assert farm.store.counts().done == 0


def test_claims_of_other_hosts_expire_without_heartbeat(tmp_path: Path) -> None:
    make_farm(tmp_path / "farm", 5)
    now = [1e9]
    mine = JobStore(tmp_path / "farm/farm.sqlite", clock=lambda: now[0])
    other = JobStore(tmp_path / "farm/farm.sqlite", clock=lambda: now[0])
    other._host = "elsewhere"
    claim = other.claim()
    assert claim is not None
    assert mine.claim() is None
    now[0] += 0.9 * STALE_SECONDS
    assert other.heartbeat(claim)
    now[0] += 0.9 * STALE_SECONDS
    assert mine.claim() is None
    now[0] += 0.2 * STALE_SECONDS
    second = mine.claim()
    assert second is not None
    assert (second.job, second.attempt) == (1, 2)
    assert not other.heartbeat(claim)  # the first worker learns that it lost the job
    assert not other.report(claim, [], "finished")
    assert mine.report(second, [], "waiting")


def test_a_dead_process_of_this_host_holds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    farm = make_farm(tmp_path / "farm", 5)
    farm.store._process = "1 0"  # process 1 exists, but started at another time
    assert farm.store.claim() is not None
    assert JobStore(farm.store.path).claim() is not None
    monkeypatch.setattr(store_module, "process_identity", lambda pid: None)
    assert JobStore(farm.store.path).claim() is not None


def test_the_first_label_of_a_structure_counts(tmp_path: Path) -> None:
    for attempt, energy in ((1, -1.0), (2, -2.0)):
        writer = RecordWriter(tmp_path, attempt, 0, {"recipe": "emt"})
        writer.done(0, Label(energy, np.zeros((1, 3))), 0.1)
        writer.close()
    outcomes = read_outcomes(tmp_path, 0)
    assert list(outcomes) == [0]
    assert outcomes[0].label is not None
    assert outcomes[0].label.energy == -1.0


def test_half_written_lines_are_passed_over(tmp_path: Path) -> None:
    log = tmp_path / "log"
    farm = make_farm(tmp_path / "farm", 4, 4, log=str(log))
    work(farm)
    path = farm.job_folder(1) / "labels.0001.jsonl"
    content = path.read_bytes()
    path.write_bytes(content[:-30])  # the last label was torn
    os.unlink(farm.folder / "farm.sqlite")
    JobStore.create(farm.folder / "farm.sqlite", [4])  # and the database forgot everything
    log.unlink()
    assert work(Farm(farm.folder)) == FINISHED
    assert calls(log) == [3]
    assert collect(farm, tmp_path / "out.extxyz").labelled == 4


def test_a_full_disk_keeps_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    farm = make_farm(tmp_path / "farm", 6, 6, log=str(log))
    plain_write, written = os.write, [0]

    def full(handle: int, data: bytes) -> int:
        if b'"labelled"' in data:
            written[0] += 1
        if written[0] == 3:  # half a line fits
            if not data.startswith(b"{"):
                raise OSError(errno.ENOSPC, "No space left on device")
            return plain_write(handle, data[: len(data) // 2])
        return plain_write(handle, data)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(FullDiskError, match="is full; every label written so far is kept"):
        work(farm)
    monkeypatch.undo()
    lines = (farm.job_folder(1) / "labels.0001.jsonl").read_bytes().splitlines()
    assert all(json.loads(line) for line in lines)  # the half line is gone
    assert farm.store.counts().claimed == 0
    log.unlink()
    assert work(farm) == FINISHED
    assert calls(log) == [2, 3, 4, 5]
    assert collect(farm, tmp_path / "out.extxyz").labelled == 6


def test_a_database_on_a_full_disk_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    farm = make_farm(tmp_path / "farm", 2)

    def full(*_: Any, **__: Any) -> None:
        raise store_module.sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(store_module.sqlite3, "connect", full)
    with pytest.raises(FullDiskError, match="free some space"):
        farm.store.counts()


def test_making_a_farm_refuses_to_overwrite(tmp_path: Path) -> None:
    make_farm(tmp_path / "farm", 2)
    with pytest.raises(FileExistsError, match="--force"):
        make_farm(tmp_path / "farm", 2)
    create_farm(tmp_path / "farm", copper(3), load_config("emt"), force=True)
    assert Farm(tmp_path / "farm").store.counts().total == 3
    (tmp_path / "other").mkdir()
    (tmp_path / "other/thesis.tex").write_text("important")
    with pytest.raises(FileExistsError, match="other files"):
        make_farm(tmp_path / "other", 2)


def test_an_interrupted_start_is_made_anew(tmp_path: Path) -> None:
    def broken() -> Any:
        yield from copper(7)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        create_farm(tmp_path / "farm", broken(), misbehaving_config(2))
    with pytest.raises(FileNotFoundError, match="label init"):
        Farm(tmp_path / "farm")
    farm = make_farm(tmp_path / "farm", 3, 2)
    assert farm.store.counts().total == 3
    assert not farm.job_folder(3).exists()


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"recipe": "chgnet"}, "did you mean `chgnet-zbl`"),
        ({"recipe": "gpaw", "settings": {"cutof": 500}}, "did you mean `cutoff`"),
        ({"recipe": "emt", "calculator": {"path": "a.B"}}, "either `recipe`"),
        ({}, "either `recipe`"),
        ({"calculator": {"path": "ase.calculators.emt.ETM"}}, "cannot be imported"),
        ({"recipe": "emt", "batch": 0}, "`batch` = 0"),
        ({"recipe": "emt", "accept": {"max_forces": 1.0}}, "did you mean `max_force`"),
    ],
)
def test_wrong_recipes_are_refused_before_any_work(tmp_path: Path, mapping: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, ValueError), match=message):
        create_farm(tmp_path / "farm", copper(1), load_config(mapping))


def test_structures_that_no_recipe_can_label_are_named(tmp_path: Path) -> None:
    images = copper(3)
    images[1].positions[0, 0] = np.nan
    with pytest.raises(ValueError, match=r"structure 1 \(Cu4\) has positions or a cell that are not finite"):
        create_farm(tmp_path / "farm", images, load_config("emt"))
    with pytest.raises(ValueError, match="no structures"):
        create_farm(tmp_path / "empty", [], load_config("emt"))


def test_a_label_needs_the_right_shape() -> None:
    label = Label(1.0, np.zeros((2, 3)))
    label.check(2, need_stress=False)
    with pytest.raises(LabelFailedError, match="no stress"):
        label.check(2, need_stress=True)
    with pytest.raises(LabelFailedError, match="shape"):
        label.check(3, need_stress=False)
    with pytest.raises(LabelFailedError, match="free_energy"):
        Label(1.0, np.zeros((2, 3)), free_energy=float("inf")).check(2, need_stress=False)


def test_the_command_from_init_to_collect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "in.extxyz", copper(8), format="extxyz")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("calculator: {path: ase.calculators.emt.EMT, kwargs: {}}\nbatch: 2\n")
    farm, out = str(tmp_path / "farm"), str(tmp_path / "out.extxyz")
    assert main(["label", "init", f"{tmp_path}/in.extxyz@2:8", "--recipe", str(recipe), "-o", farm]) == 0
    assert main(["label", "run", farm]) == 0
    assert main(["label", "status", farm]) == 0
    assert main(["label", "collect", farm, "-o", out]) == 0
    assert main(["label", "collect", farm, "-o", out]) == 1  # exists
    said = capsys.readouterr()
    assert "6: 6 labelled, 0 failed" in said.out
    assert "--force" in said.err
    assert [atoms.info["number"] for atoms in read(out, ":")] == list(range(2, 8))
