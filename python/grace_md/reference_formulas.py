"""Formulas of the NumPy oracle (see `grace_md.reference`): radial basis, harmonics, activations, dense networks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Index = NDArray[np.int64]


def chebyshev_basis(d: Array, rc: Array, n_basis: int, order: int, keep: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Radial basis g_k = T_k(t) f_p(s), k = 1..K, and dg_k/dd, each [n_bonds, K] (theory: Radial functions).

    s = d/rc, t = 2 (1 - |1 - s|) - 1, f_p the polynomial envelope of order p; zero where `keep` is false.
    """
    s, p = d / rc, order
    t = 2.0 * (1.0 - np.abs(1.0 - s)) - 1.0
    dt_ds = 2.0 * np.sign(1.0 - s)
    # The polynomial of the theory with its factor (1 - s)^3 taken out: the same, without cancellation near the cutoff.
    envelope = (1.0 - s) ** 3 * sum((k + 1) * (k + 2) / 2 * s**k for k in range(p))
    denvelope = -p * (p + 1) * (p + 2) / 2 * s ** (p - 1) * (1.0 - s) ** 2
    first, second = [np.ones_like(t), t], [np.ones_like(t), 2 * t]  # T_k and U_k
    for _ in range(2, n_basis + 1):
        first.append(2 * t * first[-1] - first[-2])
        second.append(2 * t * second[-1] - second[-2])
    value = np.stack([first[k] * envelope for k in range(1, n_basis + 1)], axis=1)
    slope = [k * second[k - 1] * dt_ds * envelope + first[k] * denvelope for k in range(1, n_basis + 1)]
    return np.where(keep[:, None], value, 0.0), np.where(keep[:, None], np.stack(slope, axis=1) / rc[:, None], 0.0)


def real_spherical_harmonics(u: ArrayLike, lmax: int) -> tuple[Array, Array]:
    """Real harmonics Y [n, (lmax+1)^2] as polynomials of u [n, 3], and dY/du [n, (lmax+1)^2, 3].

    Theory: Single-particle basis. Slot l^2 + l + m; the mean of Y^2 over the sphere is 1; no Condon-Shortley phase.
    u is used as it is, never renormalised: the regularised bond length makes it slightly shorter than one.
    """
    x, y, z = np.moveaxis(np.asarray(u, dtype=np.float64), -1, 0)
    one, zero = np.ones_like(x), np.zeros_like(x)
    real, imaginary = [one], [zero]  # of (x + iy)^m
    for _ in range(lmax):
        real, imaginary = (
            [*real, x * real[-1] - y * imaginary[-1]],
            [*imaginary, x * imaginary[-1] + y * real[-1]],
        )
    value = np.zeros((len(x), (lmax + 1) ** 2))
    gradient = np.zeros((*value.shape, 3))
    p_mm = 1.0
    for m in range(lmax + 1):
        if m > 0:
            p_mm *= np.sqrt((2 * m + 1) / (2 * m))
        polynomials = [(zero, zero), (p_mm * one, zero)]  # (P_lm, dP_lm/dz) for l = m - 1 and l = m
        for degree in range(m, lmax + 1):
            if degree > m:
                a = np.sqrt((4 * degree**2 - 1) / (degree**2 - m**2))
                b = np.sqrt(((degree - 1) ** 2 - m**2) / (4 * (degree - 1) ** 2 - 1))
                (p2, dp2), (p1, dp1) = polynomials[-2:]
                polynomials.append((a * (z * p1 - b * p2), a * (p1 + z * dp1 - b * dp2)))
            p, dp = polynomials[-1]
            centre = degree * degree + degree
            if m == 0:
                value[:, centre], gradient[:, centre, 2] = p, dp
                continue
            p, dp = np.sqrt(2.0) * p, np.sqrt(2.0) * dp
            re, im, re1, im1 = real[m], imaginary[m], real[m - 1], imaginary[m - 1]
            value[:, centre + m], value[:, centre - m] = p * re, p * im
            gradient[:, centre + m] = np.stack([p * m * re1, -p * m * im1, dp * re], axis=1)
            gradient[:, centre - m] = np.stack([p * m * im1, p * m * re1, dp * im], axis=1)
    return value, gradient


def silu(x: Array) -> tuple[Array, Array]:
    """Return x sigmoid(x) and its derivative."""
    sigmoid = 0.5 * (1.0 + np.tanh(0.5 * x))
    return x * sigmoid, sigmoid * (1.0 + x * (1.0 - sigmoid))


def tanh(x: Array) -> tuple[Array, Array]:
    """Return tanh(x) and its derivative."""
    value = np.tanh(x)
    return value, 1.0 - value**2


@dataclass
class Network:
    """Layers y = activation(x W norm), without biases; the last layer is linear (theory: Radial functions)."""

    weights: list[Array]  # norms folded in
    activation: str = "silu"

    def forward(self, x: Array) -> tuple[Array, list[Array]]:
        """Return the output and the slope of every activation (what `adjoint` needs)."""
        function, slopes = {"silu": silu, "tanh": tanh}[self.activation], []
        for weight in self.weights[:-1]:
            x, slope = function(x @ weight)
            slopes.append(slope)
        return x @ self.weights[-1], slopes

    def adjoint(self, output_gradient: Array, slopes: list[Array]) -> Array:
        """Return the gradient with respect to the input."""
        gradient: Array = output_gradient @ self.weights[-1].T
        for weight, slope in zip(self.weights[-2::-1], slopes[::-1], strict=True):
            gradient = (gradient * slope) @ weight.T
        return gradient


def degree_of_slot(lmax: int) -> Index:
    """Degree l of every harmonic slot, [(lmax+1)^2]."""
    return np.array([degree for degree in range(lmax + 1) for _ in range(2 * degree + 1)], dtype=np.int64)


def sum_over(values: Array, index: Index, n: int) -> Array:
    """Sum the rows of `values` that share an index: [n_bonds, ...] -> [n, ...]."""
    out = np.zeros((n, *values.shape[1:]))
    np.add.at(out, index, values)
    return out
