"""`TensorEvaluator`: pointers of torch tensors in and out. The emulated device computes in the memory of the CPU.

GRACE_TEST_DEVICE=cuda runs the same tests on a GPU.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from ase import Atoms

import systems
import tolerances as tol
from device_tools import DEVICE, EMULATED_ONLY, HAS_TORCH, IS_EMULATED
from evaluator_tools import SYMBOLS, small_cell, tiny
from grace_md import GraceCalculator, GraceModel
from grace_md._core import Evaluator, ModelSpec
from tolerances import assert_close

if not HAS_TORCH:
    pytest.skip("torch is not installed", allow_module_level=True)

import torch

from grace_md.tensors import TensorEvaluator

PLACE = torch.device("cpu" if IS_EMULATED else "cuda")
MODELS = ("tiny_1l_pairs", "tiny_2l")


def evaluator(name: str, **options: Any) -> TensorEvaluator:
    return TensorEvaluator(GraceModel(tiny(name)), **{"device": DEVICE, "precision": "fp64", **options})


def tensors(name: str, structures: list[Atoms], elements: list[str]) -> dict[str, Any]:
    first = np.cumsum([0, *[len(atoms) for atoms in structures]])
    return {
        "positions": torch.tensor(np.concatenate([atoms.positions for atoms in structures]), device=PLACE),
        "species": torch.tensor(
            [elements.index(s) for a in structures for s in a.symbols], dtype=torch.int32, device=PLACE
        ),
        "cells": torch.tensor(np.array([atoms.cell.array for atoms in structures])),
        "periodic": torch.tensor(np.array([atoms.pbc for atoms in structures])),
        "first_atom": torch.tensor(first),
    }


def one(name: str, elements: list[str]) -> dict[str, Any]:
    return tensors(name, [small_cell(name)], elements)


@pytest.mark.parametrize("name", MODELS)
def test_results_are_those_of_the_calculator(name: str) -> None:
    structures = [small_cell(name), systems.cluster(SYMBOLS[name], 5), Atoms(), small_cell(name, 4)]
    evaluate = evaluator(name)
    expected = GraceCalculator(GraceModel(tiny(name)), device="cpu", threads=1).evaluate(structures)
    inputs = tensors(name, structures, evaluate.elements)
    before = {key: value.clone() for key, value in inputs.items()}
    for _ in range(3):  # also with a kept list, and work that was recorded
        result = evaluate(**inputs, atom_virial=True)
        assert {key: (value.dtype, value.device.type) for key, value in result.items()} == dict.fromkeys(
            ("energies", "forces", "virial", "atom_virial", "centroid_virial"), (torch.float64, PLACE.type)
        )
        result = {key: value.cpu() for key, value in result.items()}
        for k, (atoms, reference) in enumerate(zip(structures, expected, strict=True)):
            part = slice(*inputs["first_atom"][k : k + 2].tolist())
            size = 10 * tol.SUMMATION * max(1.0, np.abs(reference["forces"]).max(initial=0.0))
            assert_close(result["energies"][part], reference["energies"], size)
            assert_close(result["forces"][part], reference["forces"], size)
            if "stress" in reference:
                virial = -0.5 * (result["virial"][k] + result["virial"][k].T).numpy() / atoms.get_volume()
                assert_close(virial[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]], reference["stress"], size)
            assert_close(result["atom_virial"][part].sum(0), result["virial"][k], 10 * size)
            assert_close(result["centroid_virial"][part].sum(0), result["virial"][k], 10 * size)
    assert all(torch.equal(inputs[key], before[key]) for key in inputs)


def test_one_structure_needs_little() -> None:
    evaluate = evaluator("tiny_1l_pairs", elements=["Fe", "O", "Si"])
    assert evaluate.elements == ["Fe", "O", "Si"]
    assert evaluate.device.split(":")[0] == DEVICE.split(":")[0]
    assert evaluate.device.split(":")[0] in evaluate.description
    atoms = small_cell("tiny_1l_pairs")
    inputs = one("tiny_1l_pairs", evaluate.elements)
    calc = GraceCalculator(GraceModel(tiny("tiny_1l_pairs")), device="cpu", threads=1)
    periodic = evaluate(inputs["positions"], inputs["species"], atoms.cell.array)
    assert periodic["virial"].shape == (1, 3, 3)
    assert_close(periodic["forces"].cpu(), calc.evaluate([atoms])[0]["forces"], tol.INVARIANCE_FORCE)
    free = evaluate(inputs["positions"], inputs["species"])
    cluster = Atoms(atoms.symbols, positions=atoms.positions)
    assert_close(free["forces"].cpu(), calc.evaluate([cluster])[0]["forces"], tol.INVARIANCE_FORCE)
    energies = evaluate(inputs["positions"], inputs["species"], atoms.cell.array, forces=False)
    assert set(energies) == {"energies"}
    assert_close(energies["energies"].cpu(), periodic["energies"].cpu(), tol.INVARIANCE_FORCE)
    nothing = evaluate(inputs["positions"][:0], inputs["species"][:0])
    assert nothing["forces"].shape == (0, 3)


def test_atoms_of_no_element_are_skipped() -> None:
    evaluate = evaluator("tiny_1l_pairs")
    inputs = one("tiny_1l_pairs", evaluate.elements)
    inputs["species"][2] = -1
    result = evaluate(**inputs)
    atoms = small_cell("tiny_1l_pairs")
    del atoms[2]
    reference = GraceCalculator(GraceModel(tiny("tiny_1l_pairs")), device="cpu", threads=1).evaluate([atoms])[0]
    kept = [k for k in range(len(atoms) + 1) if k != 2]
    assert_close(result["forces"][kept].cpu(), reference["forces"], tol.INVARIANCE_FORCE)
    assert torch.all(result["forces"][2] == 0)
    assert result["energies"][2] == 0


@EMULATED_ONLY
def test_other_owners_of_memory() -> None:
    """Whatever speaks DLPack: here NumPy; CuPy and JAX on a GPU."""
    evaluate = evaluator("tiny_1l_pairs")
    inputs = one("tiny_1l_pairs", evaluate.elements)
    expected = evaluate(**inputs)
    result = evaluate(**{key: value.numpy() for key, value in inputs.items()})
    assert torch.equal(result["forces"], expected["forces"]) or torch.allclose(result["forces"], expected["forces"])


def test_gradients_are_not_recorded() -> None:
    evaluate = evaluator("tiny_1l_pairs")
    inputs = one("tiny_1l_pairs", evaluate.elements)
    inputs["positions"].requires_grad_(True)
    assert not evaluate(**inputs)["energies"].requires_grad


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"positions": lambda x: x.float()}, r"`positions` must be torch.float64, got torch.float32; convert it"),
        ({"species": lambda x: x.long()}, r"`species` must be torch.int32, got torch.int64"),
        ({"positions": lambda x: x.T.contiguous().T}, r"`positions` is not contiguous in memory; pass `positions.cont"),
        ({"species": lambda x: x.repeat_interleave(2)[::2]}, r"`species` is not contiguous"),
        ({"positions": lambda x: x.reshape(-1)}, r"`positions` must have shape \[n_atoms, 3\], got \[27\]"),
        ({"positions": lambda x: x[:, :2].contiguous()}, r"`positions` must have shape \[n_atoms, 3\], got \[9, 2\]"),
        ({"species": lambda x: x[:-1]}, r"`species` must have shape \[9\], got \[8\]"),
        (
            {"positions": lambda x: x.to("meta")},
            r"`positions` lies on meta, this evaluator on c\w+(:0)?; move it there",
        ),
        ({"cells": lambda x: x[:, :2]}, r"`cells` must have shape \[1, 3, 3\] .*got \[1, 2, 3\]"),
        ({"periodic": lambda x: x[0, :2]}, r"`periodic` must have shape \[1, 3\] .*got \[2\]"),
        ({"first_atom": lambda x: x - 1}, r"`first_atom` must run from 0 to 9"),
        ({"first_atom": lambda x: x[:1]}, r"shape"),
        ({"species": lambda x: x + 7}, r"species of atom \d+ is \d+"),
        ({"positions": lambda x: x * float("nan")}, r"not finite"),
        ({"rebuild": lambda _: "never"}, r"`rebuild` must be check, rebuild or keep, got 'never'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_input(change: dict[str, Any], sentence: str) -> None:
    evaluate = evaluator("tiny_1l_pairs")
    inputs = {**one("tiny_1l_pairs", evaluate.elements), "rebuild": "check"}
    expected = evaluate(**inputs)
    with pytest.raises(ValueError, match=sentence):
        evaluate(**{**inputs, **{key: function(inputs[key]) for key, function in change.items()}})
    assert torch.allclose(evaluate(**inputs)["forces"], expected["forces"])  # usable afterwards


@EMULATED_ONLY
def test_sizes_are_checked_once_more_below() -> None:
    spec = ModelSpec(tiny("tiny_1l_pairs"))
    low = Evaluator(spec, device="emulated")
    x, species, out = np.zeros((4, 3)), np.zeros(4, np.int32), np.zeros(12)
    cells, periodic, first = np.eye(3)[None] * 9.0, np.ones((1, 3), bool), [0, 4]

    def at(array: np.ndarray, size: int | None = None) -> tuple[int, int]:
        return array.ctypes.data, array.size if size is None else size

    def call(**changes: Any) -> Any:
        x[:] = np.diag([1.0, 2.0, 3.0, 0.0])[:, :3]
        good: dict[str, Any] = {"positions": at(x), "species": at(species), "energies": at(out, 4)}
        return low.compute_pointers(**{**good, "cells": cells, "periodic": periodic, "first_atom": first, **changes})

    assert call(forces=at(out))["closest_pair"] != (-1, -1)
    for changes, sentence in (
        ({"positions": at(x, 11)}, "`positions` holds 11 numbers, 12 are needed"),
        ({"energies": (0, 0)}, "`energies` holds 0 numbers, 4 are needed"),
        ({"forces": at(out, 4)}, "`forces` holds 4 numbers, 12 are needed"),
        ({"virial": at(out, 9)}, "pass `forces` too"),
        ({"positions": (at(x)[0] + 4, 12)}, "not aligned"),
        ({"first_atom": [0, 3]}, "`first_atom` must run from 0 to 4"),
        ({"cells": np.eye(3)}, "`cells`, `periodic` and `first_atom` must have shapes"),
    ):
        with pytest.raises(ValueError, match=sentence):
            call(**changes)
    with pytest.raises(ValueError, match="lists no neighbours itself"):
        Evaluator(spec, device="cpu").compute_structures(x, cells, periodic, species, first)


def test_a_cpu_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`device` = 'cpu' is the CPU here: use GraceCalculator"):
        evaluator("tiny_2l", device="cpu")


def test_torch_is_imported_late() -> None:
    code = "import sys, grace_md, grace_md.ase, grace_md.tensors; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.skipif(IS_EMULATED, reason="needs a GPU: GRACE_TEST_DEVICE=cuda")
def test_the_order_of_streams_is_kept() -> None:
    """Inputs that are still being written on the current stream are waited for, and so are results."""
    evaluate = evaluator("tiny_2l")
    inputs = one("tiny_2l", evaluate.elements)
    expected = evaluate(**inputs)["forces"].clone()
    torch.cuda.synchronize()
    for stream in (torch.cuda.Stream(), torch.cuda.default_stream(), torch.cuda.Stream()):
        with torch.cuda.stream(stream):
            positions = torch.full_like(inputs["positions"], float("nan"))
            torch.cuda._sleep(100_000_000)
            positions.copy_(inputs["positions"])
            total = evaluate(**{**inputs, "positions": positions})["forces"] + 0.0
        stream.synchronize()
        assert_close(total.cpu(), expected.cpu(), tol.INVARIANCE_FORCE)
