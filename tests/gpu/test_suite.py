"""The script that runs everything on a machine with a GPU: failures, limits and what it writes."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parent


@pytest.fixture
def suite(tmp_path: Path) -> ModuleType:
    """A copy of the module that builds elsewhere."""
    spec = importlib.util.spec_from_file_location("grace_gpu_suite", FOLDER / "suite.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    module.BUILD = tmp_path / "build"  # type: ignore[attr-defined]
    return module


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def run(suite: ModuleType, steps: list[object], limit: float = 60.0) -> tuple[list[tuple[str, str]], str]:
    said: list[str] = []
    outcomes = suite.run(steps, limit, suite.environment("emulated:2"), said.append)
    return [(outcome.status, outcome.said) for outcome in outcomes], "\n".join(said)


def test_every_step_is_reported(suite: ModuleType) -> None:
    steps = [
        suite.Step("a", python("print('first'); print('last words')"), 30),
        suite.Step("b", python("raise SystemExit('broken')"), 30),
        suite.Step("c", python("print('no device'); raise SystemExit(77)"), 30),
        suite.Step("d", ["/nowhere/to/be/found"], 30),
        suite.Step("e", python("print('unused')"), 30, why_not="a reason"),
        suite.Step(
            "f", python("import os; print(os.environ['GRACE_TEST_DEVICE'], os.environ['MORE'])"), 30, {"MORE": "1"}
        ),
    ]
    outcomes, said = run(suite, steps)
    assert [status for status, _ in outcomes] == ["passed", "failed", "skipped", "failed", "skipped", "passed"]
    assert [words for _, words in outcomes[:3]] == ["last words", "broken", "no device"]
    assert "No such file" in outcomes[3][1]
    assert [words for _, words in outcomes[4:]] == ["a reason", "emulated:2 1"]
    assert "    broken" in said  # the end of the log of what failed
    outcomes, _ = run(suite, [suite.Step("g", python("import os; os.kill(os.getpid(), 15)"), 30)])
    assert outcomes == [("failed", "ended by signal 15")]


def test_steps_end_in_time_with_all_that_they_started(suite: ModuleType, tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    child = f"import time, pathlib; time.sleep(3); pathlib.Path({str(alive)!r}).touch()"
    code = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)"
    began = time.monotonic()
    outcomes, _ = run(suite, [suite.Step("slow", python(code), 1.0)])
    assert outcomes == [("timed out", "ended after 1 s")]
    assert time.monotonic() - began < 30.0
    time.sleep(4.0)
    assert not alive.exists()


def test_the_limit_of_all_steps_holds(suite: ModuleType) -> None:
    outcomes, _ = run(suite, [suite.Step("a", python("print('in time')"), 30)], limit=4.0)
    assert outcomes == [("timed out", "the 4 s of all steps are used")]


def test_a_benchmark_is_told_its_seconds(suite: ModuleType) -> None:
    outcomes, _ = run(suite, [suite.Step("a", [*python("import sys; print(sys.argv[1])"), suite.BUDGET], 50)])
    assert outcomes == [("passed", str(50 - suite.RESERVE))]


def test_nothing_follows_a_build_that_failed(suite: ModuleType) -> None:
    steps = [suite.Step("build", python("raise SystemExit(1)"), 30, needed=True), suite.Step("a", python(""), 30)]
    outcomes, _ = run(suite, steps)
    assert outcomes[1] == ("skipped", "the step 'build' failed")


def test_results_name_device_and_commit(suite: ModuleType) -> None:
    (suite.BUILD).mkdir()
    assert suite.main(["--dry-run", "--only", "probe"]) == 0
    (path,) = suite.BUILD.glob("*.json")
    found = json.loads(path.read_text())
    assert {"commit", "date", "gpu", "probe", "toolkit", "steps", "evaluate", "lammps", "snap", "smax"} <= set(found)
    assert found["device"].startswith("emulated") or "cuda" in found["device"]
    assert [step["name"] for step in found["steps"]] == ["probe"]
    assert found["steps"][0]["status"] == "passed"
    names = {"probe": {"names": ["NVIDIA H200"]}, "date": "2026-01-02T03:04:05Z"}
    assert suite.result_path(names, dry=False) == suite.ROOT / "benchmarks/results/nvidia_h200_2026-01-02.json"


def test_every_part_exists(suite: ModuleType) -> None:
    steps = {step.name: step for step in suite.steps(suite.parse([]))}
    files = [word for step in steps.values() for word in step.command if word.endswith(".py")]
    assert len(files) > 6
    assert all((suite.ROOT / name).is_file() for name in files)
    assert len(set(steps)) == len(suite.steps(suite.parse([])))
    with pytest.raises(SystemExit, match="nonsense"):
        suite.main(["--only", "nonsense"])


@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("pybind11", "scikit_build_core")),
    reason="needs the packages of the build, or the script would install them",
)
def test_the_script_says_how_it_is_used() -> None:
    command = ["bash", str(FOLDER / "run_all.sh"), "--help"]
    environment = {"PYTHON": sys.executable, "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--dry-run" in done.stdout
