"""Power spectrum of the single-particle basis of GRACE models, with a cutoff radius per atom instead of elements.

With g_k(x) = T_k(2x - 1) f(x), x = d/rc, the radial basis of the models (Chebyshev polynomials under an envelope) and
real harmonics Y_lm,

    A_{i k lm} = sum over neighbours of g_k(x) Y_lm(u)
    features:    sum over m of A_{k lm} A_{k' lm} / (2l + 1),  k <= k' <= 4, l <= 4   (50),
                 A_{k 00}, k <= 5                                                    (5).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from grace_md import _core

if TYPE_CHECKING:
    from grace_md.smax.descriptors import DescriptorBatch

__all__ = ["PowerSpectrum"]

Floats = NDArray[np.float64]
ATOMS, RADIAL, HARMONICS = 0, 1, 2  # slots of _core.bond_basis
N_POWER = 4  # radial functions of the power spectrum
N_PAIR = 5  # and of the pair sums
LMAX = 4
ENVELOPE = 5  # order of the envelope; two derivatives vanish at the cutoff
STRETCH = 1e4  # of vectors for the harmonics, whose u = r / sqrt(r^2 + 1e-10 A^2) is a unit vector for long ones


class PowerSpectrum:
    """55 rotation-invariant features of second order in the density of neighbours, and their adjoint.

    Parameters
    ----------
    pair_rule : bool
        Cutoff of a bond: (c_i + c_j)/2 instead of c_i.
    """

    def __init__(self, *, pair_rule: bool = False) -> None:
        self._pair_rule = pair_rule
        self._first, self._second = np.triu_indices(N_POWER)
        degrees = np.arange(LMAX + 1)
        self._first_row = degrees**2  # of the rows lm of each l
        self._weights: Floats = np.array(1.0 / (2.0 * degrees + 1.0), dtype=np.float64)
        self._last: _Density | None = None

    @property
    def n_features(self) -> int:
        """The number of features per atom: 55."""
        return len(self._first) * (LMAX + 1) + N_PAIR

    def values(self, batch: DescriptorBatch) -> Floats:
        """Features of every atom, [N, 55]: power spectrum by (k, k', l), then pair sums by k.

        Raises
        ------
        ValueError
            As `snap_descriptors`.
        """
        self._last = None
        density = _Density(batch, self._pair_rule)
        products = density.A[:, :, self._first] * density.A[:, :, self._second]
        power = np.add.reduceat(products, self._first_row, axis=1) * self._weights[:, None]
        self._last = density
        return np.concatenate([power.swapaxes(1, 2).reshape(len(density.A), -1), density.A[:, 0]], axis=1)

    def gradients(self, beta: Floats) -> tuple[Floats, Floats]:
        """Derivatives of sum_i beta_i . b_i of the last `values` by positions [N, 3] and by strain [S, 3, 3].

        Raises
        ------
        ValueError
            Without `values` before it, or for another shape of `beta`.
        """
        if self._last is None:
            raise ValueError("gradients() needs a call of values() before it, which keeps what both share")
        A = self._last.A
        beta = np.asarray(beta, dtype=np.float64)
        if beta.shape != (len(A), self.n_features):
            msg = f"`beta` must have shape [{len(A)}, {self.n_features}], got {list(beta.shape)}"
            raise ValueError(msg)
        power = beta[:, :-N_PAIR].reshape(len(A), len(self._first), LMAX + 1).swapaxes(1, 2) * self._weights[:, None]
        matrix = np.zeros((len(A), LMAX + 1, N_POWER, N_POWER))  # dE/dA_k = sum of matrix_{k k'} A_k'
        matrix[:, :, self._first, self._second] = power
        matrix += matrix.swapaxes(2, 3).copy()  # k = k' counts twice, as it must
        gradient = np.zeros_like(A)
        rows = np.repeat(np.arange(LMAX + 1), 2 * np.arange(LMAX + 1) + 1)
        gradient[:, :, :N_POWER] = np.einsum("arkj,arj->ark", matrix[:, rows], A[:, :, :N_POWER])
        gradient[:, 0] += beta[:, -N_PAIR:]
        return self._last.gradients(gradient)


class _Density:
    """A [N, (LMAX + 1)^2, N_PAIR] of a batch, and what its adjoint needs."""

    def __init__(self, batch: DescriptorBatch, pair_rule: bool) -> None:
        self.first, self.neighbor, self.vector, cutoff = _core.cutoff_pairs(
            batch.positions, batch.cells, batch.periodic, batch.first_atom, batch.cutoffs, pair_rule
        )
        self.n_structures = len(batch.cells)
        self.owner = np.repeat(np.arange(self.n_structures), np.diff(batch.first_atom))
        n_bonds, n_rows = len(self.neighbor), (LMAX + 1) ** 2
        self.distance = np.sqrt(np.einsum("bk,bk->b", self.vector, self.vector))
        self.cutoff = cutoff
        scaled = np.ascontiguousarray(self.distance / cutoff)
        self.basis = np.empty((n_bonds, N_PAIR))
        self.slope = np.empty((n_bonds, N_PAIR))
        _core.bond_radial_basis(
            True, N_PAIR, ENVELOPE, n_bonds, scaled.ctypes.data, self.basis.ctypes.data, self.slope.ctypes.data, 0
        )
        self.harmonics = np.empty((n_bonds, n_rows))
        self.harmonics_slope = np.empty((n_bonds, n_rows, 3))
        long, harmonics, slope = STRETCH * self.vector, self.harmonics.ctypes.data, self.harmonics_slope.ctypes.data
        _core.bond_harmonics(True, LMAX, n_bonds, long.ctypes.data, harmonics, slope, 0)
        self.harmonics_slope *= STRETCH
        self.radial = np.repeat(self.basis[:, None, :], LMAX + 1, axis=1)
        self.A: Floats = np.empty((len(self.first) - 1, n_rows, N_PAIR))
        self._slot(ATOMS, self.A, self.A)

    def _slot(self, slot: int, atoms: Floats, out: Floats) -> None:
        """One slot of sum A R Y over bonds; one element, whose factor is 1."""
        one, species = np.ones((1, N_PAIR)), np.zeros(len(self.neighbor), dtype=np.int64)
        _core.bond_basis(
            slot, True, atoms.ctypes.data, self.radial.ctypes.data, self.harmonics.ctypes.data, one.ctypes.data,
            out.ctypes.data, self.first.ctypes.data, species.ctypes.data, len(self.first) - 1, len(self.neighbor), 1,
            LMAX, N_PAIR, 0,
        )  # fmt: skip

    def gradients(self, gradient: Floats) -> tuple[Floats, Floats]:
        """Derivatives by positions and strain of a function with dE/dA = `gradient`."""
        by_radial, by_harmonics = np.empty_like(self.radial), np.empty_like(self.harmonics)
        self._slot(RADIAL, gradient, by_radial)
        self._slot(HARMONICS, gradient, by_harmonics)
        along = np.einsum("blk,bk->b", by_radial, self.slope) / (self.cutoff * self.distance)
        pull = along[:, None] * self.vector + np.einsum("br,brk->bk", by_harmonics, self.harmonics_slope)
        n_atoms = len(self.first) - 1
        center = np.repeat(np.arange(n_atoms), np.diff(self.first))
        dx = np.stack(
            [np.bincount(self.neighbor, g, n_atoms) - np.bincount(center, g, n_atoms) for g in pull.T], axis=1
        )
        products = (self.vector[:, :, None] * pull[:, None, :]).reshape(-1, 9)
        owner = self.owner[center]
        strain = np.stack([np.bincount(owner, column, self.n_structures) for column in products.T], axis=1)
        return dx.astype(np.float64, copy=False), strain.astype(np.float64, copy=False).reshape(-1, 3, 3)
