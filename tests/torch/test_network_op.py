"""The radial network as an operator: values, gradients, second derivatives, threads, precision, wrong input."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from grace_md.torch.network_op import plain_radial_network, radial_network  # noqa: E402
from tolerances import OPERATOR_RELATIVE, OPERATOR_RELATIVE_FLOAT, assert_close  # noqa: E402

# bonds and widths: no bonds, tiles that are not full, several partial sums, no hidden layer, widths beside vectors
SIZES = [(0, (3, 5, 4)), (1, (8, 64, 64, 160)), (77, (10, 17, 9, 21)), (2111, (5, 16, 8, 33)), (40, (7, 6))]


def problem(n_bonds: int, widths: tuple[int, ...], dtype: Any = torch.float64) -> tuple[Any, Any, list[Any]]:
    random = np.random.default_rng(n_bonds)

    def normal(*shape: int) -> Any:
        return torch.empty(shape, dtype=dtype).copy_(torch.from_numpy(random.normal(size=shape)))

    weights = [normal(*pair) for pair in itertools.pairwise(widths)]
    scaled = [weight / weight.shape[0] ** 0.5 for weight in weights]
    return normal(n_bonds, widths[0]), normal(n_bonds, widths[0]), [w.requires_grad_() for w in scaled]


def gradients(function: Any, dtype: Any, size: Any, activation: str) -> tuple[list[Any], list[Any]]:
    basis, slope, weights = problem(*size, dtype)
    value, derivative = function(basis, slope, weights, activation)
    random = np.random.default_rng(1)
    factors = [torch.from_numpy(random.normal(size=value.shape)).to(dtype) for _ in range(2)]
    total = (value * factors[0]).sum() + (derivative * factors[1]).sum()
    return [value.detach(), derivative.detach()], list(torch.autograd.grad(total, weights))


def plain(basis: Any, slope: Any, weights: Any, activation: str) -> Any:
    return plain_radial_network(basis, slope, weights, activation == "tanh")


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("activation", ["silu", "tanh"])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(
    ("dtype", "relative"), [(torch.float64, OPERATOR_RELATIVE), (torch.float32, OPERATOR_RELATIVE_FLOAT)]
)
def test_values_and_gradients(size: Any, activation: str, dtype: Any, relative: float) -> None:
    values, by_weights = gradients(radial_network, dtype, size, activation)
    expected_values, expected = gradients(plain, torch.float64, size, activation)
    for actual, wanted in zip([*values, *by_weights], [*expected_values, *expected], strict=True):
        assert actual.dtype == dtype
        largest = float(wanted.abs().max()) if wanted.numel() else 0.0
        assert_close(actual, wanted, relative * largest)


@pytest.mark.parametrize("activation", ["silu", "tanh"])
@pytest.mark.parametrize("size", [(4, (2, 3, 3, 2)), (0, (2, 3, 2))], ids=str)
def test_gradients_of_gradients(size: Any, activation: str) -> None:
    basis, slope, weights = problem(*size)

    def function(*matrices: Any) -> Any:
        return radial_network(basis, slope, matrices, activation)

    assert torch.autograd.gradcheck(function, weights)
    assert torch.autograd.gradgradcheck(function, weights)


def test_torch_accepts_the_operators() -> None:
    basis, slope, weights = problem(5, (2, 4, 3))
    torch.library.opcheck(torch.ops.grace_md.radial_network.default, (basis, slope, weights, False))
    arguments = (
        basis,
        slope,
        [w.detach() for w in weights],
        True,
        torch.ones(5, 3).double(),
        torch.ones(5, 3).double(),
    )
    torch.library.opcheck(torch.ops.grace_md.radial_network_adjoint.default, arguments)


def test_some_weights_may_be_frozen() -> None:
    basis, slope, weights = problem(5, (2, 4, 3))
    frozen = [weights[0].detach(), weights[1]]
    for create_graph in (False, True):
        total = radial_network(basis, slope, frozen)[1].square().sum()
        (actual,) = torch.autograd.grad(total, [weights[1]], create_graph=create_graph)
        (expected,) = torch.autograd.grad(
            plain_radial_network(basis, slope, frozen, False)[1].square().sum(), [weights[1]]
        )
        assert_close(actual.detach(), expected, OPERATOR_RELATIVE * float(expected.abs().max()))


def test_gradients_of_the_basis_come_from_the_plain_formula() -> None:
    basis, slope, weights = problem(4, (2, 3, 2))
    basis.requires_grad_()
    assert torch.autograd.gradcheck(lambda b: radial_network(b, slope, weights), basis)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_threads_do_not_change_a_bit(dtype: Any) -> None:
    before = torch.get_num_threads()
    results = []
    try:
        for n_threads in (1, 2, 5):
            torch.set_num_threads(n_threads)
            values, by_weights = gradients(radial_network, dtype, (1234, (8, 16, 16, 20)), "silu")
            results.append([*values, *by_weights])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_wrong_operands() -> None:
    basis, slope, weights = problem(5, (2, 4, 3))
    with pytest.raises(ValueError, match="`activation` = 'relu' is unknown"):
        radial_network(basis, slope, weights, "relu")
    with pytest.raises(ValueError, match=r"`slope` must have shape \[5, 2\], got \[4, 2\]"):
        radial_network(basis, slope[1:], weights)
    with pytest.raises(ValueError, match=r"`weights\[1\]` must have shape \[4, 4\], got \[2, 4\]"):
        radial_network(basis, slope, [weights[0], weights[0]])
    with pytest.raises(ValueError, match="all be float32 or all float64"):
        radial_network(basis, slope.float(), weights)
