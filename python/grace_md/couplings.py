"""Coupling tables of GRACE models, made from scratch: real Clebsch-Gordan coefficients, products, mixes and reductions.

An equivariant tensor is a list of groups; a group of degree l has 2l + 1 rows, m = -l..l, and a parity +1 or -1 under
inversion. All functions work on rows only: channels are multiplied one by one.

Two products of tensors: `couple` keeps every coupling, in the order of the operands; `couple_published` gives the
tables of published weight files, row by row (tools/check_coupling_tables.py checks any file). What they add:

* A group carries its history, the tree of couplings that it comes from: 2 is a group of degree two of a bond basis,
  (1, 1, 2) the product of two groups of degree one to degree two. Groups of one (degree, parity) are sorted by it.
* A tensor times itself takes one of each pair of histories. Histories do not know parities, so of a tensor with both
  parities only the group that comes first (parity -1) is read: so it is in every published two-layer model.
* A coupling is dropped if it is proportional to a shorter one when all bond bases are the same tensor: the scalar
  (A_l A_l)_0 A_1 needs no (A_l A_1)_l A_l beside it. Histories with an odd sum of degrees vanish for harmonics of one
  direction and are never compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.int32]

History = Any  # int | tuple[History, History, int]; mypy has no recursive aliases for it that Python 3.10 reads

N_SAMPLES = 20  # random bond bases on which couplings are compared
PROPORTIONAL = 1e-9  # 1 - |cosine| of two couplings that are the same function
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
    """2 * degree + 1 consecutive rows of a tensor; row first + degree + m holds m.

    `history`: the degree itself for groups that are no product, else (left history, right history, degree).
    """

    degree: int
    parity: int
    first: int
    history: History = -1  # unknown

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
    """Return a tensor with one group for each (degree, parity) of `kinds`, without histories of products."""
    return _stack((degree, parity, degree) for degree, parity in sorted(kinds))


def _stack(kinds: Iterable[tuple[int, int, History]]) -> Tensor:
    """Return the tensor of groups (degree, parity, history) in the order given."""
    groups, first = [], 0
    for degree, parity, history in kinds:
        groups.append(Group(degree, parity, first, history))
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
    terms: list[Term] = []
    first = 0
    for degree, _, i, j in sorted(candidates):
        terms += _terms(left.groups[i], right.groups[j], degree, first, merge=same and i == j)
        first += 2 * degree + 1
    return _table(terms), tensor_of((degree, parity) for degree, parity, _, _ in candidates)


Term = tuple[int, int, int, float]  # row, left row, right row, coefficient


def _terms(a: Group, b: Group, degree: int, first: int, *, merge: bool) -> list[Term]:
    """Return the terms of one coupling, its rows starting at `first`; `merge`: a and b are one group of one tensor."""
    tensor = real_coupling(a.degree, b.degree, degree)
    if merge:  # sum of both orders, each unordered pair once
        upper = np.triu(np.ones(tensor.shape[:2]), 1)[:, :, None]
        diagonal = np.eye(tensor.shape[0])[:, :, None]
        tensor = upper * (tensor + tensor.transpose(1, 0, 2)) + diagonal * tensor
    return [
        (first + c, a.first + int(p), b.first + int(q), float(tensor[p, q, c]))
        for c in range(2 * degree + 1)
        for p, q in zip(*np.nonzero(tensor[:, :, c]), strict=True)
    ]


def _table(terms: list[Term]) -> CouplingTable:
    row, left, right = (np.array([term[k] for term in terms], dtype=np.int32) for k in range(3))
    return CouplingTable(row, left, right, np.array([term[3] for term in terms]))


def couple_published(
    left: Tensor, right: Tensor, keep: Callable[[int, int], bool], *, same: bool
) -> tuple[CouplingTable, Tensor]:
    """Return the product table of published models (see the top of this module), and the tensor that it forms.

    Parameters
    ----------
    left, right : operands.
    keep : (degree, parity) -> wanted.
    same : both operands are one tensor (values too, not only kinds). Terms then have left row >= right row.
    """
    order = sorted(range(len(left.groups)), key=lambda i: _visit(left.groups[i]))
    second = order if same else sorted(range(len(right.groups)), key=lambda i: _visit(right.groups[i]))
    seen: set[frozenset[str]] = set()
    found = []
    for i in order:
        for j in second:
            a, b = left.groups[i], right.groups[j]
            pair = frozenset((label(a.history), label(b.history)))
            if same and (b.degree > a.degree or pair in seen):
                continue
            seen.add(pair)
            for degree in range(abs(a.degree - b.degree), a.degree + b.degree + 1):
                vanishes = same and i == j and (2 * a.degree + degree) % 2 == 1
                if keep(degree, a.parity * b.parity) and not vanishes:
                    found.append((degree, a.parity * b.parity, (a.history, b.history, degree), a, b))
    kept = _without_repeats(found)
    kept.sort(key=lambda item: (item[0], item[1], label(item[2])))
    terms: list[Term] = []
    first = 0
    for degree, _, _, a, b in kept:
        block = _terms(a, b, degree, first, merge=same and a is b)
        terms += [(row, max(p, q), min(p, q), c) for row, p, q, c in block] if same else block
        first += 2 * degree + 1
    return _table(terms), _stack(item[:3] for item in kept)


Coupling = tuple[int, int, History, Group, Group]  # degree, parity, history, operands


def _visit(group: Group) -> tuple[int, str, int]:
    return group.degree, label(group.history), group.parity


@cache
def label(history: History) -> str:
    """Return a history as text, e.g. (1, 1, 2) as "(11)2"; the order of groups is that of these texts."""
    if isinstance(history, int):
        return str(history)
    return f"({label(history[0])}{label(history[1])}){history[2]}"


def _without_repeats(couplings: list[Coupling]) -> list[Coupling]:
    """Drop every coupling that is proportional to one with fewer terms, for equal bond bases."""
    length = [np.count_nonzero(real_coupling(a.degree, b.degree, degree)) for degree, _, _, a, b in couplings]
    others: dict[tuple[int, tuple[int, ...]], list[Array]] = {}
    kept = []
    for index in np.argsort(length, kind="stable"):
        degree, _, history, _, _ = couplings[index]
        values = _values(history)
        if values is not None:
            vector = values.reshape(-1) / np.linalg.norm(values)
            alike = others.setdefault((degree, _leaves(history)), [])  # others are independent by their degrees
            if any(abs(vector @ other) > 1 - PROPORTIONAL for other in alike):
                continue
            alike.append(vector)
        kept.append(couplings[index])
    return kept


@cache
def _leaves(history: History) -> tuple[int, ...]:
    """Degrees of the bond bases of a history, sorted."""
    if isinstance(history, int):
        return (history,)
    return tuple(sorted(_leaves(history[0]) + _leaves(history[1])))


@cache
def _values(history: History) -> Array | None:
    """Return a history for random bond bases, [N_SAMPLES, 2 degree + 1]; None where a sum of degrees is odd."""
    if isinstance(history, int):
        return np.random.default_rng(history).normal(size=(N_SAMPLES, 2 * history + 1))
    left, right, degree = history
    a, b = _values(left), _values(right)
    if a is None or b is None or (a.shape[1] // 2 + b.shape[1] // 2 + degree) % 2 == 1:
        return None
    tensor = real_coupling(a.shape[1] // 2, b.shape[1] // 2, degree)
    return np.asarray(np.einsum("sa,sb,abc->sc", a, b, tensor))


def mix_table(left: Tensor, right: Tensor, *, shared: bool = True) -> dict[str, Index | Array]:
    """Return the tables of a channel mix: each left group receives every right group of its degree and parity.

    `shared`: one matrix for each right group; otherwise, as in published models, one for each pair of groups.
    """
    to: list[int] = []
    source: list[int] = []
    tile_right: list[int] = []
    factor = np.ones(left.n_rows)
    n_pairs = 0
    for group in left.groups:
        feeding = [g for g, b in enumerate(right.groups) if (b.degree, b.parity) == (group.degree, group.parity)]
        factor[group.rows] = 1.0 / math.sqrt(1 + len(feeding))
        for g in feeding:
            to += group.rows
            source += right.groups[g].rows
            tile_right += [g if shared else n_pairs] * len(group.rows)
            n_pairs += 1
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
