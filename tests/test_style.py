"""Rules of the repository that a machine can check: file sizes, forbidden words, exported symbols, versions."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAX_BYTES = 20_000  # where to ask whether two things share a file
MAX_LINES = 400
CODE = {".cpp", ".hpp", ".h", ".cu", ".cuh", ".py"}
CORE = [path for ending in ("cpp", "hpp", "cu", "cuh") for path in sorted((ROOT / "csrc").rglob(f"*.{ending}"))]
FOLDERS = ("csrc", "python", "lammps_plugin", "tests", "benchmarks", "examples", "tools")
# Files above the size limits, with the reason.
LARGE: dict[str, str] = {}

ISA_LEVELS = ("baseline", "v3", "v4")
KERNEL_UNITS = ("evaluator_cpu/kernels.cpp", "operators/kernels.cpp", "snap/kernels.cpp")


def code_files() -> list[Path]:
    return sorted(
        path
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.suffix in CODE and "build" not in path.parts
    )


def test_files_are_small() -> None:
    offenders = {}
    for path in code_files():
        text = path.read_text(encoding="utf-8")
        if len(text.encode()) > MAX_BYTES or text.count("\n") > MAX_LINES:
            offenders[str(path.relative_to(ROOT))] = (len(text.encode()), text.count("\n"))
    assert set(offenders) == set(LARGE), f"files above {MAX_LINES} lines or {MAX_BYTES} bytes: {offenders}"


# The words are put together here so that this file does not contain them.
UNFINISHED = re.compile("|".join(["TO" + "DO", "FIX" + "ME", "X" + "XX", "HA" + "CK"]))
FORBIDDEN_IN_CORE = re.compile(r"\b(printf|fprintf|puts|exit|abort|_exit)\s*\(|std::c(out|err)\b")
FAST_FLAGS = re.compile("-" + "ffast-math|-" + "march=native|-" + "Ofast")


@pytest.mark.parametrize("path", code_files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_no_unfinished_work(path: Path) -> None:
    assert not UNFINISHED.findall(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", CORE, ids=lambda p: p.name)
def test_core_neither_prints_nor_exits(path: Path) -> None:
    code = re.sub(r"//.*", "", path.read_text(encoding="utf-8"))
    assert not FORBIDDEN_IN_CORE.findall(code)


def test_headers_have_guards() -> None:
    headers = [*(ROOT / "csrc").rglob("*.hpp"), *(ROOT / "csrc").rglob("*.cuh"), *(ROOT / "lammps_plugin").glob("*.h")]
    assert headers
    for path in headers:
        text = path.read_text(encoding="utf-8")
        assert "#pragma once" in text or re.search(r"#ifndef \w+_H\b", text), path


def test_no_unsafe_compiler_flags() -> None:
    files = [
        ROOT / "CMakeLists.txt",
        ROOT / "pyproject.toml",
        *ROOT.glob("*/CMakeLists.txt"),
        *ROOT.glob("csrc/**/CMakeLists.txt"),
    ]
    for path in files:
        code = "\n".join(line.split("#")[0] for line in path.read_text(encoding="utf-8").splitlines())
        assert not FAST_FLAGS.findall(code), path


def test_lammps_release_is_the_same_everywhere() -> None:
    doctor = (ROOT / "python/grace_md/doctor.py").read_text(encoding="utf-8")
    release = re.search(r'LAMMPS_RELEASE = "([\d.]+)"', doctor)
    pins = re.findall(r"lammps\[mpi\]==([\d.]+)\.\*", (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert release is not None
    assert len(pins) == 2
    assert set(pins) == {release[1]}


def exported_symbols(object_file: Path) -> list[str]:
    """Demangled names of the defined symbols that other objects can see."""
    nm = shutil.which("nm")
    assert nm is not None
    run = subprocess.run(
        [nm, "--extern-only", "--defined-only", "--demangle", object_file], capture_output=True, text=True, check=True
    )
    # "address type name"; the type u or W/V marks inline functions and templates, which count as well
    return [line.split(maxsplit=2)[2] for line in run.stdout.splitlines() if len(line.split(maxsplit=2)) == 3]


def level_flags(level: str) -> list[str]:
    """Flags of one kernel unit, read from csrc/CMakeLists.txt so that both cannot differ."""
    text = (ROOT / "csrc/CMakeLists.txt").read_text(encoding="utf-8")
    call = re.search(rf"grace_add_kernels\({level}([^)]*)\)", text)
    assert call is not None
    return call[1].split()


@pytest.mark.slow
@pytest.mark.parametrize("source", KERNEL_UNITS)
@pytest.mark.parametrize("level", ISA_LEVELS)
def test_kernel_units_export_only_their_namespace(level: str, source: str, tmp_path: Path) -> None:
    """An inline function emitted by the AVX-512 unit could be the copy that the linker keeps for every machine."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None or shutil.which("nm") is None:
        pytest.skip("needs a C++ compiler and nm")
    if (
        level != "baseline"
        and "x86_64"
        not in subprocess.run([compiler, "-dumpmachine"], capture_output=True, text=True, check=True).stdout
    ):
        pytest.skip("x86-64 levels exist on x86-64 only")
    unit = tmp_path / "kernels.o"
    command = [compiler, "-std=c++17", "-O1", "-fno-math-errno", "-fopenmp-simd", "-fPIC", "-c", *level_flags(level)]
    command += [f"-DGRACE_ISA=isa_{level}", f"-I{ROOT / 'csrc'}", str(ROOT / "csrc/grace" / source)]
    subprocess.run([*command, "-o", str(unit)], check=True)
    names = exported_symbols(unit)
    own = f"isa_{level}::"
    assert any(own in name for name in names), names
    assert not [name for name in names if own not in name]


@pytest.mark.slow
def test_symbol_check_sees_a_leak(tmp_path: Path) -> None:
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None or shutil.which("nm") is None:
        pytest.skip("needs a C++ compiler and nm")
    source = tmp_path / "leak.cpp"
    source.write_text(
        "#include <vector>\nnamespace isa_v3 { double f() { std::vector<double> x(9); return x.at(3); } }\n"
    )
    subprocess.run([compiler, "-std=c++17", "-O0", "-c", str(source), "-o", str(tmp_path / "leak.o")], check=True)
    names = exported_symbols(tmp_path / "leak.o")
    assert [name for name in names if "isa_v3::" not in name]
