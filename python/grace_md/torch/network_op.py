"""The radial network and its derivative as one operator of the core, with gradients to the weights.

    R, slope = radial_network(basis, basis_slope, weights, "silu")      # both [n_bonds, n_out]

Tiles of bonds go through all layers while they are in the cache; the backward pass computes hidden layers again instead
of keeping them. What is differentiated: R and dR/dx with respect to the weights, which is what losses of energies and
forces need. A derivative of that derivative is built from plain torch operations, as is everything if the basis
requires gradients, and on other devices than the CPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from grace_md import _core
from grace_md.torch.op_tools import address, real_dtype

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

__all__ = ["plain_radial_network", "radial_network"]


def radial_network(
    basis: Tensor, slope: Tensor, weights: Sequence[Tensor], activation: str = "silu"
) -> tuple[Tensor, Tensor]:
    """Return R = f(... f(g W_0) ...) W_last and its derivative along `slope`, both [n_bonds, n_out].

    Parameters
    ----------
    basis, slope : [n_bonds, n_basis]
        g_k(x) and dg_k/dx.
    weights : [n_in, n_out] of every layer
        With the factors 1/sqrt(n_in); there are no biases and the last layer is linear.
    activation : "silu" | "tanh"
        f.
    """
    if activation not in {"silu", "tanh"}:
        raise ValueError(f"`activation` = {activation!r} is unknown; use 'silu' or 'tanh'.")
    is_tanh = activation == "tanh"
    if basis.device.type != "cpu" or basis.requires_grad or slope.requires_grad:
        return plain_radial_network(basis, slope, weights, is_tanh)
    result: tuple[Tensor, Tensor] = _radial_network(basis, slope, list(weights), is_tanh)
    return result


def plain_radial_network(
    basis: Tensor, slope: Tensor, weights: Sequence[Tensor], is_tanh: bool
) -> tuple[Tensor, Tensor]:
    """Return what `radial_network` returns, from torch operations that can be differentiated to any order."""
    value, derivative = basis, slope
    for weight in weights[:-1]:
        value, derivative = value @ weight, derivative @ weight
        if is_tanh:
            value = torch.tanh(value)
            factor = 1.0 - value * value
        else:
            sigmoid = torch.sigmoid(value)
            value = value * sigmoid
            factor = sigmoid + value * (1.0 - sigmoid)
        derivative = factor * derivative
    return value @ weights[-1], derivative @ weights[-1]


def _arguments(basis: Tensor, slope: Tensor, weights: Sequence[Tensor], is_tanh: bool) -> dict[str, Any]:
    """Return the checked arguments that both functions of the core take."""
    if basis.ndim != 2 or not weights or any(weight.ndim != 2 for weight in weights):
        raise ValueError("`basis` must have shape [n_bonds, n_basis] and `weights` one matrix for each layer.")
    dtype = real_dtype(basis=basis, slope=slope, **{f"weights[{k}]": weight for k, weight in enumerate(weights)})
    widths = [basis.shape[1], *(weight.shape[1] for weight in weights)]
    return {
        "is_double": dtype == torch.float64,
        "widths": widths,
        "weights": [
            address(f"weights[{k}]", weight, dtype, (widths[k], widths[k + 1])) for k, weight in enumerate(weights)
        ],
        "is_tanh": is_tanh,
        "basis": address("basis", basis, dtype, basis.shape),
        "slope": address("slope", slope, dtype, basis.shape),
        "n_bonds": basis.shape[0],
        "n_threads": torch.get_num_threads(),
    }


@torch.library.custom_op(
    "grace_md::radial_network",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor basis, Tensor slope, Tensor[] weights, bool is_tanh) -> (Tensor, Tensor)",
)
def _radial_network(basis: Tensor, slope: Tensor, weights: list[Tensor], is_tanh: bool) -> tuple[Tensor, Tensor]:
    weights = [weight.contiguous() for weight in weights]
    arguments = _arguments(basis, slope, weights, is_tanh)
    value, derivative = (basis.new_empty(basis.shape[0], weights[-1].shape[1]) for _ in range(2))
    _core.radial_network(**arguments, value=value.data_ptr(), derivative=derivative.data_ptr())
    return value, derivative


@_radial_network.register_fake
def _(basis: Tensor, slope: Tensor, weights: list[Tensor], is_tanh: bool) -> tuple[Tensor, Tensor]:
    shape = (basis.shape[0], weights[-1].shape[1])
    return basis.new_empty(shape), basis.new_empty(shape)


@torch.library.custom_op(
    "grace_md::radial_network_adjoint",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor basis, Tensor slope, Tensor[] weights, bool is_tanh, Tensor value_gradient, "
    "Tensor derivative_gradient) -> Tensor[]",
)
def _adjoint(
    basis: Tensor,
    slope: Tensor,
    weights: list[Tensor],
    is_tanh: bool,
    value_gradient: Tensor,
    derivative_gradient: Tensor,
) -> list[Tensor]:
    weights = [weight.contiguous() for weight in weights]
    arguments = _arguments(basis, slope, weights, is_tanh)
    shape = (basis.shape[0], weights[-1].shape[1])
    gradients = [torch.empty_like(weight) for weight in weights]
    _core.radial_network_adjoint(
        **arguments,
        value_gradient=address("value_gradient", value_gradient, basis.dtype, shape),
        derivative_gradient=address("derivative_gradient", derivative_gradient, basis.dtype, shape),
        weight_gradients=[gradient.data_ptr() for gradient in gradients],
    )
    return gradients


@_adjoint.register_fake
def _(
    basis: Tensor,
    slope: Tensor,
    weights: list[Tensor],
    is_tanh: bool,
    value_gradient: Tensor,
    derivative_gradient: Tensor,
) -> list[Tensor]:
    return [torch.empty_like(weight) for weight in weights]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    basis, slope, weights, ctx.is_tanh = inputs
    ctx.save_for_backward(basis, slope, *weights)


def _backward(
    ctx: Any, value_gradient: Tensor, derivative_gradient: Tensor
) -> tuple[None, None, Sequence[Tensor | None], None]:
    basis, slope, *weights = ctx.saved_tensors
    gradients: Sequence[Tensor | None]
    if torch.is_grad_enabled():  # create_graph=True: a graph that can be differentiated again
        leaves = [weight.view_as(weight) if weight.requires_grad else weight for weight in weights]
        wanted = [leaf for leaf in leaves if leaf.requires_grad]
        outputs = plain_radial_network(basis, slope, leaves, ctx.is_tanh)
        found = iter(
            torch.autograd.grad(
                outputs, wanted, (value_gradient, derivative_gradient), create_graph=True, materialize_grads=True
            )
        )
        gradients = [next(found) if leaf.requires_grad else None for leaf in leaves]
    else:
        gradients = _adjoint(
            basis, slope, weights, ctx.is_tanh, value_gradient.contiguous(), derivative_gradient.contiguous()
        )
    return None, None, gradients, None


_radial_network.register_autograd(_backward, setup_context=_setup)
