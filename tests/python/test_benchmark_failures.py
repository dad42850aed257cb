"""Benchmarks in which something fails: the sentence is stored, other cases go on, the file is there."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from benchmark_tools import BENCHMARKS, run_script  # isort: skip - before the modules of benchmarks/
import machine
import snap_device

MEMORY = "GRACE_MD_EMULATED_MEMORY"
EVALUATE = "--device emulated --models 1L-small --systems bcc --precisions mixed --seconds 0.001 --repeats 1 --no-peer"


def load(path: str) -> ModuleType:
    """A script as a module of its own name."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{Path(path).stem}", BENCHMARKS / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclasses look
    spec.loader.exec_module(module)
    return module


def fails(*_arguments: object, **_options: object) -> Any:
    raise ValueError("on purpose")


def bytes_of(tmp_path: Path, model: str, n_atoms: int) -> int:
    """Memory of a case of memory.py, the model not included."""
    file = tmp_path / "plenty.json"
    words = ("--device", "emulated", "--cases", f"{model}:{n_atoms}", "--json", str(file))
    run_script(str(BENCHMARKS / "memory.py"), *words)
    return int(json.loads(file.read_text())["results"][0]["bytes_device"])


def test_errors_are_kept(capsys: pytest.CaptureFixture[str]) -> None:
    errors = machine.Errors()
    with errors.of("good"):
        pass
    assert errors.status == 0
    with errors.of("bad"):
        fails()
    assert errors.found == [{"case": "bad", "error": "ValueError: on purpose"}]
    assert errors.status == 1
    assert "ERROR in bad: ValueError: on purpose" in capsys.readouterr().out
    with pytest.raises(KeyboardInterrupt), errors.of("stopped"):
        raise KeyboardInterrupt


def test_result_files_are_json_and_whole(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "result.json"
    machine.write(file, {"rows": [{"share": float("nan"), "rate": float("inf"), "time": 1.5}], "words": ("a", None)})
    assert json.loads(file.read_text()) == {
        "rows": [{"share": None, "rate": None, "time": 1.5}],
        "words": ["a", None],
    }
    with pytest.raises(TypeError):
        machine.write(file, {"rows": object()})
    assert "1.5" in file.read_text()  # as it was


@pytest.mark.parametrize("answer", ["", "No devices were found\n", "580.95, 81559, 1980, 2619, 700.00, more\n"])
def test_a_driver_that_says_something_else(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.subprocess, "run", lambda *_, **__: type("Done", (), {"stdout": answer})())
    assert set(machine._driver_says(0).values()) == {None}


def test_shares_of_unknown_ceilings_are_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grace_md._core.measure_ceilings", fails)
    errors = machine.Errors()
    assert set(machine.ceilings("emulated", errors).values()) == {float("inf")}
    assert [error["case"] for error in errors.found] == ["ceilings"]


def test_evaluate_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit the memory fails, the precisions among it; the smallest cell does not."""
    file = tmp_path / "result.json"
    monkeypatch.setenv(MEMORY, str(12_000_000 + bytes_of(tmp_path, "1L-small", 16)))
    words = (*EVALUATE.split(), "--sizes", "2", "250", "--batch", "0", "--json", str(file))
    output = run_script(str(BENCHMARKS / "evaluate.py"), *words, status=1)
    report = json.loads(file.read_text())
    assert [row["n_atoms"] for row in report["results"]] == [2]
    assert [error["case"] for error in report["errors"]] == ["precisions of 1L-small", "1L-small mixed bcc 250"]
    assert all("out of GPU memory" in error["error"] for error in report["errors"])
    assert "ERROR in 1L-small mixed bcc 250" in output


def test_evaluate_on_the_cpu_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "result.json"
    evaluate = load("evaluate.py")
    good = evaluate.Case.measure
    monkeypatch.setattr(evaluate.Case, "measure", lambda case: good(case) if case.precision == "fp64" else fails())
    words = "--models 1L-small --systems bcc --bcc-atoms 16 --threads 1 --repeats 2 --seconds 0.001 --no-peer"
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *words.split(), "--json", str(file)])
    assert evaluate.main() == 1
    report = json.loads(file.read_text())
    assert [(row["precision"], row["n_repeats"]) for row in report["results"]] == [("fp64", 2)]
    assert [error["case"] for error in report["errors"]] == ["1L-small bcc mixed 1 threads"]  # in the first round only


def test_sizes_that_the_card_refuses_are_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "memory.json"
    monkeypatch.setenv(MEMORY, str(12_000_000 + bytes_of(tmp_path, "1L-small", 16)))
    words = ("--device", "emulated", "--cases", "1L-small:250", "1L-small:16", "--json", str(file))
    output = run_script(str(BENCHMARKS / "memory.py"), *words)
    report = json.loads(file.read_text())
    large, small = report["results"]
    assert (large["fits"], small["fits"]) == (False, True)
    assert large["reason"].startswith("out of GPU memory: ")
    assert large["reason"] in output
    assert report["errors"] == []


def test_memory_cases_end_with_the_budget_and_with_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "memory.json"
    words = ("--device", "emulated", "--cases", "1L-small:16", "--json", str(file))
    run_script(str(BENCHMARKS / "memory.py"), *words, "--budget", "0")
    report = json.loads(file.read_text())
    assert report["results"][0]["fits"] is None
    assert report["left_out"] == ["1L-small:2"]
    monkeypatch.setenv("GRACE_MD_EMULATED_FAILURE", "basis_forward")
    run_script(str(BENCHMARKS / "memory.py"), *words, status=1)
    report = json.loads(file.read_text())
    assert [error["case"] for error in report["errors"]] == ["1L-small:16"]
    assert "basis_forward" in report["errors"][0]["error"]


def test_the_largest_cases_of_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten and two million atoms are begun within the budget that tests/gpu/run_all.sh gives them."""
    memory = load("memory.py")
    assert memory.GPU_CASES == ["1L-large:10000000", "2L-large:2000000"]
    sizes: list[int] = []

    def two_steps(_evaluator: object, n_atoms: int) -> dict[str, int]:
        sizes.append(n_atoms)
        return {"n_atoms": n_atoms, "bytes_device": 1000 * n_atoms}

    monkeypatch.setattr(memory, "crystal", lambda _model, n_atoms: n_atoms)
    monkeypatch.setattr(memory, "two_steps", two_steps)
    for case in memory.GPU_CASES:
        name, _, n_atoms = case.partition(":")
        row = {"model": name, "precision": "mixed", "n_atoms": int(n_atoms), "sizes": []}
        memory.measure_device(row, "cpu", 0, machine.Budget(60.0))
        assert row["fits"]
    assert sizes == [1_000_000, 10_000_000, 200_000, 2_000_000]


def test_descriptors_that_differ_are_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "snap.json"
    monkeypatch.setattr(snap_device, "compare", lambda *_: float("nan"))
    options = argparse.Namespace(device="emulated:1", neighbors=[21], candidates=[1, 2], repeats=1, json=file)
    assert snap_device.run(options) == 1
    report = json.loads(file.read_text())
    assert [row["candidates"] for row in report["results"]] == [1, 2]
    assert [error["case"] for error in report["errors"]] == [
        "1 candidates, 21 neighbours",
        "2 candidates, 21 neighbours",
    ]
    assert all("differ by nan" in error["error"] for error in report["errors"])


def test_descriptor_rows_have_a_kernel_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """The object that has begun to time its launches serves no other row."""
    made: list[str] = []

    class Counted(snap_device.SnapKernel):
        def start_profile(self) -> None:
            made.append("profile")
            super().start_profile()

        def descriptors(self, *arguments: Any, **options: Any) -> Any:
            made.append("call")
            return super().descriptors(*arguments, **options)

    monkeypatch.setattr(snap_device, "SnapKernel", Counted)
    kernels = [snap_device.measure("emulated:1", n, 21, 1) for n in (1, 2)]
    first, _, rest = "".join(word[0] for word in made).partition("p")
    assert len(first) > 4  # comparison, warm-up and times
    assert rest[0] == "c"
    assert rest[1:].rindex("p") == len(first)  # the second row begins anew, its profile comes last again
    assert [row["candidates"] for row in kernels] == [1, 2]


def test_lammps_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = load("lammps/run.py")
    seen: list[tuple[int, str, int]] = []

    def measure(_folder: Path, _model: Path, kind: tuple[int, str, int], _options: object) -> dict[str, Any]:
        seen.append(kind)
        if kind[1] == "fp64":
            raise RuntimeError("LAMMPS ended with code 1: ERROR")
        return {"n_atoms": kind[0], "precision": kind[1], "ranks": kind[2], "steps_per_second": 2.0, "others": 0.0}

    monkeypatch.setattr(run, "measure", measure)
    options = argparse.Namespace(
        atoms=[20, 30], precisions=["fp64", "mixed"], ranks=[1], repeats=2, seconds=0.0, json=tmp_path / "lammps.json"
    )
    report: dict[str, Any] = {}
    errors = run.measure_all(options, Path(), Path(), machine.Budget(None), report)
    assert errors.status == 1
    written = json.loads(options.json.read_text())
    assert [(row["n_atoms"], row["n_repeats"], row["speed_up"]) for row in written["results"]] == [
        (20, 2, 1.0),
        (30, 2, 1.0),
    ]
    assert [error["case"] for error in written["errors"]] == [f"round 1 of {n} atoms, fp64, 1 ranks" for n in (20, 30)]
    assert len(seen) == 6  # a kind that failed has no second round


def test_generation_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    smax, file = load("smax.py"), tmp_path / "smax.json"
    written: list[dict[str, Any]] = []

    def measure_search(_config: object, _candidates: int, batch: int, _device: str) -> dict[str, Any]:
        written.append(json.loads(file.read_text()) if file.is_file() else {})
        return fails() if batch == 16 else {"batch": batch}

    monkeypatch.setattr(smax, "measure_search", measure_search)
    monkeypatch.setattr(smax, "print_report", lambda _: None)
    words = ["--batches", "8", "16", "32", "--workers", "--gain", "0", "--json", str(file)]
    monkeypatch.setattr(sys, "argv", ["smax.py", *words])
    assert smax.main() == 1
    assert [len(report.get("search", [])) for report in written] == [0, 1, 1]
    report = json.loads(file.read_text())
    assert [row["batch"] for row in report["search"]] == [8, 32]
    assert report["errors"] == [{"case": "search, batch 16", "error": "ValueError: on purpose"}]
    assert "on purpose" in capsys.readouterr().out
