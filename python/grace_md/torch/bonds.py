"""Bond geometry without a graph, for the backend "core": everything that does not depend on weights, once per batch."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from grace_md.torch import bond_numbers
from grace_md.torch.batch import AtomsBatch
from grace_md.torch.geometry import bond_vectors, harmonics_with_gradient, lengths_and_directions
from grace_md.torch.pairs import Pairing, find_pairs
from grace_md.torch.radial import chebyshev_with_slope

__all__ = ["BondConstants", "bond_constants"]


@dataclass(frozen=True)
class BondConstants:
    """Geometry of the pairs of bonds of a batch (`grace_md.torch.pairs`), that of their first bonds.

    Attributes
    ----------
    pairs : Pairing
    center, neighbor : int64 [n_pairs]
    vectors : float64 [n_pairs, 3], r in A
    directions : float64 [n_pairs, 3], u = r / d, times 1 / rc: the gradient dx/dr of x = d / rc
    basis, slope : [n_pairs, n_basis], g_k(x) and dg_k/dx
    harmonics : [n_pairs, n_rows], Y
    gradient : [n_pairs, n_rows, 3], dY/dr in 1/A
    signs : [n_rows], (-1)^l
    """

    pairs: Pairing
    center: Tensor
    neighbor: Tensor
    vectors: Tensor
    directions: Tensor
    basis: Tensor
    slope: Tensor
    harmonics: Tensor
    gradient: Tensor
    signs: Tensor


@torch.no_grad()
def bond_constants(
    batch: AtomsBatch, pair_cutoffs: Tensor, n_basis: int, order: int, lmax: int, dtype: torch.dtype
) -> BondConstants:
    """Return the constants of a batch; `dtype`: of what the network reads."""
    pairs = find_pairs(batch, symmetric=torch.equal(pair_cutoffs, pair_cutoffs.T))
    center, neighbor = batch.center[pairs.first], batch.neighbor[pairs.first]
    firsts = replace(batch, center=center, neighbor=neighbor, shift=batch.shift[pairs.first], cache={})
    if batch.positions.device.type == "cpu":
        vectors, d, scaled = bond_numbers.bond_vectors(firsts, pair_cutoffs)
        basis, slope = bond_numbers.bond_radial_basis(scaled, n_basis, order, dtype)
        values, gradient = bond_numbers.bond_harmonics(vectors, lmax, dtype)
    else:
        vectors = bond_vectors(firsts)
        d, u = lengths_and_directions(vectors)
        scaled = d / pair_cutoffs[batch.species[center], batch.species[neighbor]]
        basis, slope = (part.to(dtype) for part in chebyshev_with_slope(scaled, n_basis, order))
        values, by_direction = harmonics_with_gradient(u, lmax)
        along = (by_direction * u[:, None, :]).sum(2, keepdim=True)  # du_x/dr_y = (delta_xy - u_x u_y) / d
        gradient = ((by_direction - along * u[:, None, :]) / d[:, None, None]).to(dtype)
        values = values.to(dtype)
    degrees = torch.arange(lmax + 1, device=vectors.device)
    parity = (1 - 2 * (degrees % 2)).repeat_interleave(2 * degrees + 1, output_size=(lmax + 1) ** 2)
    return BondConstants(
        pairs=pairs,
        center=center,
        neighbor=neighbor,
        vectors=vectors,
        directions=vectors * (scaled / (d * d))[:, None],
        basis=basis,
        slope=slope,
        harmonics=values,
        gradient=gradient,
        signs=parity.to(dtype),
    )
