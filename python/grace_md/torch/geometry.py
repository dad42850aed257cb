"""Geometry of bonds in double precision: vectors, regularised lengths and directions, real harmonics.

d = sqrt(|r|^2 + 1e-10 A^2), u = r / d, and harmonics as polynomials of u, which is slightly shorter than one and never
renormalised (docs/theory.md, Bonds). All functions are plain torch and can be differentiated to any order.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from grace_md.torch.batch import AtomsBatch

BOND_REGULARISER = 1e-10  # A^2, under the root of every bond length


def bond_vectors(batch: AtomsBatch) -> Tensor:
    """Return r = r_j - r_i + S @ cell of every bond, [n_bonds, 3], A."""
    vectors = batch.positions[batch.neighbor] - batch.positions[batch.center]
    cells = batch.cells[batch.structure[batch.center]]
    return vectors + torch.einsum("bs,bsx->bx", batch.shift, cells)


def lengths_and_directions(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Return d [n_bonds] (A) and u [n_bonds, 3]."""
    d = torch.sqrt((vectors * vectors).sum(dim=1) + BOND_REGULARISER)
    return d, vectors / d[:, None]


def harmonics(u: Tensor, lmax: int) -> Tensor:
    """Return real harmonics Y [n_bonds, (lmax + 1)^2] of u [n_bonds, 3]; slot l^2 + l + m, mean square one."""
    return torch.stack([value for value, _ in _slots(u, lmax, gradient=False)], dim=1)


def harmonics_with_gradient(u: Tensor, lmax: int) -> tuple[Tensor, Tensor]:
    """Return Y [n_bonds, (lmax + 1)^2] and dY/du [n_bonds, (lmax + 1)^2, 3]."""
    slots = _slots(u, lmax, gradient=True)
    return (
        torch.stack([value for value, _ in slots], dim=1),
        torch.stack([torch.stack(parts, dim=1) for _, parts in slots], dim=1),
    )


Slot = tuple[Tensor, list[Tensor]]  # value, derivatives with respect to x, y, z


def _slots(u: Tensor, lmax: int, *, gradient: bool) -> list[Slot]:
    """Recurrences of docs/theory.md (Single-particle basis): P_lm(z) times Re and Im of (x + iy)^m."""
    x, y, z = u.unbind(dim=1)
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    real, imaginary = [one], [zero]  # of (x + iy)^m
    for _ in range(lmax):
        real, imaginary = (
            [*real, x * real[-1] - y * imaginary[-1]],
            [*imaginary, x * imaginary[-1] + y * real[-1]],
        )
    slots: list[Slot | None] = [None] * (lmax + 1) ** 2
    p_mm = 1.0
    for m in range(lmax + 1):
        p_mm *= math.sqrt((2 * m + 1) / (2 * m)) if m else 1.0
        # (P, dP/dz) of degrees l - 1 and l; sqrt(2) of the slots with m > 0 is put in here
        before, here = (zero, zero), (one * (p_mm * (math.sqrt(2.0) if m else 1.0)), zero)
        for degree in range(m, lmax + 1):
            if degree > m:
                a = math.sqrt((4 * degree**2 - 1) / (degree**2 - m**2))
                b = math.sqrt(((degree - 1) ** 2 - m**2) / (4 * (degree - 1) ** 2 - 1))
                slope = a * (here[0] + z * here[1] - b * before[1]) if gradient else zero
                before, here = here, (a * (z * here[0] - b * before[0]), slope)
            p, dp = here
            centre = degree * degree + degree
            if m == 0:
                slots[centre] = (p, [zero, zero, dp])
                continue
            re, im = real[m], imaginary[m]
            dre = dim = [zero, zero, zero]
            if gradient:
                mp = m * p
                dre = [mp * real[m - 1], -mp * imaginary[m - 1], dp * re]
                dim = [mp * imaginary[m - 1], mp * real[m - 1], dp * im]
            slots[centre + m] = (p * re, dre)
            slots[centre - m] = (p * im, dim)
    return [slot for slot in slots if slot is not None]
