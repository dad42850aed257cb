"""Memory that does not suffice, a device that breaks, and what is said: on the emulated device, which can do both.

GRACE_MD_EMULATED_MEMORY bounds its memory in bytes, GRACE_MD_EMULATED_SHARED the shared memory of a block;
GRACE_MD_EMULATED_FAILURE names a kernel that destroys it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ase import Atoms

import systems
import tolerances as tol
from evaluator_tools import SYMBOLS, CoreModel, small_cell, tiny
from grace_md import GraceCalculator, GraceModel
from grace_md._core import measure_ceilings
from stage_tools import MODELS as STAGE_MODELS
from stage_tools import arrays_of
from tolerances import assert_close

MODELS = ("tiny_1l", "tiny_2l")
MEMORY, SHARED, FAILURE = (f"GRACE_MD_EMULATED_{word}" for word in ("MEMORY", "SHARED", "FAILURE"))
SHARED_OF_DESKTOP_GPUS = "101376"  # bytes for a block: compute capabilities 8.6, 8.9 and 12.0


@pytest.fixture(autouse=True)
def sound_device(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (MEMORY, SHARED, FAILURE):
        monkeypatch.delenv(name, raising=False)


def calculator(name: str, **options: Any) -> GraceCalculator:
    return GraceCalculator(GraceModel(tiny(name)), **{"device": "emulated:2", "precision": "fp64", **options})


def structure(name: str, n_atoms: int) -> Atoms:
    symbols = [SYMBOLS[name][k % len(SYMBOLS[name])] for k in range(n_atoms)]
    edge = (n_atoms / 0.08) ** (1 / 3)
    return systems.pack(symbols, np.eye(3) * edge, contact=0.5, seed=5)


def forces(calc: GraceCalculator, atoms: Atoms) -> np.ndarray:
    calc.calculate(atoms, ["energy", "forces"])
    return np.asarray(calc.results["forces"])


def refusal(work: Callable[[], Any]) -> str:
    """What `work` says when the memory is too small; nothing if it is not."""
    try:
        work()
    except ValueError as error:
        return str(error)
    return ""


def bytes_used(calc: GraceCalculator) -> int:
    assert calc._evaluator is not None
    return calc._evaluator.workspace_bytes


@pytest.mark.parametrize("name", MODELS)
def test_a_chunk_that_does_not_fit_names_one_that_does(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    large, small = structure(name, 60), structure(name, 6)
    cpu = calculator(name, device="cpu", threads=1)
    plenty = calculator(name)
    forces(plenty, large)
    for share in range(1, 400):
        monkeypatch.setenv(MEMORY, str(bytes_used(plenty) * share // 100))
        if refusal(lambda: forces(calculator(name), small)):
            continue
        calc = calculator(name)
        forces(calc, small)
        sentence = refusal(lambda calc=calc: forces(calc, large))  # type: ignore[misc]
        assert sentence, "even the smallest memory was enough"
        if "set chunksize to" in sentence:
            break
    found = re.fullmatch(
        r"out of GPU memory: a chunk of 60 atoms needs [\d.e-]+ GB, emulated \(order 2\) has [\d.e-]+ GB for it; "
        r"set chunksize to (\d+) or less",
        sentence,
    )
    assert found is not None, sentence
    chunk = int(found[1])
    assert 1 <= chunk < 60
    # the evaluator that refused goes on
    for atoms in (small, structure(name, 5)):
        assert_close(forces(calc, atoms), forces(cpu, atoms), 1e3 * tol.SUMMATION)
    assert refusal(lambda: forces(calc, large)) == sentence
    # and the advice is good
    advised = calculator(name, chunksize=chunk)
    assert_close(forces(advised, large), forces(cpu, large), 1e3 * tol.SUMMATION)


def test_weights_that_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MEMORY, "1000")
    with pytest.raises(ValueError, match=r"^out of GPU memory: the weights of the model need .* GB free; "):
        calculator("tiny_1l")
    monkeypatch.delenv(MEMORY)
    assert np.isfinite(forces(calculator("tiny_1l"), structure("tiny_1l", 4))).all()


@pytest.mark.parametrize("name", STAGE_MODELS)
def test_gpus_with_less_shared_memory(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Narrower tiles do what those of an H100 do."""
    atoms = small_cell(name)
    arrays, elements = arrays_of(name), sorted(set(atoms.symbols))
    monkeypatch.setenv(SHARED, SHARED_OF_DESKTOP_GPUS)
    for radial in ("exact", "table"):
        small, cpu = (CoreModel(arrays, elements, radial=radial, device=device) for device in ("emulated:2", "cpu"))
        a, b = small.compute(atoms), cpu.compute(atoms)
        assert_close(a["forces"], b["forces"], 10 * tol.SUMMATION * max(1.0, np.abs(b["forces"]).max()), what=radial)


@pytest.mark.parametrize("name", MODELS)
def test_every_lack_of_memory_leaves_a_working_evaluator(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever allocation fails, the next structure that fits is evaluated as if nothing had happened."""
    large, small = structure(name, 40), structure(name, 5)
    expected = forces(calculator(name, device="cpu", threads=1), small)
    plenty = calculator(name)
    forces(plenty, large)
    reasons, total = set(), bytes_used(plenty) + 2_000_000
    for limit in range(total // 50, total, total // 50):
        monkeypatch.setenv(MEMORY, str(limit))
        reason = refusal(lambda: forces(calculator(name), small))
        if reason:
            assert reason.startswith("out of GPU memory: ")
            continue
        calc = calculator(name)
        forces(calc, small)
        reasons.add(re.sub(r"\d[\d.e-]*", "N", refusal(lambda calc=calc: forces(calc, large))))  # type: ignore[misc]
        assert_close(forces(calc, small), expected, 1e3 * tol.SUMMATION, what=f"{limit} bytes")
    reasons.discard("")
    assert reasons, "nothing failed"
    assert all(reason.startswith("out of GPU memory: ") for reason in reasons)


@pytest.mark.parametrize("kernel", ["basis_forward", "scatter_forces", "collect_bonds", "list_wrap_atoms"])
def test_a_lost_device_says_what_was_lost(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    atoms = structure("tiny_1l", 6)
    monkeypatch.setenv(FAILURE, kernel)
    calc = calculator("tiny_1l")
    sentence = (
        rf"^GPU failure on emulated \(order 2\) in or before kernel {kernel}: a failure made for a test; this "
        "evaluator is lost, make it again in a new process and continue the run from its last restart file$"
    )
    for _ in range(3):  # it stays lost, and says so each time
        with pytest.raises(ValueError, match=sentence):
            forces(calc, atoms)
        monkeypatch.delenv(FAILURE, raising=False)
    assert_close(
        forces(calculator("tiny_1l"), atoms),
        forces(calculator("tiny_1l", device="cpu", threads=1), atoms),
        1e3 * tol.SUMMATION,
    )


def test_positions_that_are_not_finite() -> None:
    calc = calculator("tiny_2l")
    atoms = structure("tiny_2l", 8)
    expected = forces(calc, atoms)
    for value in (np.nan, np.inf, -np.inf, 1e301):
        broken = atoms.copy()
        broken.positions[5, 1] = value
        with pytest.raises(ValueError, match=r"\b5\b.*(not finite|out of range|beyond)"):
            forces(calc, broken)
    assert_close(forces(calc, atoms), expected, 1e3 * tol.SUMMATION)


@pytest.mark.parametrize("device", ["cpu", "emulated"])
def test_chunk_sizes_are_checked(device: str) -> None:
    with pytest.raises(ValueError, match=r"`chunksize` must be >= 0 \(0 = automatic\), got -1"):
        calculator("tiny_1l", device=device, chunksize=-1)


def test_ceilings() -> None:
    found = measure_ceilings("emulated:1", 1e-6)
    rates = ("copy_bytes", "fma_float", "fma_double", "matrix_tf32", "matrix_double")
    assert set(found) == {"device", *rates}
    assert all(found[name] > 0.0 for name in rates)
    with pytest.raises(ValueError, match="must be a GPU"):
        measure_ceilings("cpu")
