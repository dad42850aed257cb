"""Radial functions: Chebyshev basis with a polynomial envelope, and dense networks without biases.

For automatic differentiation from positions; `grace_md.torch.network_op` carries (value, derivative) pairs along,
so that forces need no graph through the geometry.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def envelope(x: Tensor, order: int) -> Tensor:
    """Return f_p(x) = 1 - (p+1)(p+2)/2 x^p + p(p+2) x^(p+1) - p(p+1)/2 x^(p+2), 0 at x = 1 with two derivatives.

    Its factor (1 - x)^3 is taken out, which avoids cancellation near the cutoff.
    """
    total = torch.full_like(x, order * (order + 1) / 2)
    for k in range(order - 2, -1, -1):  # Horner, sum_k (k+1)(k+2)/2 x^k for k < p
        total = total * x + (k + 1) * (k + 2) / 2
    return (1.0 - x) ** 3 * total


def chebyshev_basis(x: Tensor, n_basis: int, order: int) -> Tensor:
    """Return g_k(x) = T_k(2x - 1) f_p(x), k = 1..n_basis, [n_bonds, n_basis], for x = d / rc; 0 from x = 1 on."""
    t = 2.0 * x - 1.0
    functions = [torch.ones_like(t), t]
    for _ in range(2, n_basis + 1):
        functions.append(2.0 * t * functions[-1] - functions[-2])
    inside = x < 1.0
    value = torch.stack(functions[1 : n_basis + 1], dim=1) * envelope(x, order)[:, None]
    return torch.where(inside[:, None], value, torch.zeros_like(value))


def chebyshev_with_slope(x: Tensor, n_basis: int, order: int) -> tuple[Tensor, Tensor]:
    """Return g_k(x) and dg_k/dx, each [n_bonds, n_basis] (see `chebyshev_basis`); U_k are the second kind."""
    t = 2.0 * x - 1.0
    first, second = [torch.ones_like(t), t], [torch.ones_like(t), 2.0 * t]
    for _ in range(2, n_basis + 1):
        first.append(2.0 * t * first[-1] - first[-2])
        second.append(2.0 * t * second[-1] - second[-2])
    f, p = envelope(x, order), order
    slope = -p * (p + 1) * (p + 2) / 2 * x ** (p - 1) * (1.0 - x) ** 2
    inside = (x < 1.0)[:, None]
    value = torch.stack([first[k] * f for k in range(1, n_basis + 1)], dim=1)
    derivative = torch.stack([2 * k * second[k - 1] * f + first[k] * slope for k in range(1, n_basis + 1)], dim=1)
    zero = torch.zeros_like(value)
    return torch.where(inside, value, zero), torch.where(inside, derivative, zero)


Activation = Callable[[Tensor], Tensor]
ACTIVATIONS: dict[str, Activation] = {"silu": torch.nn.functional.silu, "tanh": torch.tanh}


def network(x: Tensor, weights: Sequence[Tensor], activation: str) -> Tensor:
    """Return the output of layers y = activation(x W), the last one linear; norms are folded into `weights`."""
    function = ACTIVATIONS[activation]
    for weight in weights[:-1]:
        x = function(x @ weight)
    return x @ weights[-1]
