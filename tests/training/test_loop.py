"""The loop: decisions, stops, errors in one sentence, and what is left behind."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import torch

from fit_tools import metrics, quiet, tiny
from grace_md.strict import ConfigError
from grace_md.training import memory
from grace_md.training.config import RunConfig
from grace_md.training.loop import DivergedError, Trainer
from grace_md.training.run import train


def test_a_finished_run_is_not_overwritten(tmp_path: Path) -> None:
    config = tiny(tmp_path, fit={"epochs": 1})
    train(config, say=quiet)
    before = (tmp_path / "run" / "model.npz").read_bytes()
    with pytest.raises(FileExistsError, match=r"holds a finished run \(complete\); choose another `output.dir`"):
        train(config, say=quiet)
    assert (tmp_path / "run" / "model.npz").read_bytes() == before
    train(config, force=True, say=quiet)
    assert (tmp_path / "run" / "model.npz").read_bytes() == before  # the same seed
    (tmp_path / "run" / "run.json").unlink()
    with pytest.raises(FileExistsError, match=r"has metrics.jsonl but no run.json"):
        train(config, say=quiet)


def test_dry_run_trains_nothing(tmp_path: Path) -> None:
    lines: list[str] = []
    outcome = train(tiny(tmp_path), dry_run=True, say=lines.append)
    assert outcome.status == "dry run"
    text = "\n".join(lines)
    assert "trained parameters" in text
    assert "3 steps per epoch; largest batch 8 structures" in text
    assert "dry run: 9 steps would be made" in text
    assert not (tmp_path / "run" / "run.json").exists()
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_the_estimate_of_memory_is_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a small batch keeps per bond tells what the largest one needs."""
    measured: list[int] = []
    monkeypatch.setattr(memory, "run_probe", lambda step, _what: measured.append(memory.saved_bytes(step)))
    train(tiny(tmp_path, fit={"batch": 24, "epochs": 1}), say=quiet)
    estimate = json.loads((tmp_path / "run/run.json").read_text())["estimated_bytes"]
    assert 0.7 < estimate / measured[0] < 1.5


def test_out_of_memory_names_the_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda _device: 1000)
    with pytest.raises(ConfigError, match=r"the largest batch \(8 structures, .* free; lower `fit.max_bonds`"):
        train(tiny(tmp_path), say=quiet)

    def fail() -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    with pytest.raises(ConfigError, match=r"does not fit into memory; lower `fit.max_bonds` or `fit.batch`"):
        memory.run_probe(fail, "8 structures")

    def other() -> None:
        raise RuntimeError("another problem")

    with pytest.raises(RuntimeError, match="another problem"):
        memory.run_probe(other, "8 structures")


def test_a_loss_that_is_no_number_stops_and_leaves_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny(tmp_path, fit={"memory_probe": False})
    original = Trainer.forward_backward

    def poisoned(self: Trainer, *arguments: Any) -> torch.Tensor:
        parts = original(self, *arguments)
        return parts * float("nan") if self.progress.step == 4 else parts

    monkeypatch.setattr(Trainer, "forward_backward", poisoned)
    with pytest.raises(DivergedError, match=r"not a number in epoch 2, step 2 .*diverged_batch.extxyz.*lower `fit.lr`"):
        train(config, say=quiet)
    batch = ase.io.read(tmp_path / "run" / "diverged_batch.extxyz", index=":")
    assert len(batch) == 8
    assert "structure" in batch[0].info["where"]
    assert np.isfinite(batch[0].get_potential_energy())
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "failed"
    monkeypatch.undo()
    assert train(config, say=quiet).status == "complete"  # from the checkpoint of epoch 1
    assert [r["epoch"] for r in metrics(tmp_path / "run")] == [1, 2, 3]


def test_early_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([3.0, 2.0, 2.5, 2.1, 1.0])
    monkeypatch.setattr(Trainer, "evaluate", lambda *_: (next(losses), {}))
    outcome = train(tiny(tmp_path, fit={"epochs": 9, "patience": 2}), say=quiet)
    assert outcome.status == "no longer improving"
    assert outcome.best["epoch"] == 2
    assert [r["best"] for r in metrics(tmp_path / "run")] == [True, True, False, False]
    with pytest.raises(FileExistsError, match="no longer improving"):
        train(tiny(tmp_path, fit={"epochs": 9, "patience": 2}), say=quiet)


def test_after_a_switch_of_weights_the_best_is_found_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([1.0, 2.0, 30.0, 40.0])
    monkeypatch.setattr(Trainer, "evaluate", lambda *_: (next(losses), {}))
    switch = {"at": 0.6, "energy": 128, "forces": 32, "stress": 32}
    outcome = train(tiny(tmp_path, loss={"switch": switch}, fit={"epochs": 4}), say=quiet)
    assert outcome.best["epoch"] == 3
    assert outcome.best["weights"] == [128, 32, 32]


def test_validation_uses_the_average_and_leaves_the_parameters(tmp_path: Path) -> None:
    values: list[torch.Tensor] = []
    original = Trainer.evaluate

    def spy(self: Trainer, *arguments: Any) -> Any:
        values.append(self.trainable.parameters["chem_embedding"].detach().clone())
        values.append(self.ema.average["chem_embedding"].clone())
        return original(self, *arguments)

    Trainer.evaluate = spy
    try:
        train(tiny(tmp_path, fit={"epochs": 1}), say=quiet)
    finally:
        Trainer.evaluate = original
    assert torch.equal(values[0], values[1])


def test_settings_that_contradict_the_data(tmp_path: Path) -> None:
    tiny(tmp_path)
    structures = ase.io.read(tmp_path / "train.extxyz", index=":")
    for atoms in structures:
        atoms.calc.results.pop("stress")
    ase.io.write(tmp_path / "train.extxyz", structures)
    with pytest.raises(ConfigError, match=r"`loss.stress` = 128, but no structure .* a stress; set `loss.stress: 0`"):
        train(tiny(tmp_path), say=quiet)
    assert train(tiny(tmp_path, loss={"stress": 0}, fit={"epochs": 1}), say=quiet).status == "complete"


def test_tensorboard_is_optional(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"needs the package tensorboard; install it with"):
        train(tiny(tmp_path, output={"tensorboard": True}), say=quiet)


def test_tensorboard_gets_every_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[str, float, int]] = []

    class Writer:
        def __init__(self, folder: str, purge_step: int) -> None:
            assert folder == str(tmp_path / "run" / "tensorboard")
            assert purge_step == 0

        def add_scalar(self, *arguments: Any) -> None:
            written.append(arguments)

        def close(self) -> None:
            written.append(("closed", 0.0, 0))

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    train(tiny(tmp_path, fit={"epochs": 2}, output={"tensorboard": True}), say=quiet)
    losses = [(value, step) for name, value, step in written if name == "valid_loss"]
    assert losses == [(r["valid_loss"], r["step"]) for r in metrics(tmp_path / "run")]
    assert written[-1][0] == "closed"


def test_a_gpu_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"`fit.device` = 'cuda', but torch sees no GPU"):
        train(tiny(tmp_path, fit={"device": "cuda"}), say=quiet)
    with pytest.raises(ConfigError, match=r"must be auto, cpu, cuda or cuda:N"):
        train(tiny(tmp_path, fit={"device": "gpu"}), say=quiet)


def test_a_share_of_the_training_set_validates_where_no_file_does(tmp_path: Path) -> None:
    mapping = tiny(tmp_path).plain()
    mapping["data"] = {"train": str(tmp_path / "train.extxyz"), "split": 0.25, "check": "off"}
    mapping["fit"]["epochs"] = 1
    lines: list[str] = []
    assert train(RunConfig.of(mapping), say=lines.append).best["epoch"] == 1
    counts = lines[0].split()
    assert int(counts[2]) + int(counts[8].rstrip(";")) == 24


def test_budgets_of_bonds_bound_every_batch(tmp_path: Path) -> None:
    config = tiny(tmp_path, fit={"epochs": 1, "batch": 100, "max_bonds": 900, "buckets": 2})
    lines: list[str] = []
    train(config, say=lines.append)
    (line,) = [line for line in lines if "largest batch" in line]
    bonds = int(line.split(" bonds")[0].split()[-1].replace(",", ""))
    assert 400 < bonds <= 900
