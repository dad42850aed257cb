"""The operators of `grace_md.torch.ops` in plain torch, for devices without a kernel: same arguments, same results."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

__all__ = ["bond_basis", "coupling_product"]


def degree_of_row(n_rows: int, device: torch.device) -> Tensor:
    """Degree l of every row l^2 + l + m, int64 [n_rows]."""
    degrees = torch.arange(math.isqrt(n_rows), device=device)
    return torch.repeat_interleave(degrees, 2 * degrees + 1)


def centers(first_bond: Tensor, n_bonds: int) -> Tensor:
    """Centre of every bond, int64 [n_bonds]."""
    atoms = torch.arange(len(first_bond) - 1, device=first_bond.device)
    return torch.repeat_interleave(atoms, first_bond.diff(), output_size=n_bonds)


def _sum_to(values: Tensor, index: Tensor, size: int, dim: int) -> Tensor:
    shape = list(values.shape)
    shape[dim] = size
    return values.new_zeros(shape).index_add_(dim, index, values)


def bond_basis(
    atoms: Tensor | None,
    radial: Tensor | None,
    harmonics: Tensor | None,
    chemical: Tensor | None,
    first_bond: Tensor,
    bond_species: Tensor,
    n_elements: int,
    slot: int,
) -> Tensor:
    """Free slot of sum A[i_b, lm, n] R[b, l, n] Y[b, lm] z[s_b, n]."""
    n_bonds = len(bond_species)
    n_rows = next(t for t in (harmonics, atoms) if t is not None).shape[1]
    degree, center = degree_of_row(n_rows, first_bond.device), centers(first_bond, n_bonds)
    factors = []  # each [n_bonds, n_rows or 1, n_channels or 1]
    if atoms is not None:
        factors.append(atoms[center])
    if radial is not None:
        factors.append(radial[:, degree])
    if harmonics is not None:
        factors.append(harmonics[:, :, None])
    if chemical is not None:
        factors.append(chemical[bond_species][:, None, :])
    product = factors[0] * factors[1] * factors[2]
    if slot == 0:
        return _sum_to(product, center, len(first_bond) - 1, 0)
    if slot == 1:
        return _sum_to(product, degree, math.isqrt(n_rows), 1)
    if slot == 2:
        return product.sum(2)
    return _sum_to(product.sum(1), bond_species, n_elements, 0)


def coupling_product(
    rows: Tensor | None,
    left: Tensor | None,
    right: Tensor | None,
    terms: Tensor,
    coefficients: Tensor,
    sizes: Sequence[int],
    slot: int,
) -> Tensor:
    """Free slot of sum c P[a, row, n] L[a, left, n] S[a, right, n]; terms sorted for each slot."""
    first, second = (t for t in (rows, left, right) if t is not None)
    target, a, b = terms[slot].long().unbind(1)
    values = first[:, a] * second[:, b] * coefficients[slot].to(first.dtype)[:, None]
    return _sum_to(values, target, sizes[slot], 1)
