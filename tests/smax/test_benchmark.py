"""The benchmark of the generation runs, and its figures belong together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmark_tools import BENCHMARKS, run_script


def test_a_device_of_the_descriptors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "smax.json"
    words = ["--preset", "single:Sn", "--candidates", "4", "--batches", "4", "--workers", "--gain", "0"]
    words = [str(BENCHMARKS / "smax.py"), *words, "--device", "emulated:1", "--json", str(out)]
    run_script(*words)
    report = json.loads(out.read_text())
    assert report["machine"]["device"] == "emulated:1"
    assert report["search"][0]["us_per_atom_and_evaluation"] > 0.0
    assert report["run"] == report["gain"] == []
    monkeypatch.setenv("GRACE_MD_EMULATED_FAILURE", "snap_adjoints")  # searches do use it
    with pytest.raises(AssertionError, match=r"GPU failure on emulated \(order 1\) in or before kernel snap_adjoints"):
        run_script(*words)


def test_rates_shares_and_extrapolation(tmp_path: Path) -> None:
    out = tmp_path / "smax.json"
    words = ["--preset", "single:Sn", "--candidates", "16", "--batches", "8", "--workers", "1", "--accepted", "50"]
    text = run_script(str(BENCHMARKS / "smax.py"), *words, "--gain", "70", "--json", str(out))
    assert "916388 structures at the rate of the second half" in text
    report = json.loads(out.read_text())
    (search,), (run,), (gain,) = report["search"], report["run"], report["gain"]
    assert search["share_kernel"] + search["share_algebra"] + search["share_other"] == pytest.approx(1.0)
    assert min(search["share_kernel"], search["share_algebra"], search["share_other"]) > 0.0
    assert search["acceptance"] == search["accepted"] / 16
    assert run["accepted"] == 50
    assert run["accepted_per_core_second"] == pytest.approx(50 / run["core_seconds"])
    assert 0.0 < run["late_acceptance"] <= 1.0
    assert report["core_hours_of_the_paper"] == pytest.approx(916_388 / run["late_accepted_per_core_second"] / 3600)
    assert gain["gain"] == gain["entropy_log_det"] - gain["random_log_det"]
    assert gain["gain"] > 0.0
