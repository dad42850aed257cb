"""Rows times matrices as an operator: against einsum, gradients of gradients, threads, precision, wrong input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from grace_md.torch.linear_op import RowTerms, row_linear  # noqa: E402
from tolerances import OPERATOR_RELATIVE, OPERATOR_RELATIVE_FLOAT, assert_close  # noqa: E402


class Problem:
    """Parts with random rows and groups; runs of unequal length, one of them empty."""

    def __init__(
        self, n_atoms: int, n_targets: int, n_out: int, parts: list[tuple[int, int, int]], n_runs: int, dtype: Any
    ) -> None:
        random = np.random.default_rng(n_out)

        def normal(*shape: int) -> Any:
            return torch.empty(shape, dtype=dtype).copy_(torch.from_numpy(random.normal(size=shape)))

        element = np.sort(random.integers(0, max(n_runs - 1, 1), n_atoms))  # the last run has no atom
        self.order = torch.from_numpy(random.permutation(n_atoms)) if n_runs > 1 else torch.arange(n_atoms)
        self.run_first = torch.from_numpy(np.searchsorted(element, np.arange(n_runs + 1)))
        self.run_first[-1] = n_atoms
        self.element = np.empty(n_atoms, dtype=np.int64)
        self.element[self.order.numpy()] = element if n_runs > 1 else 0
        self.inputs, self.matrices, self.terms, self.dense = [], [], [], []
        for n_sources, n_groups, n_in in parts:
            n_terms = 2 * n_targets
            columns = [random.integers(0, size, n_terms) for size in (n_targets, n_sources, n_groups)]
            self.terms.append(RowTerms(*columns, n_targets, n_groups))
            dense = np.zeros((n_targets, n_sources, n_groups))
            np.add.at(dense, tuple(columns), 1.0)
            self.dense.append(torch.from_numpy(dense))
            self.inputs.append(normal(n_atoms, n_sources, n_in).requires_grad_())
            self.matrices.append(normal(n_runs, n_groups, n_in, n_out).requires_grad_())
        self.weight = normal(n_atoms, n_targets, n_out)

    def call(self, inputs: Any = None, matrices: Any = None) -> Any:
        return row_linear(inputs or self.inputs, matrices or self.matrices, self.terms, self.order, self.run_first)

    def oracle(self) -> tuple[Any, list[Any], list[Any]]:
        inputs = [x.detach().double().requires_grad_() for x in self.inputs]
        matrices = [m.detach().double().requires_grad_() for m in self.matrices]
        out = sum(
            torch.einsum("asn,wsg,agnk->awk", x, dense, m[self.element])
            for x, dense, m in zip(inputs, self.dense, matrices, strict=True)
        )
        return out, inputs, matrices


# atoms, targets, n_out, parts (sources, groups, n_in), runs: widths beside those of vectors, tiles that are not full
SIZES = [
    (5, 3, 1, [(4, 2, 3)], 1),
    (70, 9, 21, [(5, 3, 10), (9, 4, 17)], 3),
    (49, 4, 64, [(4, 4, 32)], 1),
    (300, 6, 42, [(7, 2, 8), (3, 3, 64), (2, 1, 5)], 4),
    (0, 2, 7, [(3, 2, 4)], 1),
]


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(
    ("dtype", "relative"), [(torch.float64, OPERATOR_RELATIVE), (torch.float32, OPERATOR_RELATIVE_FLOAT)]
)
def test_values_and_gradients(size: Any, dtype: Any, relative: float) -> None:
    problem = Problem(*size, dtype)
    out = problem.call()
    expected, inputs, matrices = problem.oracle()
    actual = torch.autograd.grad((out * problem.weight).sum(), [*problem.inputs, *problem.matrices])
    wanted = torch.autograd.grad((expected * problem.weight.double()).sum(), [*inputs, *matrices])
    for a, b in zip([out.detach(), *actual], [expected.detach(), *wanted], strict=True):
        assert a.dtype == dtype
        assert_close(a, b, relative * (float(b.abs().max()) if b.numel() else 0.0))


@pytest.mark.parametrize("size", [(3, 2, 2, [(2, 2, 3), (3, 1, 2)], 2), (2, 2, 3, [(2, 1, 1)], 1)], ids=str)
def test_gradients_of_gradients(size: Any) -> None:
    problem = Problem(*size, torch.float64)
    n = len(problem.inputs)

    def function(*tensors: Any) -> Any:
        return problem.call(list(tensors[:n]), list(tensors[n:]))

    assert torch.autograd.gradcheck(function, [*problem.inputs, *problem.matrices])
    assert torch.autograd.gradgradcheck(function, [*problem.inputs, *problem.matrices])


def test_torch_accepts_the_operators() -> None:
    problem = Problem(3, 2, 2, [(2, 2, 3)], 2, torch.float64)
    x, m, table, runs = problem.inputs[0], problem.matrices[0], problem.terms[0], (problem.order, problem.run_first)
    sizes, ops = [table.n_targets, x.shape[1], table.n_groups], torch.ops.grace_md
    torch.library.opcheck(ops.row_linear.default, ([x], [m], [table.terms], sizes, *runs))
    torch.library.opcheck(ops.row_linear_inputs.default, (problem.weight, m, table.terms, sizes, *runs))
    torch.library.opcheck(ops.row_linear_matrices.default, (problem.weight, x, table.terms, sizes, *runs))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_threads_do_not_change_a_bit(dtype: Any) -> None:
    problem, before, results = Problem(*SIZES[3], dtype), torch.get_num_threads(), []
    try:
        for n_threads in (1, 2, 5):
            torch.set_num_threads(n_threads)
            out = problem.call()
            gradients = torch.autograd.grad((out * problem.weight).sum(), [*problem.inputs, *problem.matrices])
            results.append([out, *gradients])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_without_runs_all_atoms_share_the_matrices() -> None:
    problem = Problem(*SIZES[2], torch.float64)
    assert torch.equal(row_linear(problem.inputs, problem.matrices, problem.terms), problem.call())


def test_wrong_operands() -> None:
    problem = Problem(5, 2, 3, [(2, 2, 4)], 1, torch.float64)
    x, m, terms = problem.inputs[0].detach(), problem.matrices[0].detach(), problem.terms[0]
    with pytest.raises(ValueError, match=r"`matrices\[0\]` must have shape \[1, 2, 4, 3\], got \[1, 2, 3, 3\]"):
        row_linear([x], [m[:, :, 1:]], [terms])
    with pytest.raises(ValueError, match=r"names source row 1, which must be 0 .. 0"):
        row_linear([x[:, 1:].contiguous()], [m], [terms])
    with pytest.raises(ValueError, match="all be float32 or all float64"):
        row_linear([x.float()], [m], [terms])
    with pytest.raises(ValueError, match=r"`order` must be 0 .. 4, got 5"):
        row_linear([x], [m], [terms], torch.arange(1, 6), torch.tensor([0, 5]))
    with pytest.raises(ValueError, match="outside of"):
        RowTerms([0], [0], [1], 1, 1)
