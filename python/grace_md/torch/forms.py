"""The multilinear forms of a GRACE model in plain torch: differentiable to any order, on any device.

Signatures and results are those of `grace_md.torch.ops`, which calls the core. The backend "torch" runs on these, so
that models can be checked without any kernel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from grace_md.torch import plain_ops

if TYPE_CHECKING:
    from torch import Tensor

    from grace_md.torch.coupling_terms import CouplingTerms

__all__ = ["bond_basis", "coupling_product", "message_basis"]


def bond_basis(radial: Tensor, harmonics: Tensor, chemical: Tensor, first_bond: Tensor, bond_species: Tensor) -> Tensor:
    """Return A[i, lm, n] = sum over bonds b of atom i of R[b, l, n] Y[b, lm] z[s_b, n] (see `ops.bond_basis`)."""
    return plain_ops.bond_basis(None, radial, harmonics, chemical, first_bond, bond_species, chemical.shape[0], 0)


def coupling_product(left: Tensor, right: Tensor, terms: CouplingTerms) -> Tensor:
    """Return P[a, row, n] = sum over terms of c L[a, left, n] S[a, right, n] (see `ops.coupling_product`)."""
    return plain_ops.coupling_product(None, left, right, terms.terms, terms.coefficients, terms.sizes, 0)


def message_basis(
    radial: Tensor, harmonics: Tensor, message: Tensor, first_bond: Tensor, neighbor: Tensor, terms: CouplingTerms
) -> Tensor:
    """Return YI[i, f, n] = sum over bonds b of atom i and terms of c R[b, l(y), n] Y[b, y] I[j_b, w, n].

    The sum over bonds comes first, for one row w of the message at a time: X[i, y, w, n] is [n_atoms, n_harmonics,
    n_message_rows, n_channels], and nothing larger than [n_bonds, n_harmonics, n_channels] is made per bond.

    Parameters
    ----------
    radial : [n_bonds, lmax + 1, n_channels]
    harmonics : [n_bonds, (lmax + 1)^2]
    message : [n_atoms, n_message_rows, n_channels]
    first_bond : int64 [n_atoms + 1]
    neighbor : int64 [n_bonds], atom j_b
    terms : (row f, left y, right w, coefficient)

    Returns
    -------
    [n_atoms, n_rows, n_channels]
    """
    n_atoms, n_message = message.shape[:2]
    n_bonds, n_harmonics = harmonics.shape
    center = plain_ops.centers(first_bond, n_bonds)
    angular = radial[:, plain_ops.degree_of_row(n_harmonics, radial.device)] * harmonics[:, :, None]
    sums = []
    for w in range(n_message):
        values = angular * message[:, w][neighbor][:, None, :]
        sums.append(values.new_zeros((n_atoms, *values.shape[1:])).index_add(0, center, values))
    left = torch.stack(sums, dim=2)
    row, y, w_index = terms.terms[0].long().unbind(1)
    products = left[:, y, w_index] * terms.coefficients[0].to(left.dtype)[:, None]
    return products.new_zeros((n_atoms, terms.sizes[0], left.shape[-1])).index_add(1, row, products)
