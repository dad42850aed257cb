"""Matrix products with one matrix per group of rows, closed under differentiation.

Rows are sorted by group: rows first_g .. first_g + size_g - 1 belong to group g. The trilinear form
sum_g sum_rows y_row . (x_row W_g) has three slots, and the derivative of each is one of the other two, so that losses
of forces, which differentiate twice, run on the same loops and gather no weights per row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def grouped_matmul(x: Tensor, weights: Tensor, sizes: Sequence[int]) -> Tensor:
    """Return y[row] = x[row] @ weights[group of row].

    Parameters
    ----------
    x : [n_rows, n_in], sorted by group
    weights : [n_groups, n_in, n_out]
    sizes : rows of each group, adding up to n_rows

    Returns
    -------
    [n_rows, n_out]
    """
    result: Tensor = _Matmul.apply(x, weights, list(sizes))  # type: ignore[no-untyped-call]
    return result


class _Matmul(torch.autograd.Function):
    """y = x W, rows by group."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weights: Tensor, sizes: list[int]) -> Tensor:
        ctx.save_for_backward(x, weights)
        ctx.sizes = sizes
        out = x.new_empty((x.shape[0], weights.shape[2]))
        for rows, result, weight in zip(torch.split(x, sizes), torch.split(out, sizes), weights.unbind(), strict=True):
            torch.mm(rows, weight, out=result)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:  # type: ignore[override]
        x, weights = ctx.saved_tensors
        dx = _Matmul.apply(gradient, weights.transpose(1, 2), ctx.sizes) if ctx.needs_input_grad[0] else None  # type: ignore[no-untyped-call]
        dw = _Outer.apply(x, gradient, ctx.sizes) if ctx.needs_input_grad[1] else None  # type: ignore[no-untyped-call]
        return dx, dw, None


class _Outer(torch.autograd.Function):
    """W_g = sum over rows of the group of x y^T."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, sizes: list[int]) -> Tensor:
        ctx.save_for_backward(x, y)
        ctx.sizes = sizes
        out = x.new_empty((len(sizes), x.shape[1], y.shape[1]))
        for left, right, result in zip(torch.split(x, sizes), torch.split(y, sizes), out.unbind(), strict=True):
            torch.mm(left.T, right, out=result)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:  # type: ignore[override]
        x, y = ctx.saved_tensors
        dx = _Matmul.apply(y, gradient.transpose(1, 2), ctx.sizes) if ctx.needs_input_grad[0] else None  # type: ignore[no-untyped-call]
        dy = _Matmul.apply(x, gradient, ctx.sizes) if ctx.needs_input_grad[1] else None  # type: ignore[no-untyped-call]
        return dx, dy, None
