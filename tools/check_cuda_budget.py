"""Registers and local memory of the CUDA kernels in a built module, compared with tests/gpu/budget.json.

    python tools/check_cuda_budget.py                       the installed grace_md._core
    python tools/check_cuda_budget.py libgrace_core.a       another module, library or object file
    python tools/check_cuda_budget.py --log build.log       the output of a build with `nvcc -Xptxas -v` instead
    python tools/check_cuda_budget.py --table               print all kernels as well

A kernel that spills registers or keeps arrays in local memory is many times slower than it should be, which no test of
results can see. Every kernel has the default budget unless an exception names it (a pattern of the name printed here,
with the reason); in a build for all `architectures`, an exception that no kernel needs is an error. `instructions`
names kernels whose machine code must hold an instruction, such as that of the tensor cores. Registers and memory are
checked for every architecture that is compiled, instructions for those of `code_of`.

Modules are read with cuobjdump: of the CUDA toolkit, or `pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm`.
"""

from __future__ import annotations

import argparse
import fnmatch
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BUDGET = ROOT / "tests" / "gpu" / "budget.json"
LIMITS = ("registers", "spill_bytes", "stack_bytes", "shared_bytes")
LOCAL = ("LDL", "STL")  # instructions that read and write local memory

# of `nvcc -Xptxas -v`
ENTRY = re.compile(r"Compiling entry function '(\w+)' for '(\w+)'")
STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")
SHARED = re.compile(r"(\d+) bytes smem")
# of `cuobjdump`
ARCHITECTURE = re.compile(r"^arch = (sm_\w+)")
USAGE_OF = re.compile(r"^ Function (\w+):")
USAGE = re.compile(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")
CODE_OF = re.compile(r"^\s+Function : (\w+)")
INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z]\w*)")


@dataclass
class Kernel:
    """One kernel for one architecture; shared memory is the static part: none of ours, 1 kB of the system from 9.0 on.

    Of a module, spills are not known apart: they are part of the stack.
    """

    name: str
    architecture: str
    registers: int = 0
    spill_bytes: int = 0
    stack_bytes: int = 0
    shared_bytes: int = 0


def parse_log(text: str) -> list[Kernel]:
    """Kernels in the output of `nvcc -Xptxas -v`, with mangled names."""
    kernels: list[Kernel] = []
    for line in text.splitlines():
        if match := ENTRY.search(line):
            kernels.append(Kernel(match[1], match[2]))
        elif kernels and (match := STACK.search(line)):
            kernels[-1].stack_bytes = int(match[1])
            kernels[-1].spill_bytes = int(match[2]) + int(match[3])
        elif kernels and (match := USED.search(line)):
            kernels[-1].registers = int(match[1])
            shared = SHARED.search(line)
            kernels[-1].shared_bytes = int(shared[1]) if shared else 0
    return kernels


def parse_usage(text: str) -> list[Kernel]:
    """Kernels in the output of `cuobjdump -res-usage`, with mangled names."""
    kernels: list[Kernel] = []
    architecture = name = ""
    for line in text.splitlines():
        if match := ARCHITECTURE.match(line):
            architecture = match[1]
        elif match := USAGE_OF.match(line):
            name = match[1]
        elif name and (match := USAGE.search(line)):
            registers, stack, shared, local = map(int, match.groups())
            kernels.append(Kernel(name, architecture, registers, 0, stack + local, shared))
            name = ""
    return kernels


def parse_code(text: str) -> dict[str, Counter[str]]:
    """Mangled name of every function in the output of `cuobjdump -sass` -> how often each instruction occurs."""
    functions: dict[str, Counter[str]] = {}
    current: Counter[str] = Counter()
    for line in text.splitlines():
        if match := CODE_OF.match(line):
            current = functions.setdefault(match[1], Counter())
        elif match := INSTRUCTION.match(line):
            current[match[1]] += 1
    return functions


def readable(names: Sequence[str]) -> list[str]:
    """Names of the kernel structures, such as ProductForward<double>, of mangled names."""
    tool = shutil.which("c++filt")
    if tool is None or not names:
        return list(names)
    run = subprocess.run([tool], input="\n".join(names), capture_output=True, text=True, check=True)
    found = []
    for name in run.stdout.splitlines():
        inner = re.match(r"void grace::device::run_kernel\w*<(.*)>\(.*\)$", name)
        found.append(re.sub(r"grace::(\w+::)*", "", inner[1] if inner else name).replace(" >", ">").strip())
    return found


def demangle(kernels: Sequence[Kernel]) -> None:
    """Replace mangled names by readable ones."""
    for kernel, name in zip(kernels, readable([kernel.name for kernel in kernels]), strict=True):
        kernel.name = name


def cuobjdump() -> str | None:
    """Path of the tool: in PATH, beside nvcc, or of the package from PyPI."""
    places = [shutil.which("cuobjdump")]
    nvcc = shutil.which("nvcc")
    if nvcc is not None:
        places.append(str(Path(nvcc).resolve().parent / "cuobjdump"))
    spec = importlib.util.find_spec("nvidia")
    for folder in spec.submodule_search_locations or () if spec is not None else ():
        places += map(str, sorted(Path(folder).glob("*/bin/cuobjdump")))
    return next((place for place in places if place is not None and Path(place).is_file()), None)


def dump(module: Path, *options: str) -> str:
    """Output of cuobjdump."""
    tool = cuobjdump()
    if tool is None:
        sys.exit("cuobjdump was not found: pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm, or give --log")
    run = subprocess.run([tool, *options, str(module)], capture_output=True, text=True, check=False)
    if run.returncode != 0 and "No CUDA" not in run.stdout + run.stderr and "does not contain" not in run.stderr:
        sys.exit(f"cuobjdump {' '.join(options)} {module}: {run.stdout[-500:]}{run.stderr[-500:]}")
    return run.stdout


def kernels_in(module: Path) -> list[Kernel]:
    """All kernels of a module for all architectures; none in a build without CUDA."""
    kernels = parse_usage(dump(module, "-res-usage"))
    demangle(kernels)
    return kernels


def code_in(module: Path, architecture: str) -> dict[str, Counter[str]]:
    """Instructions of every kernel of a module."""
    functions = parse_code(dump(module, "-sass", "-arch", architecture))
    merged: dict[str, Counter[str]] = {}
    for name, counts in zip(readable(list(functions)), functions.values(), strict=True):
        merged.setdefault(name, Counter()).update(counts)
    return merged


def violations(kernels: Sequence[Kernel], budget: dict[str, Any], *, complete: bool = True) -> list[str]:
    """One sentence per kernel above its budget; if `complete`, also per exception that no kernel needs."""
    found = []
    needed = set()
    for kernel in sorted(kernels, key=lambda k: (k.name, k.architecture)):
        limits = dict(budget["default"])
        exceeds_default = any(getattr(kernel, limit) > limits[limit] for limit in LIMITS)
        for exception in budget["exceptions"]:
            if fnmatch.fnmatchcase(kernel.name, exception["kernel"]):
                limits |= {key: value for key, value in exception.items() if key in LIMITS}
                if exceeds_default:
                    needed.add(exception["kernel"])
        found += [
            f"{kernel.name} ({kernel.architecture}): {getattr(kernel, limit)} {limit.replace('_', ' ')}, "
            f"budget {limits[limit]}"
            for limit in LIMITS
            if getattr(kernel, limit) > limits[limit]
        ]
    for exception in budget["exceptions"]:
        if not exception.get("reason"):
            found.append(f"the exception for {exception['kernel']} gives no reason")
        if complete and exception["kernel"] not in needed:
            found.append(f"the exception for {exception['kernel']} is not needed")
    return found


def code_violations(code: dict[str, Counter[str]], budget: dict[str, Any], architecture: str) -> Iterator[str]:
    """One sentence per kernel that uses local memory without leave, or lacks an instruction that it must hold."""
    for name, counts in sorted(code.items()):
        excused = any(
            fnmatch.fnmatchcase(name, exception["kernel"]) and exception.get("stack_bytes")
            for exception in budget["exceptions"]
        )
        used = [instruction for instruction in LOCAL if counts[instruction]]
        if used and not excused:
            yield f"{name} ({architecture}): local memory ({', '.join(f'{counts[i]} {i}' for i in used)})"
    for wanted in budget["instructions"]:
        matching = [name for name in code if fnmatch.fnmatchcase(name, wanted["kernel"])]
        if not matching:
            yield f"no kernel is called {wanted['kernel']}, which should hold {wanted['instruction']}"
        for name in matching:
            if not code[name][wanted["instruction"]]:
                yield f"{name} ({architecture}): no {wanted['instruction']}"


def check_module(module: Path, budget: dict[str, Any]) -> tuple[list[Kernel], list[str]]:
    """Kernels and violations of a module."""
    kernels = kernels_in(module)
    compiled = {kernel.architecture for kernel in kernels}
    found = violations(kernels, budget, complete=set(budget["architectures"]) <= compiled)
    for architecture in sorted(compiled & set(budget["code_of"])):
        found += code_violations(code_in(module, architecture), budget, architecture)
    return kernels, found


def table(kernels: Sequence[Kernel]) -> str:
    """Markdown, one row per kernel: registers for each architecture, then the worst of all."""
    architectures = sorted({kernel.architecture for kernel in kernels}, key=lambda a: int(a[3:]))
    rows = [
        f"| kernel | registers ({', '.join(architectures)}) | spills, B | local, B | shared (static), B |",
        "|---|---|---|---|---|",
    ]
    for name in sorted({kernel.name for kernel in kernels}):
        same = {kernel.architecture: kernel for kernel in kernels if kernel.name == name}
        registers = ", ".join(str(same[a].registers) if a in same else "-" for a in architectures)
        worst = [max(getattr(kernel, limit) for kernel in same.values()) for limit in LIMITS[1:]]
        rows.append(f"| {name} | {registers} | {' | '.join(map(str, worst))} |")
    return "\n".join(rows)


def installed_module() -> Path:
    """Path of grace_md._core."""
    spec = importlib.util.find_spec("grace_md._core")
    if spec is None or spec.origin is None:
        sys.exit("grace_md is not installed: name a module, library or object file")
    return Path(spec.origin)


def main() -> int:
    """Print the violations; 1 if there are any."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("module", nargs="?", type=Path, help="module, library or object file (default: grace_md._core)")
    parser.add_argument("--log", type=Path, help="output of nvcc -Xptxas -v")
    parser.add_argument("--budget", type=Path, default=BUDGET)
    parser.add_argument("--table", action="store_true", help="print a table of all kernels")
    arguments = parser.parse_args()
    budget = json.loads(arguments.budget.read_text(encoding="utf-8"))
    if arguments.log is not None:
        kernels = parse_log(arguments.log.read_text(encoding="utf-8"))
        demangle(kernels)
        found = violations(kernels, budget, complete=False)
    else:
        kernels, found = check_module(arguments.module or installed_module(), budget)
    if arguments.table:
        print(table(kernels))
    for sentence in found:
        print(sentence, file=sys.stderr)
    print(f"{len(kernels)} kernels (counted for each architecture), {len(found)} violations")
    return 1 if found or not kernels else 0


if __name__ == "__main__":
    sys.exit(main())
