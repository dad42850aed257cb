"""An interrupted run goes on exactly: bit by bit on the CPU."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fit_tools import TWO_LAYERS, assert_same_arrays, metrics, quiet, tiny, write_config
from grace_md import cli
from grace_md.strict import ConfigError
from grace_md.training.checkpoint import CheckpointError
from grace_md.training.loop import Trainer
from grace_md.training.run import train


def assert_same_run(first: Path, second: Path) -> None:
    assert_same_arrays(first / "checkpoints" / "last.npz", second / "checkpoints" / "last.npz")
    assert_same_arrays(first / "model.npz", second / "model.npz")
    assert metrics(first) == metrics(second)


@pytest.mark.parametrize("sizes", [{}, {**TWO_LAYERS, "cutoffs": 4.0}], ids=["1L", "2L"])
def test_ten_epochs_are_five_and_five(tmp_path: Path, sizes: dict[str, Any]) -> None:
    fit = {"epochs": 10, "warmup_steps": 2}
    model = sizes or {"max_order": 3}
    train(tiny(tmp_path, "whole", n_train=16, fit=fit, model=model), say=quiet)
    halves = tiny(tmp_path, "halves", n_train=16, fit=fit, model=model)
    assert train(halves, until=5, say=quiet).status == "stopped"
    assert [r["epoch"] for r in metrics(tmp_path / "halves")] == [1, 2, 3, 4, 5]
    assert train(halves, say=quiet).status == "complete"
    assert_same_run(tmp_path / "whole", tmp_path / "halves")


def test_sigterm_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    changes = {"n_train": 48, "fit": {"epochs": 3, "batch": 4, "ema": 0.9, "memory_probe": False}}
    train(tiny(tmp_path, "whole", **changes), say=quiet)
    path = write_config(tmp_path, "broken", output={"log_steps": 1, "dir": str(tmp_path / "broken")}, **changes)
    command = [sys.executable, "-m", "grace_md.cli", "train", str(path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        log = tmp_path / "broken" / "metrics.jsonl"
        end = time.monotonic() + 120
        while time.monotonic() < end and not (log.exists() and len(log.read_text().splitlines()) >= 16):
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=120)
    assert process.returncode == 75, errors
    assert "stopped; the same command goes on from here" in output
    record = json.loads((tmp_path / "broken" / "run.json").read_text())
    assert record["status"] == "stopped"
    assert record["step"] % 12, "the signal came between two epochs; it should come within one"
    assert 12 < record["step"] < 36
    again = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert again.returncode == 0, again.stderr
    assert f"going on after step {record['step']} of 36" in again.stdout
    assert_same_arrays(tmp_path / "whole/checkpoints/last.npz", tmp_path / "broken/checkpoints/last.npz")
    assert_same_arrays(tmp_path / "whole/model.npz", tmp_path / "broken/model.npz")
    whole = [r for r in metrics(tmp_path / "whole") if "epoch" in r]
    assert whole == [r for r in metrics(tmp_path / "broken") if "epoch" in r]


@pytest.mark.parametrize("stop_at", [3, 5, 6])
def test_every_place_of_a_checkpoint_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int) -> None:
    """In the middle of an epoch, before its last step, and after its last step but before the validation."""
    train(tiny(tmp_path, "whole"), say=quiet)
    original = Trainer._step

    def step(self: Trainer, batch: Any, labels: Any) -> bool:
        self.stop_asked = self.progress.step == stop_at - 1
        return original(self, batch, labels)

    monkeypatch.setattr(Trainer, "_step", step)
    config = tiny(tmp_path, "broken")
    assert train(config, say=quiet).status == "stopped"
    monkeypatch.undo()
    assert train(config, say=quiet).status == "complete"
    assert_same_run(tmp_path / "whole", tmp_path / "broken")


def test_checkpoints_by_time_and_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tiny(tmp_path, "whole"), say=quiet)
    original = Trainer._step

    def step(self: Trainer, batch: Any, labels: Any) -> bool:
        if self.progress.step == 5:
            raise MemoryError("killed")
        return original(self, batch, labels)

    monkeypatch.setattr(Trainer, "_step", step)
    config = tiny(tmp_path, "broken", output={"checkpoint_minutes": 0.0, "log_steps": 1})
    with pytest.raises(MemoryError):
        train(config, say=quiet)
    monkeypatch.undo()
    lines: list[str] = []
    train(config, say=lines.append)
    assert "going on after step 5 of 9" in lines
    assert_same_arrays(tmp_path / "whole/checkpoints/last.npz", tmp_path / "broken/checkpoints/last.npz")
    steps = [r["step"] for r in metrics(tmp_path / "broken") if "epoch" not in r]
    assert steps == list(range(1, 10))  # none twice


def test_other_settings_are_refused(tmp_path: Path) -> None:
    train(tiny(tmp_path), until=1, say=quiet)
    with pytest.raises(ConfigError, match=r"interrupted run with another `fit.lr` \(and 1 more\); use the same"):
        train(tiny(tmp_path, fit={"lr": 1e-3, "seed": 5}), say=quiet)
    with pytest.raises(ConfigError, match=r"interrupted run with another `model.n_rad`"):
        train(tiny(tmp_path, model={"n_rad": 4}), say=quiet)
    outcome = train(tiny(tmp_path, output={"checkpoint_minutes": 3.0}, fit={"patience": 5}), say=quiet)
    assert outcome.status == "complete"


def test_a_finished_run_can_be_extended(tmp_path: Path) -> None:
    train(tiny(tmp_path, fit={"epochs": 1}), say=quiet)
    lines: list[str] = []
    assert train(tiny(tmp_path, fit={"epochs": 2}), say=lines.append).status == "complete"
    assert "going on after step 3 of 6" in lines


def test_a_checkpoint_of_another_architecture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tiny(tmp_path), until=1, say=quiet)
    train(tiny(tmp_path, "other", model={"n_rad": 4}), until=1, say=quiet)
    foreign = (tmp_path / "other/checkpoints/last.npz").read_bytes()
    (tmp_path / "run/checkpoints/last.npz").write_bytes(foreign)
    with pytest.raises(CheckpointError, match=r"of another architecture: parameter \w+ has the shape"):
        train(tiny(tmp_path), say=quiet)
    path = write_config(tmp_path)
    assert cli.main(["train", str(path)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 + error.count("elapsed")
    assert "another architecture" in error
