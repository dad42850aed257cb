"""What nvcc made of the kernels: registers and local memory within their budget, the instructions that they are for.

A GPU is not needed. The installed module is read with cuobjdump, so that nothing is compiled here;
`python tools/check_cuda_budget.py --table` prints all kernels. That a build has no warnings is checked by .ci/run.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from grace_md import _core

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

from check_cuda_budget import (  # noqa: E402
    BUDGET,
    Kernel,
    check_module,
    code_violations,
    cuobjdump,
    demangle,
    dump,
    parse_code,
    parse_log,
    parse_usage,
    table,
    violations,
)

SIMPLE = "_ZN5grace6device10run_kernelI6SimpleIfEEEvT_"
EXAMPLE = "_ZN5grace6device21run_kernel_min_blocksINS_3gpu7ExampleIdEEEEvT_"
LOG = f"""
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '{SIMPLE}' for 'sm_90'
ptxas info    : Function properties for {SIMPLE}
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 8 registers, used 1 barriers
ptxas info    : Compile time = 11.651 ms
ptxas info    : Compiling entry function '{EXAMPLE}' for 'sm_90'
ptxas info    : Function properties for {EXAMPLE}
    72 bytes stack frame, 16 bytes spill stores, 20 bytes spill loads
ptxas info    : Used 34 registers, used 1 barriers, 72 bytes cumulative stack size, 1024 bytes smem
"""
USAGE = f"""
Fatbin elf code:
================
arch = sm_80
code version = [1,8]

Resource usage:
 Common:
  GLOBAL:0
 Function {SIMPLE}:
  REG:8 STACK:0 SHARED:0 LOCAL:0 CONSTANT[0]:384 TEXTURE:0 SURFACE:0 SAMPLER:0

Fatbin elf code:
================
arch = sm_90

Resource usage:
 Function {EXAMPLE}:
  REG:34 STACK:72 SHARED:1024 LOCAL:0 CONSTANT[0]:384 TEXTURE:0 SURFACE:0 SAMPLER:0
"""
CODE = f"""
\t\tFunction : {SIMPLE}
\t.headerflags\t@"EF_CUDA_TEXMODE_UNIFIED EF_CUDA_64BIT_ADDRESS EF_CUDA_SM90"
        /*0000*/                   LDC R1, c[0x0][0x28] ;                  /* 0x00000a00ff017b82 */
                                                                           /* 0x000fe20000000800 */
        /*0010*/              @!P0 EXIT ;                                  /* 0x000000000000894d */
        /*0020*/                   HMMA.1688.F32.TF32 R4, R8, R2, RZ ;     /* 0x0000000208047237 */
\t\tFunction : {EXAMPLE}
        /*0000*/              @P1  STL.64 [R1], R4 ;                       /* 0x0000000401007387 */
        /*0010*/                   LDL R0, [R1+0x8] ;                      /* 0x0000080001007983 */
        /*0020*/              @!UP0 UIADD3 UR4, UR4, 0x1, URZ ;            /* 0x0000000104048890 */
"""
DEFAULT = {"registers": 32, "spill_bytes": 0, "stack_bytes": 0, "shared_bytes": 0}
needs_names = pytest.mark.skipif(shutil.which("c++filt") is None, reason="needs c++filt")


@pytest.fixture(scope="module")
def logged() -> list[Kernel]:
    if shutil.which("c++filt") is None:
        pytest.skip("needs c++filt")
    kernels = parse_log(LOG)
    demangle(kernels)
    return kernels


def budget_with(*exceptions: dict[str, Any], instructions: list[dict[str, str]] | None = None) -> dict[str, Any]:
    return {"default": DEFAULT, "exceptions": list(exceptions), "instructions": instructions or []}


def test_the_log_is_understood(logged: list[Kernel]) -> None:
    assert logged == [
        Kernel("Simple<float>", "sm_90", 8, 0, 0, 0),
        Kernel("Example<double>", "sm_90", 34, 36, 72, 1024),
    ]
    assert "| Example<double> | 34 | 36 | 72 | 1024 |" in table(logged)


@needs_names
def test_a_module_is_understood() -> None:
    kernels = parse_usage(USAGE)
    demangle(kernels)
    assert kernels == [
        Kernel("Simple<float>", "sm_80", 8, 0, 0, 0),
        Kernel("Example<double>", "sm_90", 34, 0, 72, 1024),
    ]
    assert "| kernel | registers (sm_80, sm_90) |" in table(kernels)
    assert "| Example<double> | -, 34 | 0 | 72 | 1024 |" in table(kernels)
    assert parse_code(CODE) == {
        SIMPLE: Counter({"LDC": 1, "EXIT": 1, "HMMA": 1}),
        EXAMPLE: Counter({"STL": 1, "LDL": 1, "UIADD3": 1}),
    }


def test_a_kernel_above_its_budget_is_found(logged: list[Kernel]) -> None:
    assert violations(logged, budget_with()) == [
        "Example<double> (sm_90): 34 registers, budget 32",
        "Example<double> (sm_90): 36 spill bytes, budget 0",
        "Example<double> (sm_90): 72 stack bytes, budget 0",
        "Example<double> (sm_90): 1024 shared bytes, budget 0",
    ]
    some = {"kernel": "Example<*>", "registers": 40, "stack_bytes": 80, "shared_bytes": 2000, "reason": "a test"}
    assert violations(logged, budget_with(some)) == ["Example<double> (sm_90): 36 spill bytes, budget 0"]
    assert violations(logged, budget_with(some | {"spill_bytes": 36})) == []


def test_exceptions_are_needed_and_have_reasons(logged: list[Kernel]) -> None:
    found = violations(logged[:1], budget_with({"kernel": "Simple<*>", "registers": 40}))
    assert found == ["the exception for Simple<*> gives no reason", "the exception for Simple<*> is not needed"]
    assert violations(logged[:1], budget_with({"kernel": "Other", "reason": "a test"}), complete=False) == []


def test_local_memory_and_missing_instructions_are_found() -> None:
    code = {"Simple<float>": Counter(HMMA=1), "Example<double>": Counter(LDL=2, STL=1)}
    assert list(code_violations(code, budget_with(), "sm_90")) == [
        "Example<double> (sm_90): local memory (2 LDL, 1 STL)"
    ]
    excused = {"kernel": "Example<*>", "stack_bytes": 8, "reason": "a test"}
    wanted = [{"kernel": name, "instruction": "HMMA"} for name in ("Simple<*>", "Example<*>", "Third<*>")]
    assert list(code_violations(code, budget_with(excused, instructions=wanted), "sm_90")) == [
        "Example<double> (sm_90): no HMMA",
        "no kernel is called Third<*>, which should hold HMMA",
    ]


@pytest.mark.skipif(not _core.cuda_probe()["built"], reason="this build is without CUDA")
@pytest.mark.skipif(cuobjdump() is None, reason="needs cuobjdump (pip install nvidia-cuda-cuobjdump)")
@needs_names
def test_all_kernels_stay_within_their_budget() -> None:
    kernels, found = check_module(Path(_core.__file__), json.loads(BUDGET.read_text(encoding="utf-8")))
    print(table(kernels))
    assert kernels
    assert all(re.fullmatch(r"[\w<>, :()]+", kernel.name) for kernel in kernels)
    assert not found
    # Machine code of every architecture, and PTX of the oldest for all others.
    wanted = [str(number) for number in _core.cuda_probe()["architectures"]]
    assert {kernel.architecture for kernel in kernels} == {f"sm_{number}" for number in wanted}
    names = [{k.name for k in kernels if k.architecture == f"sm_{number}"} for number in wanted]
    assert all(same == names[0] for same in names)
    assert re.search(rf"\.sm_{wanted[0]}\.ptx", dump(Path(_core.__file__), "-lptx"))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks the loader of glibc")
def test_an_import_opens_nothing_of_the_driver() -> None:
    """Machines without a GPU import the module as others do; the driver is looked for when a GPU is asked for."""
    command = [sys.executable, "-c", "import grace_md._core"]
    environment = {**os.environ, "LD_DEBUG": "files"}
    opened = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stderr
    if Path(_core.__file__).name not in opened:
        pytest.skip("the loader does not list the files that it opens")
    assert "libcuda" not in opened
