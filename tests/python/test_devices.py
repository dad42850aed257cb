"""Choosing a device: the words, the environment variable, and what is said where no GPU can be used.

`auto` falls back to the CPU; every word that asks for a GPU is an error without one. The tests hold in builds with and
without CUDA, and on machines with and without a GPU.
"""

from __future__ import annotations

import ctypes.util
import json
import os
import re
import shutil
import subprocess
import sys
from typing import Any

import pytest

from evaluator_tools import MODELS
from grace_md import _core
from grace_md._core import Evaluator, ModelSpec, cuda_probe

VARIABLE = "GRACE_MD_DEVICE"
WORDS = "must be auto, cpu, cuda, cuda:N or the number N of a GPU"

needs_no_gpu = pytest.mark.skipif(cuda_probe()["n_devices"] > 0, reason="this machine has a GPU")


@pytest.fixture(scope="module")
def model() -> ModelSpec:
    return ModelSpec.from_file(str(MODELS / "tiny_1l_pairs.npz"))


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


def run_python(code: str, **environment: str) -> Any:
    """What a fresh interpreter prints as JSON."""
    run = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_probe_states_what_it_found() -> None:
    probe = cuda_probe()
    assert set(probe) == {"built", "n_devices", "reason", "architectures", "names"}
    assert (probe["n_devices"] > 0) == (probe["reason"] == "")
    assert probe["n_devices"] <= len(probe["names"])
    assert probe["built"] == bool(probe["architectures"])
    assert probe["architectures"] == sorted(probe["architectures"])
    assert cuda_probe() == probe
    if not probe["built"]:
        assert probe["reason"] == "device cuda: this grace_md was built without CUDA; reinstall with GRACE_CUDA=ON"


@pytest.mark.skipif(ctypes.util.find_library("cuda") is not None, reason="this machine has an NVIDIA driver")
def test_a_machine_without_driver_is_told_so() -> None:
    if not cuda_probe()["built"]:
        pytest.skip("built without CUDA")
    assert "no NVIDIA driver found" in cuda_probe()["reason"]


def test_hidden_gpus_are_no_gpus() -> None:
    """Import and probe in a process that may see no GPU; `auto` runs on the CPU there."""
    code = (
        "import json; from grace_md import _core\n"
        f"model = _core.ModelSpec.from_file({str(MODELS / 'tiny_1l_pairs.npz')!r})\n"
        "print(json.dumps([_core.cuda_probe(), _core.Evaluator(model).description]))"
    )
    probe, description = run_python(code, CUDA_VISIBLE_DEVICES="", GRACE_MD_DEVICE="auto")
    assert probe["n_devices"] == 0
    assert re.search("no GPU visible|no NVIDIA driver|without CUDA", probe["reason"])
    assert description.startswith("cpu ")


@needs_no_gpu
@pytest.mark.parametrize("word", ["cuda", "cuda:0", "cuda:3", "0", "17"])
def test_asking_for_a_gpu_is_an_error_without_one(model: ModelSpec, word: str) -> None:
    with pytest.raises(ValueError, match=re.escape(cuda_probe()["reason"])):
        Evaluator(model, device=word)


def test_a_gpu_that_does_not_exist_is_an_error(model: ModelSpec) -> None:
    with pytest.raises(ValueError, match=r"^device cuda"):
        Evaluator(model, device="cuda:999")


@pytest.mark.parametrize("word", ["gpu", "cuda:", "cuda:-1", "cuda:x", "CPU", "", "-1", "emulated:", "99999"])
def test_other_words_are_refused(model: ModelSpec, word: str) -> None:
    with pytest.raises(ValueError, match=WORDS):
        Evaluator(model, device=word)


def test_the_variable_decides_for_auto(model: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "cpu")
    assert Evaluator(model).description.startswith("cpu ")
    monkeypatch.setenv(VARIABLE, "")
    assert Evaluator(model).description
    monkeypatch.setenv(VARIABLE, "emulated:2")
    assert Evaluator(model).description.startswith("emulated")
    assert Evaluator(model, device="cpu").description.startswith("cpu ")


@needs_no_gpu
@pytest.mark.parametrize("word", ["cuda", "cuda:1", "0"])
def test_the_variable_never_falls_back(model: ModelSpec, monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    monkeypatch.setenv(VARIABLE, word)
    with pytest.raises(ValueError, match=re.escape(cuda_probe()["reason"])):
        Evaluator(model)


def test_a_bad_variable_is_named(model: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "gpu")
    with pytest.raises(ValueError, match=f"environment variable {VARIABLE}: .*{WORDS}, got 'gpu'"):
        Evaluator(model)
    assert Evaluator(model, device="cpu").description.startswith("cpu ")


@pytest.mark.skipif(shutil.which("ldd") is None, reason="needs ldd")
def test_nothing_of_cuda_is_linked_dynamically() -> None:
    """The CUDA runtime is part of the module and the driver is opened when needed: torch in the same process may
    bring another runtime, and machines without a GPU have neither.
    """
    run = subprocess.run(["ldd", _core.__file__], capture_output=True, text=True, check=True)
    libraries = {line.split()[0].split("/")[-1].split(".so")[0] for line in run.stdout.splitlines() if line.strip()}
    allowed = {"libstdc++", "libm", "libgcc_s", "libc", "libgomp", "libdl", "librt", "libpthread"}
    foreign = {name for name in libraries - allowed if not re.match(r"(linux-vdso|ld-linux|libasan|libubsan)", name)}
    assert not foreign


@pytest.mark.skipif(shutil.which("nm") is None, reason="needs nm")
def test_the_cuda_runtime_is_hidden() -> None:
    run = subprocess.run(["nm", "-D", "--defined-only", _core.__file__], capture_output=True, text=True, check=True)
    assert not [line for line in run.stdout.splitlines() if re.search(r"\b_*cuda[A-Z]", line)]
