"""Numbers of the bonds of a batch that no parameter enters: vectors, harmonics, radial basis, with their slopes.

Everything is computed in double by the core, once per batch, and carries no gradient: training needs dE/dr through the
slopes given here, and gradients of that with respect to parameters only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from grace_md import _core
from grace_md.torch.op_tools import address

if TYPE_CHECKING:
    from torch import Tensor

    from grace_md.torch.batch import AtomsBatch

__all__ = ["BondVectors", "bond_harmonics", "bond_radial_basis", "bond_vectors"]


class BondVectors(NamedTuple):
    """Vectors r [n_bonds, 3] (A), lengths d = sqrt(|r|^2 + 1e-10) [n_bonds] (A), x = d / rc [n_bonds]; float64."""

    vector: Tensor
    distance: Tensor
    scaled: Tensor


def bond_vectors(batch: AtomsBatch, pair_cutoffs: Tensor) -> BondVectors:
    """Return vectors and lengths of the bonds of a batch on the CPU.

    Parameters
    ----------
    batch : AtomsBatch
    pair_cutoffs : float64 [n_elements, n_elements]
        rc in A; row: element of the centre.
    """
    n_atoms, n_bonds, n_structures = batch.n_atoms, batch.n_bonds, batch.n_structures
    n_elements = pair_cutoffs.shape[0]
    numbers = BondVectors(*(torch.empty(shape, dtype=torch.float64) for shape in ((n_bonds, 3), n_bonds, n_bonds)))
    _core.bond_vectors(
        address("positions", batch.positions.detach(), torch.float64, (n_atoms, 3)),
        address("cells", batch.cells.detach(), torch.float64, (n_structures, 3, 3)),
        address("shift", batch.shift, torch.float64, (n_bonds, 3)),
        address("pair_cutoffs", pair_cutoffs, torch.float64, (n_elements, n_elements)),
        address("structure", batch.structure, torch.int64, (n_atoms,)),
        address("species", batch.species, torch.int64, (n_atoms,)),
        address("center", batch.center, torch.int64, (n_bonds,)),
        address("neighbor", batch.neighbor, torch.int64, (n_bonds,)),
        n_atoms=n_atoms,
        n_bonds=n_bonds,
        n_structures=n_structures,
        n_elements=n_elements,
        vector=numbers.vector.data_ptr(),
        distance=numbers.distance.data_ptr(),
        scaled=numbers.scaled.data_ptr(),
        n_threads=torch.get_num_threads(),
    )
    return numbers


def bond_harmonics(vector: Tensor, lmax: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return harmonics Y(u) [n_bonds, (lmax + 1)^2] and dY/dr [n_bonds, (lmax + 1)^2, 3] (1/A) of `vector`, u = r/d.

    Parameters
    ----------
    vector : float64 [n_bonds, 3]
        r in A.
    lmax : int
    dtype : torch.float32 | torch.float64
        Of the results; they are computed in double.
    """
    n_bonds, n_rows = vector.shape[0], (lmax + 1) ** 2
    values, gradient = torch.empty(n_bonds, n_rows, dtype=dtype), torch.empty(n_bonds, n_rows, 3, dtype=dtype)
    _core.bond_harmonics(
        _is_double(dtype),
        lmax,
        n_bonds,
        address("vector", vector, torch.float64, (n_bonds, 3)),
        values.data_ptr(),
        gradient.data_ptr(),
        torch.get_num_threads(),
    )
    return values, gradient


def bond_radial_basis(scaled: Tensor, n_basis: int, order: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return g_k(x) = T_k(2x - 1) f_p(x), k = 1 .. n_basis, and dg_k/dx, both [n_bonds, n_basis], 0 from x = 1 on.

    Parameters
    ----------
    scaled : float64 [n_bonds]
        x = d / rc.
    n_basis : int
    order : int
        p of the envelope.
    dtype : torch.float32 | torch.float64
        Of the results; they are computed in double.
    """
    n_bonds = scaled.shape[0]
    basis, slope = (torch.empty(n_bonds, n_basis, dtype=dtype) for _ in range(2))
    _core.bond_radial_basis(
        _is_double(dtype),
        n_basis,
        order,
        n_bonds,
        address("scaled", scaled, torch.float64, (n_bonds,)),
        basis.data_ptr(),
        slope.data_ptr(),
        torch.get_num_threads(),
    )
    return basis, slope


def _is_double(dtype: torch.dtype) -> bool:
    if dtype not in {torch.float32, torch.float64}:
        raise ValueError(f"`dtype` must be torch.float32 or torch.float64, got {dtype}.")
    return dtype == torch.float64
