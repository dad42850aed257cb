"""Checkpoints: complete or not at all, plain arrays, one sentence for what does not fit."""

from __future__ import annotations

import errno
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from grace_md.training import checkpoint as module
from grace_md.training.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from grace_md.weights import write_npz


def example(value: float = 1.0) -> Checkpoint:
    groups = {
        "model": {"a_W0": np.full((2, 3), value, dtype=np.float32), "shift_values": np.full(2, value)},
        "rng": {"torch": np.arange(5, dtype=np.uint8)},
        "optimiser": {"step/a_W0": np.array(7.0, dtype=np.float32)},
    }
    return Checkpoint(groups, {"elements": ["O", "Si"], "progress": {"step": 3, "best": {"loss": 0.1 + 0.2}}})


def test_round_trip_is_exact(tmp_path: Path) -> None:
    path = tmp_path / "last.npz"
    save_checkpoint(path, example())
    found = load_checkpoint(path)
    for group, arrays in example().groups.items():
        for name, values in arrays.items():
            assert found.groups[group][name].dtype == values.dtype
            np.testing.assert_array_equal(found.groups[group][name], values)
            assert found.groups[group][name].shape == values.shape
    assert found.meta["progress"] == {"step": 3, "best": {"loss": 0.1 + 0.2}}
    assert all(name.endswith(".npy") for name in zipfile.ZipFile(path).namelist())
    np.load(path, allow_pickle=False)["model/a_W0"]  # no objects inside


@pytest.mark.parametrize("where", ["write", "fsync"])
def test_a_full_disk_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    path = tmp_path / "last.npz"
    save_checkpoint(path, example(1.0))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if where == "write":
        monkeypatch.setattr(module, "_write_archive", full)
    else:
        monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match=r"No space left on device\); the earlier one is kept: free some space"):
        save_checkpoint(path, example(2.0))
    monkeypatch.undo()
    assert load_checkpoint(path).groups["model"]["a_W0"][0, 0] == 1.0
    assert [p.name for p in tmp_path.iterdir()] == ["last.npz"]


def test_a_real_full_disk(tmp_path: Path) -> None:
    """/dev/full refuses every write; the archive is written through it."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    with pytest.raises(OSError, match="No space left"), open("/dev/full", "wb", buffering=0) as stream:
        module._write_archive(stream, {"a": np.zeros(10)})
    with pytest.raises(CheckpointError, match="could not be written"):
        save_checkpoint(tmp_path / "absent" / "last.npz", example())


def test_another_architecture_is_one_sentence(tmp_path: Path) -> None:
    found = example()
    found.require_same_model({"a_W0": (2, 3), "shift_values": (2,)}, ["O", "Si"], tmp_path)
    with pytest.raises(CheckpointError, match=r"parameter a_W0 has the shape \(2, 3\) there and \(2, 4\) here"):
        found.require_same_model({"a_W0": (2, 4), "shift_values": (2,)}, ["O", "Si"], tmp_path)
    with pytest.raises(CheckpointError, match=r"parameter b has the shape none there and \(1,\) here"):
        found.require_same_model({"a_W0": (2, 3), "shift_values": (2,), "b": (1,)}, ["O", "Si"], tmp_path)
    with pytest.raises(CheckpointError, match="of a model for O Si, the run file makes one for O"):
        found.require_same_model({}, ["O"], tmp_path)


def test_other_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.npz"
    write_npz(path, {"a": np.zeros(1)})
    with pytest.raises(CheckpointError, match="not a checkpoint of a training run"):
        load_checkpoint(path)
    monkeypatch.setattr(module, "FORMAT", 99)
    save_checkpoint(path, example())
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="checkpoint format 99, this version reads 1"):
        load_checkpoint(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match="not a complete"):
        load_checkpoint(path)
