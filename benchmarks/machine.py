"""What a time was measured on: processor, compiler, commit, the peak of a core, and who else was busy.

Import this module before numpy: it keeps the BLAS library to one thread, so that the peak is that of one core.
"""

from __future__ import annotations

import os

for _variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"

import argparse  # noqa: E402
import json  # noqa: E402
import math  # noqa: E402
import platform  # noqa: E402
import re  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402
import time  # noqa: E402
import traceback  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from contextlib import contextmanager  # noqa: E402
from dataclasses import dataclass, field  # noqa: E402
from datetime import datetime, timezone  # noqa: E402
from importlib.metadata import PackageNotFoundError, version  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
GEMM_SIZE = 768
PEAK_SECONDS = 0.15
CEILINGS = ("copy_bytes", "fma_float", "fma_double", "matrix_tf32", "matrix_double")
QUIET = 0.15  # cores that other processes may use during a measurement that counts as quiet


def describe() -> dict[str, Any]:
    """Return processor, system, compiler, flags, versions, commit and load, for the head of a result file."""
    return {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": " ".join([platform.system(), platform.machine(), *platform.libc_ver()]).strip(),
        "compiler": compiler(),
        "flags": flags(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in ("grace_md", "numpy", "ase")},
        "load_average": list(os.getloadavg()),
    }


def describe_device(word: str) -> dict[str, Any]:
    """Return the head of the result file of a run on a GPU: `describe`, and the card, its driver and the build."""
    from grace_md._core import cuda_probe, resolve_device  # noqa: PLC0415 - not needed for the peak alone

    device = resolve_device(word)
    head: dict[str, Any] = {**describe(), "device": device}
    kind, _, index = device.partition(":")
    if kind != "cuda":
        return head
    probe = cuda_probe()
    card: dict[str, Any] = {
        "name": probe["names"][int(index)],
        "built_for": probe["architectures"],
        **_driver_says(int(index)),
    }
    return {**head, "card": card, "cuda_flags": cuda_flags()}


def _driver_says(index: int) -> dict[str, Any]:
    """What nvidia-smi says of the GPU that CUDA calls `index`: driver, memory in bytes, clocks and power limit."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    fields = {"driver": "driver_version", "memory_bytes": "memory.total", "clock_MHz": "clocks.max.sm"}
    fields |= {"memory_clock_MHz": "clocks.max.memory", "power_limit_W": "power.limit"}
    name = visible[index].strip() if index < len(visible) and visible[index].strip() else str(index)
    command = [
        "nvidia-smi",
        f"--id={name}",
        "--format=csv,noheader,nounits",
        f"--query-gpu={','.join(fields.values())}",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        values = [value.strip() for value in done.stdout.splitlines()[0].split(",")]
        found: dict[str, Any] = dict(zip(fields, values, strict=True))
    except (OSError, subprocess.SubprocessError, IndexError, ValueError):  # no card, or a sentence instead of numbers
        return dict.fromkeys(fields)
    if str(found["memory_bytes"]).isdigit():
        found["memory_bytes"] = int(found["memory_bytes"]) << 20
    return found


def cuda_flags() -> str:
    """Return the compile options that csrc/CMakeLists.txt sets for CUDA."""
    text = (ROOT / "csrc" / "CMakeLists.txt").read_text(encoding="utf-8")
    found = re.search(r"COMPILE_LANGUAGE:CUDA>:([^>]*)>", text)
    return found[1].replace(";", " ") if found else "unknown"


def commit() -> str:
    """Return the commit of the source tree, with "-dirty" if tracked files differ; "unknown" outside a repository."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def processor() -> str:
    """Return the name of the processor."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(re.findall(r"^(model name|cpu family|model)\s*: (.*)$", text, re.MULTILINE))
    numbers = f"family {fields.get('cpu family', '?')} model {fields.get('model', '?')}"
    return f"{fields.get('model name', platform.machine())} ({numbers})"


def compiler() -> str:
    """Return what the compiled core says about its compiler (section .comment of ELF files)."""
    from grace_md import _core  # noqa: PLC0415 - not needed for the peak alone

    found = set(re.findall(rb"(?:GCC: \([^)]*\) [\d.]+|clang version [\d.]+)", Path(_core.__file__).read_bytes()))
    return ", ".join(sorted(text.decode() for text in found)) or "unknown"


def flags() -> list[str]:
    """Return the compile options that csrc/CMakeLists.txt sets for release builds and for each processor level."""
    text = (ROOT / "csrc" / "CMakeLists.txt").read_text(encoding="utf-8")
    release = re.findall(r"^set\(flags (-W.*)\)$", text, re.MULTILINE)
    levels = [f"{level}: {options}" for level, options in re.findall(r"grace_add_kernels\((\w+) (-[^)]*)\)", text)]
    return [*release, *levels]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def peak_gflops(dtype: str, n_threads: int) -> float:
    """Measure 1e9 floating-point operations per second of `n_threads` cores with products of large matrices.

    Each thread multiplies its own 768 x 768 matrices with one-threaded BLAS (numpy releases the lock of the
    interpreter), which reaches 85 to 95 % of the nominal FMA rate at the clock that AVX-512 or AVX2 code runs at.
    """
    counts = [0] * n_threads
    start = threading.Barrier(n_threads + 1)
    random = np.random.default_rng(0)
    operands = [random.normal(size=(3, GEMM_SIZE, GEMM_SIZE)).astype(dtype) for _ in range(n_threads)]

    def multiply(index: int) -> None:
        left, right, out = operands[index]
        np.matmul(left, right, out=out)  # warm-up
        start.wait()
        end = time.perf_counter() + PEAK_SECONDS
        while time.perf_counter() < end:
            np.matmul(left, right, out=out)
            counts[index] += 1

    threads = [threading.Thread(target=multiply, args=(index,)) for index in range(n_threads)]
    for thread in threads:
        thread.start()
    start.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    return sum(counts) * 2.0 * GEMM_SIZE**3 / (time.perf_counter() - began) / 1e9


def ceilings(device: str, errors: Errors, seconds: float = 0.05) -> dict[str, Any]:
    """Measure what a device can do at best; infinite where that fails, so that shares of it come to nothing."""
    from grace_md._core import measure_ceilings  # noqa: PLC0415 - not needed for the peak alone

    with errors.of("ceilings"):
        return {**measure_ceilings(device, seconds)}
    return dict.fromkeys(CEILINGS, math.inf)


class Watch:
    """Wall and processor time of a block, and the cores that others used meanwhile (Linux).

    Attributes
    ----------
    wall, processor : float
        Seconds; `processor` counts all threads of this process.
    others : float
        Mean number of cores in use by other processes (and by the host of a virtual machine); 0 where the system does
        not tell.
    """

    def __enter__(self) -> Watch:
        self._busy, self._processor, self._wall = _busy_seconds(), time.process_time(), time.perf_counter()
        return self

    def __exit__(self, *exception: object) -> None:
        self.wall = time.perf_counter() - self._wall
        self.processor = time.process_time() - self._processor
        self.others = others_share(_busy_seconds() - self._busy, self.processor, self.wall)


def others_share(busy: float, own: float, wall: float) -> float:
    """Cores used by other processes: all busy seconds less our own, over wall seconds."""
    return max(0.0, (busy - own) / wall)


def words(options: argparse.Namespace) -> dict[str, Any]:
    """Return the options of a script for its result file, folders left out."""
    return {key: value.name if isinstance(value, Path) else value for key, value in vars(options).items()}


def write(path: Path | None, report: dict[str, Any]) -> None:
    """Write a result file, if there is to be one; who is ended meanwhile leaves the file as it was."""
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(_finite(report), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    part.replace(path)


def _finite(value: Any) -> Any:
    """Return a report with null for what is not finite, which JSON has no word for."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Errors:
    """Cases that failed: their sentences go to the result file under "errors", and other cases go on.

    Attributes
    ----------
    found : list of dict
        `case` and `error` of each.
    """

    def __init__(self) -> None:
        self.found: list[dict[str, str]] = []

    @contextmanager
    def of(self, case: str) -> Iterator[None]:
        """Run a block that measures `case`; what it raises is kept and printed."""
        try:
            yield
        except Exception as error:
            traceback.print_exc(file=sys.stdout)
            self.add(case, f"{type(error).__name__}: {error}")

    def add(self, case: str, sentence: str) -> None:
        """Keep and print a sentence about `case`."""
        self.found.append({"case": case, "error": sentence})
        print(f"ERROR in {case}: {sentence}", flush=True)

    @property
    def status(self) -> int:
        """Exit status of the script: 1 if a case failed."""
        return 1 if self.found else 0


@dataclass
class Series:
    """Repeats of one measurement: seconds per step, seconds of processor, and cores that others used."""

    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    others: list[float] = field(default_factory=list)

    def add(self, wall: float, processor: float, others: float) -> None:
        """Add one repeat."""
        self.wall.append(wall)
        self.processor.append(processor)
        self.others.append(others)

    def summary(self, n_atoms: int) -> dict[str, Any]:
        """Return median and minimum over the quiet repeats, in microseconds per atom."""
        quiet = np.array(self.others) < QUIET
        chosen = quiet if quiet.any() else np.ones_like(quiet)
        wall, processor = (1e6 / n_atoms * np.array(values)[chosen] for values in (self.wall, self.processor))
        return {
            "us_per_atom_median": float(np.median(wall)),
            "us_per_atom_min": float(wall.min()),
            "cpu_us_per_atom_median": float(np.median(processor)),
            "n_repeats": len(quiet),
            "n_quiet": int(quiet.sum()),
        }


class Budget:
    """Seconds that a script may take: cases that would not fit are left out, and said to be.

    Parameters
    ----------
    seconds : float or None
        None: no limit.
    """

    def __init__(self, seconds: float | None) -> None:
        self._end = None if seconds is None else time.monotonic() + seconds
        self.left_out: list[str] = []

    def allows(self, what: str, seconds: float = 0.0) -> bool:
        """Whether about `seconds` more fit; if not, `what` is remembered as left out."""
        if self._end is None or time.monotonic() + seconds <= self._end:
            return True
        self.left_out.append(what)
        return False

    def report(self) -> None:
        """Print what was left out."""
        if self.left_out:
            print(f"\nleft out, the time was up (--budget): {'; '.join(self.left_out)}")


def _busy_seconds() -> float:
    """Seconds that all cores together spent working since boot, time stolen by a host included."""
    if not sys.platform.startswith("linux"):
        return time.process_time()
    with open("/proc/stat", encoding="utf-8") as stream:
        user, nice, system, _idle, _wait, irq, soft_irq, steal = map(int, stream.readline().split()[1:9])
    return (user + nice + system + irq + soft_irq + steal) / os.sysconf("SC_CLK_TCK")
