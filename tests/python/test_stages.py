"""Every stored tensor of the C++ evaluator, and the gradient of the energy with respect to it, against the oracle.

The products (AA, AAA, ...) are streamed and never stored; they are seen through the tensors made of them.
"""

from __future__ import annotations

import numpy as np
import pytest

import systems
import tolerances as tol
from evaluator_tools import SYMBOLS, CoreModel, small_cell, tiny
from stage_tools import MODELS, arrays_of, compare_stages, oracle

ONE_LAYER = {"A", "A1", "AA1", "AA2", "rho"}
EXPECTED = {
    "tiny_1l_order2": {"A", "A1", "rho"},
    "tiny_1l": ONE_LAYER,
    "tiny_1l_pairs": ONE_LAYER,
    "lava9_1l": ONE_LAYER,
    "tiny_2l": {*ONE_LAYER - {"rho"}, "I1", "I", "B0", "YI", "B", "B1", "BB1", "BB2", "rho", "I2"},
    "2L_large_elemcut": {*ONE_LAYER - {"rho"}, "I1", "I", "B0", "YI", "B", "B1", "BB1", "BB2", "rho", "I2"},
}


@pytest.mark.parametrize("name", MODELS)
def test_stages_in_double_precision(name: str) -> None:
    stages = compare_stages(name, small_cell(name), tol.STAGE_RELATIVE)
    assert set(stages) == EXPECTED[name]


@pytest.mark.parametrize("precision", ["mixed", "fp32"])
@pytest.mark.parametrize("name", MODELS)
def test_stages_in_single_precision(name: str, precision: str) -> None:
    compare_stages(name, small_cell(name), tol.STAGE_RELATIVE_FLOAT, precision=precision)


@pytest.mark.parametrize("name", ["tiny_1l_pairs", "tiny_2l"])
def test_stages_of_many_tiles_and_threads(name: str) -> None:
    """The tensors of an atom do not depend on where the atom sits in the tiles of the threads."""
    atoms = systems.bcc(SYMBOLS[name], repeat=3, lattice=3.3, rattle=0.15)[:41]
    compare_stages(name, atoms, tol.STAGE_RELATIVE, n_threads=2, chunk=15)


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
