"""Two processes are one with the doubled batch; decisions are common."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fit_tools import metrics, quiet, tiny, write_config
from grace_md.training.checkpoint import load_checkpoint
from grace_md.training.distributed import Processes
from grace_md.training.run import train

# Sums in another order, in double precision, through some tens of steps of Adam.
PARAMETERS = 1e-7


def torchrun(*arguments: str, processes: int = 2) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--master-port=0"]
    command += ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, "-m", "grace_md.cli", "train", *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_two_processes_are_one_with_the_doubled_batch(tmp_path: Path) -> None:
    # 26 structures: the last step of an epoch has 2 of 8, all of them on one of the two processes.
    changes = {"n_train": 26, "n_valid": 7}
    fit = {"precision": "fp64", "epochs": 2, "memory_probe": False}
    train(tiny(tmp_path, "one", fit={**fit, "batch": 8}, **changes), say=quiet)
    path = write_config(tmp_path, "two", fit={**fit, "batch": 4}, **changes)
    first = torchrun(str(path), "--until", "1")
    assert first.returncode != 0, "stopped before the end"
    assert "stopped" in first.stdout, first.stderr
    done = torchrun(str(path))
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("complete: ") == 1, "only the first process speaks"
    assert json.loads((tmp_path / "two/run.json").read_text())["processes"] == 2
    one, two = (load_checkpoint(tmp_path / name / "checkpoints/last.npz") for name in ("one", "two"))
    for group in ("model", "ema"):
        for key, values in one.groups[group].items():
            np.testing.assert_allclose(two.groups[group][key], values, rtol=0, atol=PARAMETERS, err_msg=key)
    for a, b in zip(metrics(tmp_path / "one"), metrics(tmp_path / "two"), strict=True):
        assert a.keys() == b.keys()
        for key, value in a.items():
            assert b[key] == pytest.approx(value, rel=1e-6), key


def test_an_error_of_the_first_process_ends_all(tmp_path: Path) -> None:
    path = write_config(tmp_path, data={"train": str(tmp_path / "absent.extxyz")})
    done = torchrun(str(path))
    assert done.returncode != 0
    assert done.stderr.count("There is no data file") >= 1


def test_one_process_needs_no_group() -> None:
    with Processes() as processes:
        assert processes.first
        assert processes.decide(lambda: 3) == 3
        assert processes.any(True)
        values = torch.ones(2)
        assert processes.sum_(values) is values
        processes.sum_gradients([])
        with pytest.raises(ValueError, match="mine"):
            processes.decide(lambda: (_ for _ in ()).throw(ValueError("mine")))
