"""Clusters of bonded atoms, bond counts between elements, and communities of elements that bond among themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii
from numpy.typing import NDArray

from grace_md.analysis.pairs import pairs_within

__all__ = ["BondCounts", "bond_counts", "bonded_clusters", "communities", "modularity"]

# Two atoms count as bonded in `bond_counts` below this multiple of the sum of their covalent radii.
BOND_RATIO = 1.25


def bonded_clusters(atoms: Atoms, cutoffs: Mapping[tuple[str, str], float]) -> list[NDArray[np.int64]]:
    """Connected groups of atoms.

    Parameters
    ----------
    atoms : ase.Atoms
        Fully periodic structure.
    cutoffs : mapping of (str, str) to float
        Bond length limit in A for each pair of elements that may be bonded; order within a pair does not matter.
        Atoms of elements that occur in no pair are ignored.

    Returns
    -------
    list of ndarray of int64
        Atom indices of each cluster, largest cluster first; single atoms are clusters of one.
    """
    present = sorted({element for pair in cutoffs for element in pair})
    kind = np.array([present.index(symbol) if symbol in present else -1 for symbol in atoms.get_chemical_symbols()])
    limit = np.zeros((len(present), len(present)))
    for (a, b), cutoff in cutoffs.items():
        limit[present.index(a), present.index(b)] = limit[present.index(b), present.index(a)] = cutoff
    members = np.flatnonzero(kind >= 0)
    if len(members) == 0:
        return []
    i, j, distance = pairs_within(atoms.positions[members], atoms.cell.array, float(limit.max()))
    bonded = distance < limit[kind[members[i]], kind[members[j]]]
    root = _union_find(len(members), i[bonded], j[bonded])
    groups = [members[root == label] for label in np.unique(root)]
    return sorted(groups, key=lambda group: (-len(group), int(group[0])))


def _union_find(n: int, i: NDArray[np.int64], j: NDArray[np.int64]) -> NDArray[np.int64]:
    """Label of the connected component of each of `n` nodes, given the ends of the edges."""
    parent = list(range(n))

    def find(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]  # shorten the path on the way
            node = parent[node]
        return node

    for a, b in zip(i.tolist(), j.tolist(), strict=True):
        parent[find(a)] = find(b)
    return np.array([find(node) for node in range(n)])


@dataclass
class BondCounts:
    """Bonds between elements.

    Attributes
    ----------
    elements : list of str
        Order of the rows and columns.
    counts : ndarray, shape (n, n)
        Symmetric; counts[a, b] is the number of bonds between a and b, counts[a, a] those within a.
    """

    elements: list[str]
    counts: NDArray[np.float64]

    @property
    def weights(self) -> NDArray[np.float64]:
        """Adjacency matrix of the weighted graph: bonds, with loops counted twice as in the definition of degree."""
        return self.counts + np.diag(np.diag(self.counts))

    def enrichment(self) -> NDArray[np.float64]:
        """Bonds relative to randomly paired bond ends (configuration model): A_ab 2m / (k_a k_b); NaN without bonds."""
        adjacency = self.weights
        degree = adjacency.sum(axis=1)
        expected = np.outer(degree, degree)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio: NDArray[np.float64] = np.where(expected > 0.0, adjacency * degree.sum() / expected, np.nan)
        return ratio

    def group_enrichment(self, first: Sequence[str], second: Sequence[str]) -> float:
        """`enrichment` between two groups of elements as wholes; NaN if one of them has no bonds."""
        adjacency = self.weights
        a = [self.elements.index(element) for element in first]
        b = [self.elements.index(element) for element in second]
        degree = adjacency.sum(axis=1)
        expected = degree[a].sum() * degree[b].sum()
        return float(adjacency[np.ix_(a, b)].sum() * degree.sum() / expected) if expected > 0.0 else float("nan")


def bond_counts(frames: Sequence[Atoms], elements: Sequence[str], ratio: float = BOND_RATIO) -> BondCounts:
    """Mean number of bonds between elements; atoms closer than `ratio` (r_a + r_b) with covalent radii r are bonded."""
    order = {atomic_numbers[element]: k for k, element in enumerate(elements)}
    n = len(elements)
    counts = np.zeros((n, n))
    for atoms in frames:
        kind = np.array([order[number] for number in atoms.numbers])
        radius = covalent_radii[atoms.numbers]
        i, j, distance = pairs_within(atoms.positions, atoms.cell.array, 2.0 * ratio * float(radius.max()))
        bonded = distance < ratio * (radius[i] + radius[j])
        counts += np.bincount(kind[i[bonded]] * n + kind[j[bonded]], minlength=n * n).reshape(n, n)
    counts /= max(1, len(frames))
    # Every bond a-b was met once from each end: the off-diagonal is right, the diagonal is doubled.
    counts[np.diag_indices(n)] *= 0.5
    return BondCounts(list(elements), counts)


def modularity(weights: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Newman modularity Q = sum_c [ W_c / 2m - (k_c / 2m)^2 ] of a partition of a weighted graph."""
    total = weights.sum()
    same = labels[:, None] == labels[None, :]
    degree = weights.sum(axis=1)
    return float((weights[same].sum() - np.outer(degree, degree)[same].sum() / total) / total)


def communities(weights: NDArray[np.float64], seed: int = 0, repeats: int = 10) -> NDArray[np.int64]:
    """Partition of a weighted graph into communities of high modularity (Louvain method).

    Nodes move one at a time to the neighbouring community with the largest gain; communities are then merged into
    nodes and the process repeats (Blondel et al., J. Stat. Mech. P10008, 2008). The best of several random orders is
    returned.

    Parameters
    ----------
    weights : ndarray, shape (n, n)
        Symmetric, non-negative; the diagonal holds twice the weight of the loop.
    seed : int
        Seed of the visiting orders.
    repeats : int
        Number of random orders.

    Returns
    -------
    ndarray of int64, shape (n,)
        Community of each node; community 0 has the largest internal weight.
    """
    matrix = np.asarray(weights, dtype=float)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not np.allclose(matrix, matrix.T):
        raise ValueError(f"`weights` of shape {matrix.shape} must be a symmetric square matrix.")
    if not matrix.sum() > 0.0:
        return np.arange(len(matrix))
    random = np.random.default_rng(seed)
    best = max((_louvain(matrix, random) for _ in range(repeats)), key=lambda labels: modularity(matrix, labels))
    inner = [-matrix[np.ix_(best == label, best == label)].sum() for label in range(best.max() + 1)]
    rank = np.empty(len(inner), dtype=np.int64)
    rank[np.argsort(inner, kind="stable")] = np.arange(len(inner))
    return rank[best]


def _louvain(weights: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.int64]:
    labels = np.arange(len(weights))
    level = weights
    while True:
        local = _move_nodes(level, random)
        n = int(local.max()) + 1
        labels = local[labels]
        if n == len(level):
            return labels
        indicator = np.zeros((len(level), n))
        indicator[np.arange(len(level)), local] = 1.0
        level = indicator.T @ level @ indicator


def _move_nodes(weights: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.int64]:
    n = len(weights)
    total = weights.sum()
    degree = weights.sum(axis=1)
    labels = np.arange(n)
    volume = degree.copy()  # sum of degrees of each community
    moved = True
    while moved:
        moved = False
        for node in random.permutation(n):
            home = labels[node]
            volume[home] -= degree[node]
            link = np.bincount(labels, weights=weights[node], minlength=n)
            link[home] -= weights[node, node]
            gain = link - degree[node] * volume / total
            best = int(np.argmax(gain))
            if not gain[best] > gain[home] + 1e-12 * total:
                best = int(home)
            labels[node] = best
            volume[best] += degree[node]
            moved = moved or best != home
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)
