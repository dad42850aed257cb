"""Bonds come in pairs: (i, j, S) and (j, i, -S) share length, radial functions and, up to signs, harmonics.

What depends on geometry alone is computed once per pair, without a graph, and spread to both bonds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from grace_md.torch.batch import AtomsBatch

__all__ = ["Pairing", "find_pairs", "to_bonds"]


@dataclass(frozen=True)
class Pairing:
    """Pairs of bonds.

    Attributes
    ----------
    of_bond : int64 [n_bonds], pair of every bond
    first, second : int64 [n_pairs], its bonds; `second` is empty where bonds were not paired, each being its own pair
    """

    of_bond: Tensor
    first: Tensor
    second: Tensor

    @property
    def paired(self) -> bool:
        """Whether every pair has two bonds."""
        return len(self.second) == len(self.first)


def find_pairs(batch: AtomsBatch, *, symmetric: bool) -> Pairing:
    """Return the pairs of a batch; each bond its own pair if lists are not symmetric or numbers would overflow.

    `symmetric`: cutoffs do not depend on which of two elements is the centre.
    """
    n_bonds, device = batch.n_bonds, batch.center.device
    every = torch.arange(n_bonds, device=device)
    alone = Pairing(every, every, every[:0])
    if not symmetric or n_bonds == 0:
        return alone
    shift = batch.shift.to(torch.int64)
    reach = int(shift.abs().max())
    span = 2 * reach + 1
    if batch.n_atoms**2 * span**3 >= 2**62:
        return alone
    weights = torch.tensor([span * span, span, 1], device=device)
    image, mirrored = ((shift + reach) * weights).sum(1), ((reach - shift) * weights).sum(1)
    key = (batch.center * batch.n_atoms + batch.neighbor) * span**3 + image
    reverse_key = (batch.neighbor * batch.n_atoms + batch.center) * span**3 + mirrored
    ordered, order = torch.sort(key)
    reverse_ordered, reverse_order = torch.sort(reverse_key)
    if not torch.equal(ordered, reverse_ordered):
        return alone
    partner = torch.empty_like(order)
    partner[order] = reverse_order
    first = torch.nonzero(every < partner).squeeze(1)
    of_bond = torch.empty_like(order)
    of_bond[first] = every[: len(first)]
    second = partner[first]
    of_bond[second] = every[: len(first)]
    return Pairing(of_bond, first, second)


def to_bonds(values: Tensor, pairs: Pairing, signs: Tensor | None = None) -> Tensor:
    """Return the values of pairs [n_pairs, ...] for both bonds of each, [n_bonds, ...].

    `signs` [n_columns] multiplies the second bonds (harmonics of odd degree change sign). The adjoint adds both bonds,
    so that either direction is a gather, to any order of derivatives.
    """
    if not pairs.paired:
        return values
    result: Tensor = _Spread.apply(values, pairs, signs)  # type: ignore[no-untyped-call]
    return result


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, pairs: Pairing, signs: Tensor | None) -> Tensor:
        ctx.pairs, ctx.signs = pairs, signs
        out = values.index_select(0, pairs.of_bond)
        if signs is not None:
            out.index_copy_(0, pairs.second, values * signs)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        return _Collect.apply(gradient, ctx.pairs, ctx.signs), None, None  # type: ignore[no-untyped-call]


class _Collect(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, pairs: Pairing, signs: Tensor | None) -> Tensor:
        ctx.pairs, ctx.signs = pairs, signs
        out, second = values.index_select(0, pairs.first), values.index_select(0, pairs.second)
        return out.add_(second) if signs is None else out.addcmul_(second, signs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        return _Spread.apply(gradient, ctx.pairs, ctx.signs), None, None  # type: ignore[no-untyped-call]
