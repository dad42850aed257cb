"""What the operators share: addresses of checked tensors, and derivatives of multilinear operators."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

__all__ = ["address", "close_under_differentiation", "real_dtype"]


def address(name: str, tensor: Tensor | None, dtype: torch.dtype, shape: Sequence[int]) -> int:
    """Return where a tensor lies in memory, after every check that the core cannot make; 0 for None."""
    if tensor is None:
        return 0
    if tensor.device.type != "cpu":
        raise ValueError(f"`{name}` lies on {tensor.device}, other operands on the CPU; move it there first.")
    if tensor.dtype != dtype:
        raise ValueError(f"`{name}` must be {dtype}, got {tensor.dtype}; convert it with `.to({dtype})`.")
    if tuple(tensor.shape) != tuple(shape):
        raise ValueError(f"`{name}` must have shape {list(shape)}, got {list(tensor.shape)}.")
    if not tensor.is_contiguous():
        raise ValueError(f"`{name}` is not contiguous in memory; pass `{name}.contiguous()`.")
    return int(tensor.data_ptr())


def real_dtype(**operands: Tensor | None) -> torch.dtype:
    """Return the dtype of the operands that are given, which must be one of float32 and float64."""
    dtypes = {name: tensor.dtype for name, tensor in operands.items() if tensor is not None}
    if len(set(dtypes.values())) != 1 or not set(dtypes.values()) <= {torch.float32, torch.float64}:
        raise ValueError(f"Operands must all be float32 or all float64, got {dtypes}.")
    return next(iter(dtypes.values()))


def close_under_differentiation(operator: Any, n_slots: int) -> None:
    """Register the derivatives of a multilinear operator(*operands, *others, slot), whose free operand is None.

    The derivative with respect to operand k, contracted with the gradient of the result, is the operator itself with
    slot k free and the gradient in the place that was free.
    """

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:n_slots])
        *ctx.others, ctx.slot = inputs[n_slots:]

    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        operands = list(ctx.saved_tensors)
        operands[ctx.slot] = gradient.contiguous()

        def derivative(free: int) -> Tensor | None:
            if free == ctx.slot or not _is_wanted(ctx, free, free - (free > ctx.slot)):
                return None
            others = [None if k == free else operand for k, operand in enumerate(operands)]
            result: Tensor = operator(*others, *ctx.others, free)
            return result

        return (*(derivative(k) for k in range(n_slots)), *(None for _ in ctx.others), None)

    operator.register_autograd(backward, setup_context=setup_context)


def _is_wanted(ctx: Any, argument: int, edge: int) -> bool:
    """Whether this backward pass will use the gradient of an argument.

    `needs_input_grad` is true for every operand that has a gradient at all; the engine knows more: forces, for example,
    need no gradient of the chemical embedding. `edge` counts the tensor arguments only.
    """
    if not ctx.needs_input_grad[argument]:
        return False
    with contextlib.suppress(AttributeError, RuntimeError):  # RuntimeError: a leaf whose gradient was asked for
        node = ctx.next_functions[edge][0]
        return node is None or bool(torch._C._will_engine_execute_node(node))
    return True
