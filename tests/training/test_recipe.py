"""The run files of examples/train are valid, and the ten-line one trains."""

from __future__ import annotations

from pathlib import Path

import ase.io
import pytest

from fit_tools import ONE_LAYER
from grace_md import cli
from grace_md.training.config import load_config
from grace_md.training.cutoffs import element_cutoffs
from labelled_sets import alloys

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "train"

pytest.importorskip("yaml")


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda p: p.stem)
def test_run_files_are_valid(path: Path) -> None:
    config = load_config(path)
    assert config.output.dir


def test_the_short_one_is_short() -> None:
    lines = [line for line in (EXAMPLES / "first_fit.yaml").read_text().splitlines() if not line.startswith("#")]
    assert len(lines) <= 10


def test_the_starter_recipe_is_that_of_the_shipped_model() -> None:
    config = load_config(EXAMPLES / "lava9.yaml")
    assert config.fit.epochs == 38
    assert config.fit.batch == 16
    cutoffs = element_cutoffs(config.model.cutoffs, ["Al", "Ca", "K", "Si"])
    assert cutoffs == {"Al": 6.0, "Ca": 6.1, "K": 7.0, "Si": 5.5}
    assert config.model.sizes() == {
        "preset": "1L-small", "lmax": 3, "n_rad": 16, "width": 24, "n_densities": 8, "embedding": 32
    }  # fmt: skip


def test_the_short_one_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ase.io.write(tmp_path / "train.extxyz", alloys(40))
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "first_fit.yaml"
    path.write_text((EXAMPLES / "first_fit.yaml").read_text())
    small = [f"model.{name}={value}" for name, value in ONE_LAYER.items() if name != "preset"]
    words = [
        word for change in [*small, "fit.epochs=1", "fit.threads=1", "fit.device=cpu"] for word in ("--set", change)
    ]
    assert cli.main(["train", str(path), *words]) == 0
    assert (tmp_path / "first_fit/model.npz").is_file()
