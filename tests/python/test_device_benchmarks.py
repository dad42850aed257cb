"""The benchmarks of GPUs run, on the emulated device, and count what they say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmark_tools import BENCHMARKS, ROOT, run_script  # isort: skip - before the modules of benchmarks/
import kernel_floors
import machine
import models
import operations
import peer

NEIGHBORS = 58.0


@pytest.mark.parametrize("name", ["1L-small", "1L-large", "2L-medium", "2L-large"])
def test_kernels_share_the_operations_of_a_step(name: str) -> None:
    arrays = models.build(name)
    found = kernel_floors.floors(arrays, NEIGHBORS)
    counted = operations.count(arrays, NEIGHBORS)
    geometry = found["collect_bonds"].operations + found["scatter_forces"].operations  # not in the count of a step
    total = sum(floor.operations for floor in found.values()) - geometry
    assert total == pytest.approx(counted.step, rel=0.01)
    assert found["row_gemm"].operations == pytest.approx(2 * counted.mixing)
    assert found["product_adjoint"].operations == 2 * found["product_forward"].operations
    assert ("message_forward" in found) == name.startswith("2L")
    assert all(floor.bytes > 0 for floor in found.values())
    doubles = kernel_floors.floors(arrays, NEIGHBORS, real_bytes=8)
    assert doubles["row_gemm"].bytes == 2 * found["row_gemm"].bytes
    assert doubles["collect_bonds"].bytes > found["collect_bonds"].bytes


def test_floors_name_kernels_that_exist() -> None:
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "csrc/grace/evaluator_cuda").glob("*.hpp")]
    for kernel in kernel_floors.floors(models.build("2L-medium"), NEIGHBORS):
        assert any(f'"{kernel}"' in text for text in texts), kernel


def test_padding_and_rows() -> None:
    assert [kernel_floors.padded(n) for n in (1, 8, 42, 64)] == [8, 8, 48, 64]


def test_predictions_are_printed() -> None:
    output = run_script(str(BENCHMARKS / "kernel_floors.py"), "--models", "1L-small", "--precision", "fp64")
    assert "| 1L-small | row_gemm |" in output
    assert "| 1L-small | **all** |" in output


def test_ratios_of_equal_sizes_and_the_fastest_peer() -> None:
    common = {"system": "bcc", "threads": 1}
    rows = [
        {"code": "grace_md", "precision": "mixed", "us_per_atom_median": 0.5, "n_atoms": 4000, **common},
        {"code": "grace_md", "precision": "mixed", "us_per_atom_median": 0.4, "n_atoms": 9000, **common},
        {"code": "MACE", "precision": "float32", "us_per_atom_median": 20.0, "n_atoms": 4000, **common},
        {"code": "MACE cueq", "precision": "float32", "us_per_atom_median": 5.0, "n_atoms": 4000, **common},
    ]
    peer.add_ratios(rows, same_size=True)
    assert [row.get("mace_ratio") for row in rows] == [10.0, None, None, None]


def test_a_budget_leaves_out_what_does_not_fit(capsys: pytest.CaptureFixture[str]) -> None:
    budget = machine.Budget(100.0)
    assert budget.allows("short", 1.0)
    assert not budget.allows("long", 1000.0)
    assert machine.Budget(None).allows("anything", 1e9)
    budget.report()
    assert "left out" in capsys.readouterr().out
    assert budget.left_out == ["long"]


def test_the_card_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    """What nvidia-smi says is read by the index of CUDA, and a machine without it has no numbers."""
    asked: list[list[str]] = []

    def answer(command: list[str], **_options: object) -> object:
        asked.append(command)
        return type("Done", (), {"stdout": "580.95.05, 143771, 1980, 3201, 700.00\n"})()

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.setattr(machine.subprocess, "run", answer)
    found = machine._driver_says(1)
    assert "--id=5" in asked[0]
    assert (found["driver"], found["memory_bytes"]) == ("580.95.05", 143771 << 20)
    monkeypatch.setenv("PATH", "")
    monkeypatch.undo()
    monkeypatch.setenv("PATH", "")
    assert machine._driver_says(0)["driver"] is None
    assert "-O3" in machine.cuda_flags()


def test_evaluate_script(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    options = (
        "--device emulated --models 1L-small --sizes 2 4 --systems bcc --batch 2 --seconds 0.001 --repeats 1 --no-peer"
    )
    output = run_script(str(BENCHMARKS / "evaluate.py"), *options.split(), "--budget", "200", "--json", str(file))
    assert "ceilings: copy" in output
    assert "kernels of 1L-small mixed" in output
    report = json.loads(file.read_text())
    assert {"commit", "processor", "device", "ceilings", "kernels", "precisions", "small_systems"} <= set(report)
    assert report["device"] == "emulated:0"
    assert report["left_out"] == report["errors"] == []
    kinds = [(row["precision"], row["n_atoms"]) for row in report["results"]]
    assert kinds == [("mixed", 2), ("mixed", 2), ("fp64", 2), ("fp64", 2)]
    for row in report["results"]:
        assert row["tflops"] == pytest.approx(row["operations"]["step"] / row["us_per_atom_median"] * 1e-6)
        assert 50 < row["neighbors"] < 66
        assert row["us_per_atom_python"] > 0
        assert row["bytes_device"] > 1e4
    kernels = {row["kernel"] for row in report["kernels"]}
    assert {"basis_forward", "basis_adjoint", "collect_bonds", "scatter_forces", "readout"} <= kernels
    assert set(kernel_floors.floors(models.build("1L-small"), NEIGHBORS)) <= kernels
    assert {row["precision"] for row in report["precisions"]} == {"mixed", "fp32"}
    for row in report["precisions"]:
        assert 0 < row["force_error_of_largest"] < 1e-4
    (small,) = report["small_systems"]
    assert small["n_structures"] == 2
    assert small["structures_per_second"] > 0


def test_evaluate_script_keeps_to_its_budget(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    options = "--device emulated --models 1L-small --sizes 2 --seconds 0.001 --repeats 1 --no-peer --budget 0"
    output = run_script(str(BENCHMARKS / "evaluate.py"), *options.split(), "--json", str(file))
    assert "left out, the time was up" in output
    assert json.loads(file.read_text())["results"] == []


def test_memory_script(tmp_path: Path) -> None:
    file = tmp_path / "memory.json"
    script = str(BENCHMARKS / "memory.py")
    run_script(script, "--device", "emulated", "--cases", "1L-small:16", "--precision", "fp64", "--json", str(file))
    (row,) = json.loads(file.read_text())["results"]
    assert (row["n_atoms"], row["fits"], row["precision"]) == (16, True, "fp64")
    assert row["bytes_per_atom"] > 1000
    assert np.isfinite(row["us_per_atom"])
    assert [size["n_atoms"] for size in row["sizes"]] == [2, 16]


@pytest.mark.lammps
def test_descriptor_script(tmp_path: Path) -> None:
    """Both sizes of batches are timed, and every kernel of a step has launches and the floor of its pairs."""
    file = tmp_path / "snap.json"
    words = ["--device", "emulated:1", "--neighbors", "21", "--candidates", "1", "2", "--repeats", "1"]
    output = run_script(str(BENCHMARKS / "snap.py"), *words, "--json", str(file))
    assert "emulated (order 1)" in output
    report = json.loads(file.read_text())
    assert [row["candidates"] for row in report["results"]] == [1, 2]
    for row in report["results"]:
        assert min(row["us_value_and_adjoint"], row["us_value"]) > 0.0
        assert row["difference"] < 1e-12
        kernels = {part["kernel"]: part for part in row["kernels"]}
        assert kernels["snap_count_pairs"]["launches"] == kernels["snap_collect"]["launches"] == 1
        assert kernels["snap_adjoints"]["flop_per_atom"] == 319_020
        assert kernels["snap_densities"]["flop_per_atom"] == pytest.approx(2_700 * row["neighbors"])


def test_lammps_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lammps")
    from lammps_tools import missing, plugin_path

    if missing():
        pytest.skip(missing())
    monkeypatch.setenv("LAMMPS_PLUGIN_PATH", str(plugin_path().parent))
    file = tmp_path / "lammps.json"
    options = "--device emulated --atoms 20 --precisions mixed --repeats 1 --steps 2 --budget 100"
    script = str(BENCHMARKS / "lammps" / "run.py")
    for more in ([], ["--preset", "1L-small"]):
        output = run_script(script, *options.split(), *more, "--json", str(file))
        assert "emulated:0" in output
        report = json.loads(file.read_text())
        (row,) = report["results"]
        assert (row["n_atoms"], row["ranks"], row["precision"]) == (20, 1, "mixed")
        assert row["steps_per_second"] > 0
        assert report["model"] == (f"{more[1]}.npz" if more else "lava9_1l.npz")
