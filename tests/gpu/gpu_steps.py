"""What run_all.sh runs: builds, tests, sanitizer and benchmarks, in the order in which they are worth their time.

Standard library only, because the package is built by the first of the steps.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUDGET = "BUDGET"
RESERVE = 30  # s, of a benchmark beyond its budget: imports, and the case that it has begun
MEASURED = ("evaluate", "lammps", "snap", "smax", "memory", "training")  # benchmarks, each with its file in the build
NO_SANITIZER = "Device not supported"  # of compute-sanitizer, about cards that it does not know

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
    skipped_if: str = ""  # words of a line of its output that say that it could do nothing


def device_tests(folder: str) -> list[str]:
    """Test files of a folder that choose their device by GRACE_TEST_DEVICE."""
    files = sorted((ROOT / "tests" / folder).glob("test_*.py"))
    return [str(f.relative_to(ROOT)) for f in files if "device_tools" in f.read_text(encoding="utf-8")]


def pytest(*arguments: str) -> list[str]:
    """Command that runs tests; the cache stays out of the source tree."""
    return [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]


def runs(code: str) -> bool:
    """Whether Python code ends well, within a minute."""
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def missing(package: str) -> str:
    """Why a step that needs a package is skipped, or nothing."""
    return "" if runs(f"import {package}") else f"the {package} package is not installed"


def find_sanitizer(nvcc: str | None) -> str | None:
    """Path of compute-sanitizer, in PATH or beside nvcc."""
    beside = str(Path(nvcc).resolve().parent) if nvcc else None
    return shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path=beside)


def build_step(options: argparse.Namespace, build: Path) -> Step:
    """Build and install into the folder of the build, without a network. Warnings of a new compiler are no errors."""
    install = [sys.executable, "-m", "pip", "install", "--no-build-isolation", "--no-deps", "--no-index", "--upgrade"]
    cores = str(len(os.sched_getaffinity(0)))
    variables = {
        "SKBUILD_BUILD_DIR": str(build / "cmake"),
        "SKBUILD_CMAKE_DEFINE": f"GRACE_BUILD_TESTS=ON;GRACE_CUDA={'AUTO' if options.dry_run else 'ON'}",
        "CMAKE_BUILD_PARALLEL_LEVEL": os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL", cores),
    }
    why_not = "--no-build" if options.no_build else ""
    command = [*install, "-v", "--target", str(build / "site"), str(ROOT)]
    return Step("build", command, 3600 if options.dry_run else 300, variables, why_not, needed=True)


def steps(options: argparse.Namespace, build: Path) -> list[Step]:
    """All steps in the order of their importance: each may use its seconds, or what is left of those of all."""
    ase, lammps = missing("ase"), missing("lammps")
    torch_gpu = (
        "" if runs("import torch; torch.zeros(1, device='cuda')") else "there is no torch package that sees a GPU"
    )
    torch = missing("torch") if torch_gpu else ""
    every = [
        build_step(options, build),
        *test_steps(options, build, ase, lammps, torch),
        *benchmark_steps(options, build, ase, lammps, torch if options.dry_run else torch_gpu),
    ]
    order = [
        "build", "probe", "core", "core without a GPU", "python", "evaluate", "lammps", "lammps benchmark",
        "determinism", "kernels", "training", "memcheck", "racecheck", "descriptors", "generation", "memory",
        "training benchmark", "dynamics",
    ]  # fmt: skip
    return sorted(every, key=lambda step: order.index(step.name))


def test_steps(options: argparse.Namespace, build: Path, ase: str, lammps: str, torch: str) -> list[Step]:
    """Tests, with the reasons why those that need a package are skipped; the fixtures of all Python tests need ASE."""
    dry = options.dry_run
    programs = build / "cmake" / "tests" / "core"
    on_device = str(programs / ("grace_core_tests" if dry else "grace_gpu_tests"))
    probe = (
        "from grace_md._core import cuda_probe as p; p = p(); print(p['names'] or p['reason']); "
        f"raise SystemExit({not dry} and p['n_devices'] == 0)"
    )
    nvcc = shutil.which(os.environ.get("CUDACXX", "nvcc"))
    sanitizer = find_sanitizer(nvcc)
    no_gpu_tests = "there is a GPU" if not dry else "" if nvcc else "needs nvcc"
    no_sanitizer = "" if sanitizer else "compute-sanitizer is neither in PATH nor beside nvcc"
    if dry:
        no_sanitizer = "there is no GPU in a dry run"
    sanitized = ["--error-exitcode=9", str(programs / "grace_gpu_tests"), *SANITIZED]
    # One of the tests asks for memory that no card has: a refusal by the driver is not an error here.
    memcheck = [str(sanitizer), "--report-api-errors=no", *sanitized]
    racecheck = [str(sanitizer), "--tool=racecheck", *sanitized]
    return [
        Step("probe", [sys.executable, "-c", probe], 45, needed=True),
        Step("core", [on_device], 1200 if dry else 90),
        Step("core without a GPU", [str(programs / "grace_gpu_tests")], 30, why_not=no_gpu_tests),
        Step("python", pytest(*device_tests("python")), 1800 if dry else 90, why_not=ase),
        Step("lammps", pytest(*device_tests("lammps")), 1800 if dry else 90, why_not=ase or lammps),
        Step("determinism", pytest("tests/gpu/test_determinism.py"), 600 if dry else 60, why_not=ase),
        Step("kernels", pytest("tests/test_cuda_build.py"), 45, why_not=ase),
        Step("training", pytest("tests/torch/test_devices.py", "tests/gpu/test_training.py"), 90, why_not=ase or torch),
        Step("memcheck", memcheck, 90, why_not=no_sanitizer, skipped_if=NO_SANITIZER),
        Step("racecheck", racecheck, 90, why_not=no_sanitizer, skipped_if=NO_SANITIZER),
        Step("dynamics", pytest("-s", "tests/gpu/test_dynamics.py"), 90, why_not=ase),
    ]


def benchmark_steps(options: argparse.Namespace, build: Path, ase: str, lammps: str, torch: str) -> list[Step]:
    """Benchmarks; those of descriptors and memory do without ASE."""
    dry = options.dry_run
    small = ["--models", "1L-small", "--sizes", "60", "--seconds", "0.01", "--repeats", "1", "--batch", "2"]
    lammps_sizes = ["--atoms", "99", "--ranks", "1", "--repeats", "1"] if dry else ["--atoms", "4983", "100000"]
    if not dry:
        lammps_sizes += ["--budget", BUDGET]
    snap = ["--neighbors", "21", "--candidates", "4", "--repeats", "1"] if dry else ["--repeats", "15"]
    smax = ["--preset", "single:Sn", "--candidates", "8", "--batches", "8"] if dry else ["--batches", "32", "256"]
    memory = ["--cases", "1L-small:16"] if dry else ["--budget", BUDGET]
    train = "--models starter --structures 1 --repeats 1" if dry else (
        "--device cuda --models 1L-large 2L-medium --structures 64 --repeats 5"
    )  # fmt: skip

    def measure(script: str, file: str, *arguments: str) -> list[str]:
        command = [sys.executable, str(ROOT / "benchmarks" / script), *arguments]
        return [*command, "--json", str(build / f"{file}.json")]

    named = ["--device", "emulated" if dry else "cuda"]
    evaluate = measure("evaluate.py", "evaluate", *named, "--no-peer", *(small if dry else ["--budget", BUDGET]))
    in_lammps = measure("lammps/run.py", "lammps", *named, *lammps_sizes)
    long = options.benchmark_seconds
    generation = measure("smax.py", "smax", *named, "--workers", "--gain", "0", *smax)
    training = measure("training.py", "training", "--precisions", "fp32", *train.split())
    return [
        Step("evaluate", evaluate, 600 if dry else long + RESERVE, why_not=ase),
        Step("lammps benchmark", in_lammps, 600 if dry else 0.3 * long + RESERVE, why_not=ase or lammps),
        Step("descriptors", measure("snap.py", "snap", *named, *snap), 600 if dry else 60),
        Step("generation", generation, 900 if dry else 60, why_not=ase),
        Step("memory", measure("memory.py", "memory", *named, *memory), 600 if dry else 70 + RESERVE),
        Step("training benchmark", training, 600 if dry else 60, why_not=ase or torch),
    ]
