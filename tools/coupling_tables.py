"""Coupling tables of GRACE models, made from scratch: real Clebsch-Gordan coefficients, products, mixes and reductions.

An equivariant tensor is a list of groups; a group of degree l has 2l + 1 rows, m = -l..l, and a parity +1 or -1 under
inversion. All functions work on rows only: channels are multiplied one by one.

The tables in weight files of the reference implementation follow the same rule (`check_coupling_tables.py` checks any
file); only the order of the groups inside one (degree, parity) may differ, which no evaluation depends on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.int32]

SMALLEST_COEFFICIENT = 1e-13  # rounding noise of exact zeros is below; the smallest true coefficient is above 1e-3


def clebsch_gordan(degrees: tuple[int, int, int], orders: tuple[int, int, int]) -> float:
    """Return <l1 m1 l2 m2 | l3 m3> in the Condon-Shortley convention (Racah's sum)."""
    (l1, l2, l3), (m1, m2, m3) = degrees, orders
    if m1 + m2 != m3 or not abs(l1 - l2) <= l3 <= l1 + l2:
        return 0.0
    f = math.factorial
    square = (2 * l3 + 1) * f(l3 + l1 - l2) * f(l3 - l1 + l2) * f(l1 + l2 - l3) / f(l1 + l2 + l3 + 1)
    square *= f(l3 + m3) * f(l3 - m3) * f(l1 - m1) * f(l1 + m1) * f(l2 - m2) * f(l2 + m2)
    total = 0.0
    for k in range(l1 + l2 - l3 + 1):
        arguments = (k, l1 + l2 - l3 - k, l1 - m1 - k, l2 + m2 - k, l3 - l2 + m1 + k, l3 - l1 - m2 + k)
        if min(arguments) >= 0:
            total += (-1) ** k / math.prod(f(n) for n in arguments)
    return math.sqrt(square) * total


def complex_to_real(degree: int) -> NDArray[np.complex128]:
    """Return U [2l+1, 2l+1] with real harmonic m = sum_mu U[l+m, l+mu] Y_l^mu, times i^l.

    The phase i^l makes every real coupling tensor purely real, also those with odd l1 + l2 + l3.
    """
    matrix = np.zeros((2 * degree + 1, 2 * degree + 1), dtype=np.complex128)
    matrix[degree, degree] = 1.0
    for m in range(1, degree + 1):
        matrix[degree + m, degree + m] = (-1) ** m / math.sqrt(2)
        matrix[degree + m, degree - m] = 1 / math.sqrt(2)
        matrix[degree - m, degree - m] = 1j / math.sqrt(2)
        matrix[degree - m, degree + m] = -1j * (-1) ** m / math.sqrt(2)
    return np.asarray(1j**degree * matrix)


@cache
def real_coupling(l1: int, l2: int, l3: int) -> Array:
    """Return the normalised real coupling tensor [2 l1 + 1, 2 l2 + 1, 2 l3 + 1].

    For even l1 + l2 + l3 two harmonics of one direction (mean square 1 on the sphere) give exactly the one of degree l3
    in that direction; for odd sums, where they give zero, the tensor keeps the norm of the Clebsch-Gordan coefficients.
    """
    complex_tensor = np.array(
        [
            [[clebsch_gordan((l1, l2, l3), (a, b, c)) for c in range(-l3, l3 + 1)] for b in range(-l2, l2 + 1)]
            for a in range(-l1, l1 + 1)
        ]
    )
    tensor = np.einsum(
        "ax,by,cz,xyz->abc", complex_to_real(l1), complex_to_real(l2), complex_to_real(l3).conj(), complex_tensor
    )
    if not np.all(np.abs(tensor.imag) <= SMALLEST_COEFFICIENT):
        raise ArithmeticError(f"The coupling {l1} x {l2} -> {l3} is not real.")
    real = np.where(np.abs(tensor.real) > SMALLEST_COEFFICIENT, tensor.real, 0.0)
    if (l1 + l2 + l3) % 2 == 0:
        contraction = math.sqrt((2 * l1 + 1) * (2 * l2 + 1) / (2 * l3 + 1)) * clebsch_gordan((l1, l2, l3), (0, 0, 0))
        real = real / abs(contraction)
    return np.asarray(real)


@dataclass(frozen=True)
class Group:
    """2 * degree + 1 consecutive rows of a tensor; row first + degree + m holds m."""

    degree: int
    parity: int
    first: int

    @property
    def rows(self) -> range:
        """Rows m = -degree..degree."""
        return range(self.first, self.first + 2 * self.degree + 1)


@dataclass(frozen=True)
class Tensor:
    """Groups in the order of their rows, sorted by (degree, parity)."""

    groups: tuple[Group, ...]

    @property
    def n_rows(self) -> int:
        """Number of rows of all groups."""
        return sum(2 * group.degree + 1 for group in self.groups)

    def tile(self) -> Index:
        """Return the index of the group of each row."""
        return np.repeat(np.arange(len(self.groups)), [len(group.rows) for group in self.groups]).astype(np.int32)


def tensor_of(kinds: Iterable[tuple[int, int]]) -> Tensor:
    """Return a tensor with one group for each (degree, parity) of `kinds`."""
    groups, first = [], 0
    for degree, parity in sorted(kinds):
        groups.append(Group(degree, parity, first))
        first += 2 * degree + 1
    return Tensor(tuple(groups))


def harmonics(lmax: int) -> Tensor:
    """Return the tensor of the real spherical harmonics up to `lmax`: one group of parity (-1)^l for each l."""
    return tensor_of((degree, (-1) ** degree) for degree in range(lmax + 1))


@dataclass
class CouplingTable:
    """P[row] = sum of coefficient * L[left] * R[right]; terms sorted by row."""

    row: Index
    left: Index
    right: Index
    coefficient: Array


def couple(left: Tensor, right: Tensor, keep: Callable[[int, int], bool]) -> tuple[CouplingTable, Tensor]:
    """Return all products of groups whose (degree, parity) passes `keep`, and the tensor that they form.

    When both operands are one object, each pair of groups is taken once, (m1, m2) is merged with (m2, m1), and products
    that vanish by antisymmetry are left out. Products that depend linearly on others are not searched for: they cost
    time but are harmless.
    """
    same = left is right
    candidates = []
    for i, a in enumerate(left.groups):
        for j, b in enumerate(right.groups[: i + 1] if same else right.groups):
            for degree in range(abs(a.degree - b.degree), a.degree + b.degree + 1):
                vanishes = same and i == j and (2 * a.degree + degree) % 2 == 1
                if keep(degree, a.parity * b.parity) and not vanishes:
                    candidates.append((degree, a.parity * b.parity, i, j))
    terms: list[tuple[int, int, int, float]] = []
    kinds = []
    first = 0
    for degree, parity, i, j in sorted(candidates):
        a, b = left.groups[i], right.groups[j]
        tensor = real_coupling(a.degree, b.degree, degree)
        if same and i == j:  # sum of both orders, each unordered pair once
            upper = np.triu(np.ones(tensor.shape[:2]), 1)[:, :, None]
            diagonal = np.eye(tensor.shape[0])[:, :, None]
            tensor = upper * (tensor + tensor.transpose(1, 0, 2)) + diagonal * tensor
        for c in range(2 * degree + 1):
            for p, q in zip(*np.nonzero(tensor[:, :, c]), strict=True):
                terms.append((first + c, a.first + int(p), b.first + int(q), float(tensor[p, q, c])))
        kinds.append((degree, parity))
        first += 2 * degree + 1
    row, left_row, right_row = (np.array([term[k] for term in terms], dtype=np.int32) for k in range(3))
    return CouplingTable(row, left_row, right_row, np.array([term[3] for term in terms])), tensor_of(kinds)


def mix_table(left: Tensor, right: Tensor) -> dict[str, Index | Array]:
    """Return the tables of a channel mix: each left group receives every right group of its degree and parity."""
    to: list[int] = []
    source: list[int] = []
    tile_right: list[int] = []
    factor = np.ones(left.n_rows)
    for group in left.groups:
        feeding = [g for g, b in enumerate(right.groups) if (b.degree, b.parity) == (group.degree, group.parity)]
        factor[group.rows] = 1.0 / math.sqrt(1 + len(feeding))
        for g in feeding:
            to += group.rows
            source += right.groups[g].rows
            tile_right += [g] * len(group.rows)
    return {
        "w_tile_left": left.tile(),
        "w_tile_right": np.array(tile_right, dtype=np.int32),
        "collect_to": np.array(to, dtype=np.int32),
        "collect_from": np.array(source, dtype=np.int32),
        "norm_out_factor": factor.reshape(-1, 1, 1),
    }


def reduce_table(source: Tensor, target: Tensor) -> tuple[Index, Index, Index]:
    """Return (source row, weight group, target row) of a reduction onto the kinds of `target`, ordered parity first."""
    rows: list[int] = []
    tile: list[int] = []
    targets: list[int] = []
    kinds = {(group.degree, group.parity): group for group in target.groups}
    chosen = [group for group in source.groups if (group.degree, group.parity) in kinds]
    for g, group in enumerate(sorted(chosen, key=lambda group: (group.parity, group.degree, group.first))):
        rows += group.rows
        tile += [g] * len(group.rows)
        targets += kinds[group.degree, group.parity].rows
    return np.array(rows, dtype=np.int32), np.array(tile, dtype=np.int32), np.array(targets, dtype=np.int32)
