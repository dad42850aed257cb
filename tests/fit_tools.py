"""Small fits for tests: structures, settings, and what a run leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ase.io
import numpy as np

from grace_md.training.config import RunConfig
from grace_md.weights import read_npz
from labelled_sets import alloys

ONE_LAYER = {"preset": "1L-small", "lmax": 2, "n_rad": 8, "width": 8, "n_densities": 4, "embedding": 8, "max_order": 3}
TWO_LAYERS = {
    "preset": "2L-small", "lmax": [2, 1], "n_rad": [8, 8], "width": [8, 8], "n_densities": 4, "embedding": 8,
    "max_order": 3,
}  # fmt: skip


def write_sets(folder: Path, n_train: int, n_valid: int = 8) -> dict[str, str]:
    """Write EMT alloys and return a section `data`."""
    folder.mkdir(exist_ok=True)
    for name, n, seed in (("train", n_train, 1), ("valid", n_valid, 2)):
        if not (folder / f"{name}.extxyz").exists():
            ase.io.write(folder / f"{name}.extxyz", alloys(n, seed=seed))
    return {"train": str(folder / "train.extxyz"), "valid": str(folder / "valid.extxyz")}


def settings(folder: Path, name: str = "run", n_train: int = 24, n_valid: int = 8, **sections: Any) -> dict[str, Any]:
    """Return a run file of a tiny fit; `sections` change settings section by section."""
    merged: dict[str, Any] = {
        "data": {**write_sets(folder, n_train, n_valid), "check": "off"},
        "model": {**ONE_LAYER, "cutoffs": 4.0},
        "fit": {"epochs": 3, "batch": 8, "threads": 1, "device": "cpu"},
        "output": {"dir": str(folder / name)},
    }
    for section, changes in sections.items():
        merged[section] = {**merged.get(section, {}), **changes}
    return merged


def tiny(folder: Path, name: str = "run", **sections: Any) -> RunConfig:
    """Return the settings of a tiny fit, checked."""
    return RunConfig.of(settings(folder, name, **sections))


def write_config(folder: Path, name: str = "run", **sections: Any) -> Path:
    """Write the settings of a tiny fit as a run file."""
    path = folder / f"{name}.json"
    path.write_text(json.dumps(settings(folder, name, **sections)))
    return path


def quiet(_line: str) -> None:
    """Take the lines of a run."""


def metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the records of a run without times."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if not k.endswith("seconds")} for line in lines]


def assert_same_arrays(first: Path, second: Path) -> None:
    """Fail unless two files have the same arrays bit by bit, but for the JSON inside."""
    a, b = read_npz(first), read_npz(second)
    assert set(a) == set(b)
    for key, values in a.items():
        if key != "checkpoint_json":
            assert values.dtype == b[key].dtype
            assert np.array_equal(values, b[key]), key
