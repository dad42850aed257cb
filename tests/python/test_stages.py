"""Every stored tensor of the C++ evaluator, and the gradient of the energy with respect to it, against the oracle.

The products (AA, AAA, ...) are streamed and never stored; they are seen through the tensors made of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ase import Atoms

import systems
import tolerances as tol
from evaluator_tools import SYMBOLS, CoreModel, small_cell, tiny
from grace_md.reference import find_bonds, pair_cutoffs, reference_gradients
from grace_md.weights import element_names
from reference_data import load_reference
from tolerances import assert_close

MODELS = ("tiny_1l_order2", "tiny_1l", "tiny_1l_pairs", "tiny_2l", "lava9_1l", "2L_large_elemcut")
ONE_LAYER = {"A", "A1", "AA1", "AA2", "rho"}
EXPECTED = {
    "tiny_1l_order2": {"A", "A1", "rho"},
    "tiny_1l": ONE_LAYER,
    "tiny_1l_pairs": ONE_LAYER,
    "lava9_1l": ONE_LAYER,
    "tiny_2l": {*ONE_LAYER - {"rho"}, "I1", "I", "B0", "YI", "B", "B1", "BB1", "BB2", "rho", "I2"},
    "2L_large_elemcut": {*ONE_LAYER - {"rho"}, "I1", "I", "B0", "YI", "B", "B1", "BB1", "BB2", "rho", "I2"},
}


def arrays_of(name: str) -> dict[str, Any]:
    return tiny(name) if name.startswith("tiny") else load_reference(name).arrays


def oracle(name: str, atoms: Atoms) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    arrays = arrays_of(name)
    names = element_names(arrays)
    species = np.array([names.index(symbol) for symbol in atoms.symbols])
    _, values, gradients = reference_gradients(arrays, species, find_bonds(atoms, species, pair_cutoffs(arrays)))
    return values, gradients


def compare(name: str, atoms: Atoms, relative: float, **options: Any) -> dict[str, tuple[Any, Any, Any]]:
    model = CoreModel(arrays_of(name), sorted(set(atoms.symbols)), radial="exact", **options)
    stages: dict[str, tuple[Any, Any, Any]] = model.compute(atoms, stages=True)["stages"]
    values, gradients = oracle(name, atoms)
    for tensor, (rows, value, gradient) in stages.items():
        for kind, actual, expected in (("value", value, values), ("gradient", gradient, gradients)):
            wanted = expected[tensor]
            assert len(rows) > 0
            largest = np.abs(wanted).max()
            assert largest > 0.0, f"{tensor}: the {kind} tests nothing"
            assert_close(actual, wanted[:, rows], relative * largest, what=f"{name} {tensor} {kind}")
    return stages


@pytest.mark.parametrize("name", MODELS)
def test_stages_in_double_precision(name: str) -> None:
    stages = compare(name, small_cell(name), tol.STAGE_RELATIVE)
    assert set(stages) == EXPECTED[name]


@pytest.mark.parametrize("precision", ["mixed", "fp32"])
@pytest.mark.parametrize("name", MODELS)
def test_stages_in_single_precision(name: str, precision: str) -> None:
    compare(name, small_cell(name), tol.STAGE_RELATIVE_FLOAT, precision=precision)


@pytest.mark.parametrize("name", ["tiny_1l_pairs", "tiny_2l"])
def test_stages_of_many_tiles_and_threads(name: str) -> None:
    """The tensors of an atom do not depend on where the atom sits in the tiles of the threads."""
    atoms = systems.bcc(SYMBOLS[name], repeat=3, lattice=3.3, rattle=0.15)[:41]
    compare(name, atoms, tol.STAGE_RELATIVE, n_threads=2, chunk=15)


@pytest.mark.parametrize("name", ["lava9_1l", "2L_large_elemcut"])
def test_rows_that_are_not_stored_are_read_by_nobody(name: str) -> None:
    """The energy must not depend on them: their gradient in the oracle is zero."""
    atoms = small_cell(name)
    _, gradients = oracle(name, atoms)
    stages = CoreModel(arrays_of(name), radial="exact").compute(atoms, stages=True)["stages"]
    dropped = 0
    for tensor, (rows, _, _) in stages.items():
        others = np.setdiff1d(np.arange(gradients[tensor].shape[1]), rows)
        dropped += len(others)
        assert not np.any(gradients[tensor][:, others]), tensor
    assert dropped > 10


def test_stages_need_forces() -> None:
    """Without the adjoint there are no gradients to show; the tensors stay at zero rather than half filled."""
    stages = CoreModel(tiny("tiny_1l")).compute(small_cell("tiny_1l"), stages=True, forces=False)["stages"]
    assert all(not np.any(value) and not np.any(gradient) for _, value, gradient in stages.values())
