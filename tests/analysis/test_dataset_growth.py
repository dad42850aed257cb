"""Growth of the entropy of a run, its random reference, and the QUESTS entropy as an optional check."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import ase.io
import numpy as np
import pytest

from dataset_tools import pair, write
from grace_md import cli
from grace_md.analysis.dataset_growth import logged_growth, random_growth
from grace_md.analysis.dataset_sets import open_sets
from grace_md.smax import search as search_module
from grace_md.smax.config import SmaxConfig

SETTINGS: dict[str, Any] = {"elements": {"symbols": ["Cu"]}}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder as the generator leaves it: compressed shards, a manifest, a log with a line that was cut off."""
    folder = tmp_path / "run"
    (folder / "shards").mkdir(parents=True)
    ase.io.write(tmp_path / "part.extxyz", [pair(2.0 + 0.1 * k, "CuCu") for k in range(6)])
    (folder / "shards" / "00000.extxyz.gz").write_bytes(gzip.compress((tmp_path / "part.extxyz").read_bytes()))
    rows = [{"step": n, "atom_log_det": float(n), "atom_dimension": 2.0} for n in (100, 200, 300)]
    rows.insert(0, {"step": 10, "atom_log_det": None})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 40')
    (folder / "manifest.json").write_text(json.dumps({"config": SmaxConfig.of(SETTINGS).plain()}))
    return folder


def fake_search(settings: SmaxConfig, snapshot: None, indices: range) -> list[Any]:
    """Structures of four atoms with independent features of variances 1, 4 and 9; each third one fails a check."""
    assert snapshot is None
    found = []
    for index in indices:
        rows = np.random.default_rng(index).standard_normal((4, 3)) * [1.0, 2.0, 3.0]
        found.append(type("Found", (), {"reason": "density" if index % 3 == 0 else None, "features": rows}))
    return found


def test_a_run_is_read_and_its_growth_drawn(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module, "search", fake_search)
    out = run.parent / "out"
    assert cli.main(["report", "data", str(run), "-o", str(out), "--random", "500"]) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["sets"]["run"]["structures"] == 6
    logged, random = report["growth"]
    assert (logged["accepted"], logged["log_det"], logged["random"]) == ([100, 200, 300], [100.0, 200.0, 300.0], False)
    assert (random["accepted"][-1], random["random"]) == (300, True)  # no more than the run has
    assert (out / "growth.png").is_file()


def test_random_growth_has_the_entropy_of_its_distribution(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module, "search", fake_search)
    (one,) = open_sets([str(run)])
    (curve,) = random_growth(one, 3000)
    assert curve["accepted"][-1] == 3000
    assert np.all(np.diff(curve["accepted"]) > 0)
    assert curve["log_det"][-1] == pytest.approx(np.log(36.0), abs=0.06)  # sqrt(2 m / M) = 0.022 is one deviation
    shares = np.array([1.0, 4.0, 9.0]) / 14.0
    assert curve["effective_dimension"][-1] == pytest.approx(np.exp(-np.sum(shares * np.log(shares))), rel=0.02)
    assert random_growth(one, 0) == []


def test_a_file_is_no_run(tmp_path: Path) -> None:
    (one,) = open_sets([str(write(tmp_path, "plain", [pair(2.0)]))])
    assert logged_growth(one) == random_growth(one, 10) == []


def test_a_damaged_manifest(run: Path) -> None:
    (run / "manifest.json").write_text("{")
    (one,) = open_sets([str(run)])
    with pytest.raises(ValueError, match="does not hold the settings of a run"):
        random_growth(one, 10)


def test_quests_gets_equal_numbers_of_atoms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for the package: what is handed over, and that results come back under the right names."""
    seen = []
    descriptor, entropy = ModuleType("quests.descriptor"), ModuleType("quests.entropy")

    def get_descriptors(structures: list[Any], k: int, cutoff: float) -> np.ndarray:
        assert (k, cutoff) == (32, 5.0)
        return np.concatenate([np.full((len(atoms), 2), atoms.positions[1, 0]) for atoms in structures])

    def of(rows: np.ndarray, h: float) -> float:
        assert h == 0.015
        seen.append(len(rows))
        return float(rows.mean())

    descriptor.get_descriptors, entropy.entropy = get_descriptors, of  # type: ignore[attr-defined]
    package = ModuleType("quests")
    for name, module in (("quests", package), ("quests.descriptor", descriptor), ("quests.entropy", entropy)):
        monkeypatch.setitem(sys.modules, name, module)
    few, many = write(tmp_path, "few", [pair(2.0)] * 3), write(tmp_path, "many", [pair(2.5)] * 9)
    assert cli.main(["report", "data", str(few), str(many), "--quests", "-o", str(tmp_path / "out")]) == 0
    assert seen == [6, 6]
    assert json.loads((tmp_path / "out" / "report.json").read_text())["quests_entropy"] == {"few": 2.0, "many": 2.5}


def test_without_quests_the_remedy_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "quests", None)
    assert cli.main(["report", "data", str(write(tmp_path, "a", [pair(2.0)])), "--quests"]) == 1
    assert "pip install quests" in capsys.readouterr().err
