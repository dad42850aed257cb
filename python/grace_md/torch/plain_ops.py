"""The operators of `grace_md.torch.ops` in plain torch, for devices without a kernel: same arguments, same results."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

__all__ = ["bond_basis", "coupling_product", "message_basis"]


def degree_of_row(n_rows: int, device: torch.device) -> Tensor:
    """Degree l of every row l^2 + l + m, int64 [n_rows]."""
    degrees = torch.arange(math.isqrt(n_rows), device=device)
    return torch.repeat_interleave(degrees, 2 * degrees + 1, output_size=n_rows)


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


def message_basis(
    atoms: Tensor | None,
    radial: Tensor | None,
    harmonics: Tensor | None,
    message: Tensor | None,
    first_bond: Tensor,
    neighbor: Tensor,
    terms: Tensor,
    coefficients: Tensor,
    sizes: Sequence[int],
    slot: int,
) -> Tensor:
    """Free slot of sum c YI[i_b, f, n] R[b, l(y), n] Y[b, y] I[j_b, w, n]; terms (f, y, w) of the first sorting."""
    n_rows, n_harmonics, n_message_rows = sizes
    f, y, w = terms[0].long().unbind(1)
    degree, center = degree_of_row(n_harmonics, first_bond.device), centers(first_bond, len(neighbor))
    given = next(t for t in (radial, atoms) if t is not None)
    product = coefficients[0].to(given.dtype)[:, None].expand(len(neighbor), -1, 1)  # [n_bonds, n_terms, n_channels]
    if atoms is not None:
        product = product * atoms[center][:, f]
    if radial is not None:
        product = product * radial[:, degree[y]]
    if harmonics is not None:
        product = product * harmonics[:, y, None]
    if message is not None:
        product = product * message[neighbor][:, w]
    if slot == 0:
        return _sum_to(_sum_to(product, f, n_rows, 1), center, len(first_bond) - 1, 0)
    if slot == 1:
        return _sum_to(product, degree[y], math.isqrt(n_harmonics), 1)
    if slot == 2:
        return _sum_to(product.sum(2), y, n_harmonics, 1)
    return _sum_to(_sum_to(product, w, n_message_rows, 1), neighbor, len(first_bond) - 1, 0)
