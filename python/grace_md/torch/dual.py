"""Radial networks as functions of one number: value and derivative together, with a backward written out.

With x the basis g(s) of a bond and x' = dg/ds, a layer maps (x, x') to h = silu(a), h' = silu'(a) a' with a = x W and
a' = x' W. Rows are worked on in blocks that stay in the cache, and the backward computes them again, so that no
activation of all bonds is stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["network_with_slope"]

BLOCK_BYTES = 512 * 1024  # of one activation (value and derivative) of a block, all threads together


def network_with_slope(x: Tensor, slope: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the output of a silu network and its derivative along `slope`, each [n_rows, n_out].

    Parameters
    ----------
    x, slope : [n_rows, n_in]; numbers without a graph
    weights : matrices with their norms, the last layer linear; results can be differentiated by them, once
    """
    value: Tensor
    derivative: Tensor
    value, derivative = _Network.apply(x, slope, *weights)  # type: ignore[no-untyped-call]
    return value, derivative


def _blocks(n_rows: int, width: int, itemsize: int) -> Iterator[slice]:
    size = max(64, BLOCK_BYTES // (2 * width * itemsize))
    for start in range(0, n_rows, size):
        yield slice(start, min(start + size, n_rows))


class _Layer:
    """One activation layer of a block: what the backward needs of it."""

    def __init__(self, pair: Tensor, weight: Tensor) -> None:
        """Take the inputs [2, rows, n_in] (value, derivative)."""
        self.pair, self.weight = pair, weight
        self.a = torch.mm(pair.flatten(0, 1), weight).view(2, pair.shape[1], weight.shape[1])
        value, derivative = self.a
        self.sigmoid = torch.sigmoid(value)
        self.out = torch.empty_like(self.a)
        torch.mul(value, self.sigmoid, out=self.out[0])
        # silu' = s (1 + a (1 - s)) = s + h - h s
        self.first = torch.addcmul(self.sigmoid + self.out[0], self.out[0], self.sigmoid, value=-1.0)
        torch.mul(self.first, derivative, out=self.out[1])

    def backward(self, gradient: Tensor, weight_gradient: Tensor, *, inputs: bool) -> Tensor | None:
        """Add to the gradient of the weight; return that of the inputs, [2, rows, n_in], unless nobody needs it."""
        s, (h, _), (_, derivative) = self.sigmoid, self.out, self.a
        by_value, by_derivative = gradient
        # silu'' = s (1 - s) (2 + a (1 - 2 s)) = (1 - s) (2 s + h - 2 h s) = (1 - s) (silu' + s - h s)
        second = torch.addcmul(self.first + s, h, s, value=-1.0)
        second = torch.addcmul(second, second, s, value=-1.0)
        by_value.mul_(self.first).addcmul_(second.mul_(derivative), by_derivative)
        by_derivative.mul_(self.first)
        flat = gradient.flatten(0, 1)
        weight_gradient.addmm_(self.pair.flatten(0, 1).T, flat)
        return torch.mm(flat, self.weight.T).view(self.pair.shape) if inputs else None


class _Network(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, slope, *weights)
        ctx.set_materialize_grads(False)
        value, derivative = (x.new_empty(x.shape[0], weights[-1].shape[1]) for _ in range(2))
        for rows in _blocks(x.shape[0], max(w.shape[1] for w in weights), x.element_size()):
            pair = torch.stack((x[rows], slope[rows]))
            for weight in weights[:-1]:
                pair = _Layer(pair, weight).out
            torch.mm(pair[0], weights[-1], out=value[rows])
            torch.mm(pair[1], weights[-1], out=derivative[rows])
        return value, derivative

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, by_value: Tensor | None, by_derivative: Tensor | None) -> tuple[Tensor | None, ...]:
        x, slope, *weights = ctx.saved_tensors
        totals = [torch.zeros_like(weight) for weight in weights]
        given = [g for g in (by_value, by_derivative) if g is not None]
        if not given:
            return (None, None, *(None for _ in weights))
        missing = torch.zeros_like(given[0]) if len(given) == 1 else given[0]
        by_value = missing if by_value is None else by_value
        by_derivative = missing if by_derivative is None else by_derivative
        for rows in _blocks(x.shape[0], max(w.shape[1] for w in weights), x.element_size()):
            pair = torch.stack((x[rows], slope[rows]))
            layers = []
            for weight in weights[:-1]:
                layers.append(_Layer(pair, weight))
                pair = layers[-1].out
            outer = (by_value[rows], by_derivative[rows])
            gradient = torch.empty_like(pair)
            for part in range(2):
                totals[-1].addmm_(pair[part].T, outer[part])
                torch.mm(outer[part], weights[-1].T, out=gradient[part])
            for k in range(len(layers) - 1, -1, -1):
                result = layers[k].backward(gradient, totals[k], inputs=k > 0)
                gradient = gradient if result is None else result
        return None, None, *totals
