"""The script that runs everything on a machine with a GPU: failures, limits and what it writes."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import grace_md

FOLDER = Path(__file__).parent


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A copy of the module that builds elsewhere, finds all packages at once and knows no folder of the user."""
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.delenv("GRACE_GPU_RESULTS", raising=False)
    monkeypatch.setattr("gpu_steps.runs", lambda _: True)
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
    outcomes = suite.run(steps, suite.Clock(limit), suite.environment("emulated:2"), said.append)
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
    assert "reason" in found["probe"]


def test_two_runs_of_a_day_are_two_files(suite: ModuleType) -> None:
    found = {"probe": {"names": ["NVIDIA H200"]}, "gpu": ["NVIDIA H200 NVL, 580"], "date": "2026-01-02T03:04:05Z"}
    assert suite.result_path(found, Path("a")) == Path("a/nvidia_h200_2026-01-02_0304.json")
    found["probe"] = {}  # before the package is built
    assert suite.result_path(found, Path("a")).name == "nvidia_h200_nvl_2026-01-02_0304.json"
    assert suite.result_path({**found, "gpu": []}, Path("a")).name == "no_gpu_2026-01-02_0304.json"


def main_with(suite: ModuleType, monkeypatch: pytest.MonkeyPatch, steps: list[object], *words: str) -> int:
    monkeypatch.setattr(suite, "steps", lambda *_: steps)
    return int(suite.main(["--dry-run", *words]))


@pytest.mark.parametrize("by_variable", [False, True])
def test_the_file_is_written_after_every_step(
    by_variable: bool, suite: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step sees what became of those before it, in a whole file, and the logs once one of them has failed."""
    folder = tmp_path / "out" / "results"
    if by_variable:
        monkeypatch.setenv("GRACE_GPU_RESULTS", str(folder))
    look = f"""
import json, pathlib
folder = pathlib.Path({str(folder)!r})
(file,) = folder.glob("*.json")
print(len(json.loads(file.read_text())["steps"]), (folder / "logs.tar.gz").is_file())
"""
    steps = [
        suite.Step("build", python(look), 30),
        suite.Step("probe", python(look), 30),
        suite.Step("bad", python("raise SystemExit('broken')"), 30),
        suite.Step("last step", python(look), 30),
    ]
    words = () if by_variable else ("--results", str(folder))
    assert main_with(suite, monkeypatch, steps, *words) == 1
    assert {path.suffix for path in folder.iterdir()} == {".json", ".gz"}
    (file,) = folder.glob("*.json")
    assert [step["said"] for step in json.loads(file.read_text())["steps"]] == [
        "0 False",
        "1 False",
        "broken",
        "3 True",
    ]
    with tarfile.open(folder / "logs.tar.gz") as archive:
        names = ["logs/build.txt", "logs/probe.txt", "logs/bad.txt", "logs/last_step.txt"]
        assert archive.getnames() == names
        member = archive.extractfile("logs/bad.txt")
        assert member is not None
        assert b"broken" in member.read()


def test_the_file_gets_the_name_that_the_probe_gives(suite: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "probe", lambda _: {"names": ["NVIDIA H100"]})
    steps = [suite.Step(name, python("pass"), 30) for name in ("build", "probe", "core")]
    assert main_with(suite, monkeypatch, steps) == 0
    (file,) = suite.BUILD.glob("*.json")
    assert file.name.startswith("nvidia_h100_2")


def test_a_file_that_cannot_be_written_ends_nothing(
    suite: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    steps = [suite.Step("build", python("print('done')"), 30)]
    assert main_with(suite, monkeypatch, steps, "--results", str(tmp_path / "file")) == 0
    assert "could not be written" in capsys.readouterr().out


def test_the_clock_runs_while_packages_are_looked_for(suite: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def steps(*_: object) -> list[object]:
        time.sleep(0.3)
        return [suite.Step("build", python("print('too late')"), 30)]

    monkeypatch.setattr(suite, "steps", steps)
    assert suite.main(["--dry-run", "--limit", "5.2"]) == 1
    (file,) = suite.BUILD.glob("*.json")
    assert json.loads(file.read_text())["steps"][0]["status"] == "timed out"


def test_a_sanitizer_that_cannot_run_is_skipped(suite: ModuleType) -> None:
    said = "========= Error: Device not supported. Please refer to the documentation"
    code = f"print({said!r}); print('========= ERROR SUMMARY: 0 errors'); raise SystemExit(%d)"
    for status in (0, 1):
        outcomes, _ = run(suite, [suite.Step("a", python(code % status), 30, skipped_if="Device not supported")])
        assert outcomes == [("skipped", said)]
    outcomes, _ = run(suite, [suite.Step("a", python(code % 1), 30)])
    assert outcomes[0][0] == "failed"


def test_what_does_not_end_is_left_behind(suite: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that waits for its driver outlives SIGKILL, and one may be gone before it is killed."""

    class Stuck(subprocess.Popen[bytes]):
        def wait(self, timeout: float | None = None) -> int:
            assert timeout is not None, "this may never end"
            super().wait(30)
            raise subprocess.TimeoutExpired("stuck", timeout)

    def gone(*_: object) -> None:
        raise ProcessLookupError

    monkeypatch.setattr(suite.subprocess, "Popen", Stuck)
    monkeypatch.setattr(suite.os, "killpg", gone)
    outcomes, _ = run(suite, [suite.Step("a", python("pass"), 1.0)])
    assert outcomes == [("timed out", "ended after 1 s")]


def test_questions_that_hang_are_answered(suite: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the real gpu_steps.runs
    gpu_steps = sys.modules["gpu_steps"]
    assert gpu_steps.runs("pass")
    assert not gpu_steps.runs("raise SystemExit(1)")

    def late(*_: object, **options: Any) -> None:
        raise subprocess.TimeoutExpired("python", options["timeout"])

    monkeypatch.setattr(subprocess, "run", late)
    assert not gpu_steps.runs("pass")
    assert suite.probe({}) == {}
    assert suite.output_of("nvidia-smi") == ""


ASE = {"python", "evaluate", "lammps", "lammps benchmark", "determinism", "kernels", "training", "generation"}
ASE |= {"training benchmark", "dynamics"}


def steps_of(suite: ModuleType, *words: str) -> list[Any]:
    return list(suite.steps(suite.parse(words), suite.BUILD))


def test_every_part_exists(suite: ModuleType) -> None:
    steps = {step.name: step for step in steps_of(suite)}
    files = [word for step in steps.values() for word in step.command if word.endswith(".py")]
    assert len(files) > 6
    assert all((suite.ROOT / name).is_file() for name in files)
    assert len(set(steps)) == len(steps_of(suite))
    with pytest.raises(SystemExit, match="nonsense"):
        suite.main(["--only", "nonsense"])
    written = {word.rsplit("/", 1)[1] for step in steps.values() for word in step.command if word.endswith(".json")}
    assert written == {f"{name}.json" for name in suite.MEASURED}


def test_what_matters_comes_first(suite: ModuleType) -> None:
    steps = steps_of(suite)
    names = [step.name for step in steps]
    assert names[:7] == ["build", "probe", "core", "core without a GPU", "python", "evaluate", "lammps"]
    assert set(names[-3:]) == {"memory", "training benchmark", "dynamics"}
    assert sum(step.seconds for step in steps) <= 3 * suite.LIMIT, "three commands should do all, whatever hangs"
    assert suite.LIMIT + 10 < 600  # a step that does not end at once, and the files


def test_new_compilers_may_warn_and_memory_may_be_refused(suite: ModuleType) -> None:
    steps = {step.name: step for step in steps_of(suite)}
    assert "WARNING" not in steps["build"].environment["SKBUILD_CMAKE_DEFINE"]
    assert "GRACE_CUDA=ON" in steps["build"].environment["SKBUILD_CMAKE_DEFINE"]
    assert "--report-api-errors=no" in steps["memcheck"].command
    assert "--report-api-errors=no" not in steps["racecheck"].command  # no option of that tool
    assert {steps[name].skipped_if for name in ("memcheck", "racecheck")} == {"Device not supported"}


def test_steps_without_ase(suite: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpu_steps.runs", lambda code: "ase" not in code)
    reasons = {step.name: step.why_not for step in steps_of(suite)}
    assert {name for name, reason in reasons.items() if reason == "the ase package is not installed"} == ASE


def test_the_other_steps_need_no_ase(suite: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "without" / "ase"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('there is no ase here')")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(package.parent), str(Path(grace_md.__file__).parents[1])]))
    monkeypatch.setattr("gpu_steps.runs", lambda code: "ase" not in code)
    others = ["probe", "descriptors", "memory"]
    assert suite.main(["--dry-run", "--only", *others, "python"]) == 0
    (file,) = suite.BUILD.glob("*_*.json")
    found = json.loads(file.read_text())
    assert [step["status"] for step in found["steps"]] == ["passed", "skipped", "passed", "passed"]
    assert found["memory"]["results"][0]["fits"]


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


def test_the_script_says_what_is_missing(tmp_path: Path) -> None:
    """Without the packages and without a network: one sentence, and no file that looks like a result."""
    if (FOLDER.parents[1] / "build" / "gpu" / "venv").exists():
        pytest.skip("there is an environment of an earlier run")
    bare = tmp_path / "python3"
    bare.write_text("#!/bin/sh\nexit 1\n")
    bare.chmod(0o755)
    environment = {"PYTHON": str(bare), "PATH": "/usr/bin:/bin"}
    command = ["bash", str(FOLDER / "run_all.sh"), "--dry-run"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert re.search("install numpy, pybind11, pytest, scikit-build-core, cmake and ninja", done.stderr)
