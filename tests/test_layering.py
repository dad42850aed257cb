"""Nothing may depend upwards: math < core < bindings, plugin < python < torch < training, workflows.

The layers are those of the README of docs/. Each rule is a list of what a directory may not mention.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
STANDARD_HEADER = re.compile(r"^[a-z0-9_]+$")  # <vector>, <cstdint>, ...
C_STANDARD = {"omp.h"}  # OpenMP comes with the compiler
CUDA_RUNTIME = {"cuda_runtime.h"}
CUDA_FOLDERS = ("device", "evaluator_cuda")  # of csrc/grace, whose .cu and .cuh files may use the CUDA runtime

# Module of grace_md -> what it may import of grace_md. Modules that are not listed (workflows, cli, ...) are on top.
BELOW = {
    "lammps": {"lammps"},
    "interrupt": set(),
    "progress": set(),
    "strict": set(),
    "reference_formulas": set(),
    "reference_stages": {"reference_formulas"},
    "reference": {"reference_formulas", "reference_stages"},
    "weights": set(),
    "data": set(),
    "couplings": set(),
    "periodic_table": set(),
    "model": {"_core", "weights"},
    "neighbors": {"_core", "model"},
    "ase": {"_core", "model", "neighbors"},
    "torch": {"_core", "couplings", "neighbors", "torch", "weights"},
    "doctor": {"lammps"},
}
TOP = {"cli", "commands", "workflows", "training", "smax", "labels", "merging", "alchemy", "analysis"}
# Run inside label farms and on laptops without torch: not even a function of them imports it.
TORCH_FREE = {"smax", "labels", "merging"}
TORCH_USERS = {"labels/recipes/chgnet_zbl.py"}  # CHGNet is a program of torch; imported when a worker starts
# Never imported when a module of grace_md is imported.
HEAVY = {"torch", "lammps", "matplotlib", "scipy", "mpi4py", "h5py", "lmdb", "pandas"}
HEAVY |= {"chgnet", "gpaw", "pymatgen", "tblite"}


def sources(folder: str, *endings: str) -> list[Path]:
    found = [p for p in sorted((ROOT / folder).rglob("*")) if p.suffix in endings]
    assert found, f"no {endings} files in {folder}"
    return found


def includes(path: Path) -> list[tuple[str, str]]:
    return re.findall(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', path.read_text(encoding="utf-8"), re.MULTILINE)


def may_use_cuda(path: Path) -> bool:
    return path.suffix in {".cu", ".cuh"} and path.relative_to(ROOT / "csrc/grace").parts[0] in CUDA_FOLDERS


def foreign_includes(path: Path) -> list[str]:
    """Headers that a file of the core may not include, or that do not exist."""
    system = C_STANDARD | (CUDA_RUNTIME if may_use_cuda(path) else set())
    bad = []
    for bracket, header in includes(path):
        if bracket == "<":
            allowed = STANDARD_HEADER.match(header) or header in system
        else:
            allowed = header.startswith("grace/") and (ROOT / "csrc" / header).is_file()
            allowed = allowed and (header.endswith(".hpp") or path.suffix in {".cu", ".cuh"})
        if not allowed:
            bad.append(header)
    return bad


@pytest.mark.parametrize("path", sources("csrc/grace", ".hpp", ".cpp", ".cu", ".cuh"), ids=lambda p: p.name)
def test_core_includes_only_the_standard_library_and_itself(path: Path) -> None:
    assert not foreign_includes(path), path


# Folder of csrc/grace -> beginnings of the headers that its files may not include.
NOT_BELOW = {
    "math": ("grace/model", "grace/plan", "grace/device", "grace/evaluator", "grace/neighbors"),
    "model": ("grace/plan", "grace/device", "grace/evaluator", "grace/neighbors"),
    "plan": ("grace/evaluator_", "grace/device", "grace/neighbors"),
    "device": ("grace/evaluator_", "grace/plan", "grace/neighbors"),
    "evaluator_cpu": ("grace/evaluator_cuda", "grace/device", "grace/operators"),
    "operators": ("grace/evaluator.hpp", "grace/evaluator_cuda", "grace/device", "grace/model", "grace/neighbors"),
    "evaluator_cuda": ("grace/evaluator_cpu",),
    "neighbors_cuda": ("grace/evaluator_",),
}


@pytest.mark.parametrize("folder", NOT_BELOW)
def test_folders_of_the_core_depend_downwards(folder: str) -> None:
    for path in sources(f"csrc/grace/{folder}", ".hpp", ".cpp", ".cu", ".cuh"):
        assert not [header for _, header in includes(path) if header.startswith(NOT_BELOW[folder])], path


@pytest.mark.parametrize("path", sources("csrc/grace/math", ".hpp"), ids=lambda p: p.name)
def test_math_includes_only_math(path: Path) -> None:
    allowed = ("grace/math/", "grace/macros.hpp")
    for bracket, header in includes(path):
        assert bracket == "<" or header.startswith(allowed), f"{path}: {header}"
        assert header not in {"vector", "string", "map", "memory", "iostream", "stdexcept"}, (
            f"{path}: <{header}> allocates"
        )


@pytest.mark.parametrize("path", sources("csrc/grace/model", ".hpp", ".cpp"), ids=lambda p: p.name)
def test_model_does_not_know_evaluators(path: Path) -> None:
    assert not [header for _, header in includes(path) if "evaluator" in header or "neighbors" in header]


@pytest.mark.parametrize("path", sources("csrc/bindings", ".hpp", ".cpp"), ids=lambda p: p.name)
def test_bindings_know_neither_torch_nor_lammps(path: Path) -> None:
    for bracket, header in includes(path):
        assert not re.match(r"(torch|ATen|c10|mpi|Kokkos|lammps|pair)", header), f"{path}: {header}"
        assert bracket == "<" or header.startswith("grace/") or (path.parent / header).is_file(), f"{path}: {header}"


@pytest.mark.parametrize("path", sources("lammps_plugin", ".h", ".cpp"), ids=lambda p: p.name)
def test_plugin_knows_no_python(path: Path) -> None:
    for _, header in includes(path):
        assert not re.match(r"(pybind11|Python|torch)", header), f"{path}: {header}"


def imports(tree: ast.AST, *, everywhere: bool) -> set[str]:
    """Dotted names of the modules that a file imports; at module level only unless `everywhere`."""
    names: set[str] = set()
    nodes = list(ast.walk(tree)) if everywhere else list(ast.iter_child_nodes(tree))
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


PYTHON = sources("python/grace_md", ".py")


@pytest.mark.parametrize("path", PYTHON, ids=lambda p: str(p.relative_to(ROOT / "python/grace_md")))
def test_python_layers(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = path.relative_to(ROOT / "python/grace_md").with_suffix("").parts
    layer = inside[0]
    heavy = HEAVY - {"torch"} if layer in {"torch", "training", "alchemy"} else HEAVY
    at_import = {name.split(".")[0] for name in imports(tree, everywhere=False)}
    assert not at_import & heavy, f"{path} imports {at_import & heavy} when it is imported"
    if layer in TORCH_FREE and path.relative_to(ROOT / "python/grace_md").as_posix() not in TORCH_USERS:
        assert "torch" not in {name.split(".")[0] for name in imports(tree, everywhere=True)}, path
        upwards = {name for name in imports(tree, everywhere=True) if re.match(r"grace_md\.torch\b", name)}
        assert not upwards, f"{path} imports {upwards}, which needs torch"
    if layer == "__init__":
        return
    used = {name.split(".")[1] for name in imports(tree, everywhere=True) if name.startswith("grace_md.")}
    if layer in BELOW:
        assert used <= BELOW[layer] | {"__version__"}, f"{path} imports {used - BELOW[layer]}"
    elif layer not in TOP:
        assert not used & TOP, f"{path} imports {used & TOP}"


def test_the_rule_sees_a_violation() -> None:
    tree = ast.parse("import torch\nfrom grace_md.ase import GraceCalculator\n")
    assert imports(tree, everywhere=False) == {"torch", "grace_md.ase.GraceCalculator"}
    assert may_use_cuda(ROOT / "csrc/grace/device/cuda_device.cu")
    assert not may_use_cuda(ROOT / "csrc/grace/device/cuda_device.hpp")
    assert not may_use_cuda(ROOT / "csrc/grace/neighbors_cuda/device_neighbors.cu")
