"""Features to a power p below one: f = b / (1 + b^2)^((1 - p)/2), which is b for small b and sign(b) |b|^p for large.

Bispectrum components are products of three densities. Between 20 and 100 neighbours they differ a hundredfold, so that
the covariance of a growing set is soon that of its most compressed members, and only structures that are denser still
raise its determinant. Neighbours are counted like random events, with fluctuations as the square root of their number;
the square root of a density has the same fluctuations everywhere, which is p = 1/6 for products of three.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from grace_md.smax.descriptors import Descriptor, DescriptorBatch

__all__ = ["Compressed"]

Floats = NDArray[np.float64]


class Compressed:
    """A descriptor with its features raised to a power.

    Parameters
    ----------
    descriptor : Descriptor
        Its features b are of the order of one for isolated atoms, as bispectrum components are.
    power : float
        p, in (0, 1].
    """

    def __init__(self, descriptor: Descriptor, power: float) -> None:
        self._descriptor = descriptor
        self._power = power
        self._slope: Floats = np.empty((0, descriptor.n_features))

    @property
    def n_features(self) -> int:
        """The number of features per atom."""
        return self._descriptor.n_features

    def values(self, batch: DescriptorBatch) -> Floats:
        """Features f of every atom, [N, n_features]."""
        b = self._descriptor.values(batch)
        square = b * b
        scale = (1.0 + square) ** (0.5 * (self._power - 1.0))
        self._slope = scale * (1.0 + self._power * square) / (1.0 + square)
        return b * scale

    def gradients(self, beta: Floats) -> tuple[Floats, Floats]:
        """Derivatives of sum_i beta_i . f_i of the last `values` by positions [N, 3] and by strain [S, 3, 3]."""
        if np.shape(beta) != self._slope.shape:
            return self._descriptor.gradients(beta)  # which says what is wrong
        return self._descriptor.gradients(beta * self._slope)
