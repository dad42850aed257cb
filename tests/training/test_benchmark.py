"""The benchmark of training steps runs and compares both backends."""

from __future__ import annotations

import json
from pathlib import Path

from benchmark_tools import BENCHMARKS, run_script


def test_training_steps_are_timed_side_by_side(tmp_path: Path) -> None:
    out = tmp_path / "training.json"
    words = ["--models", "starter", "--structures", "1", "--repeats", "1", "--precisions", "fp32"]
    text = run_script(str(BENCHMARKS / "training.py"), *words, "--json", str(out))
    assert "torch/core" in text
    report = json.loads(out.read_text())
    core, torch = report["results"]
    assert (core["backend"], torch["backend"]) == ("core", "torch")
    assert core["torch_over_core_time"] == torch["us_per_atom_median"] / core["us_per_atom_median"]
    (table,) = report["operators"]
    names = {row["operator"] for row in table["rows"]}
    assert {"bond_basis A", "bond_basis R", "bond_basis Y", "coupling_product", "radial_network"} <= names
    assert all(row["us_per_atom"] > 0.0 for row in table["rows"])
