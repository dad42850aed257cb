"""Principal axes of features by streaming, and how far sets of atoms reach in their space.

The feature matrix of a large set is never formed: one pass adds up mean and covariance (5,664 features: 257 MB), the
covariance is diagonalised, and a second pass projects. Spreads, ellipsoids and hulls live in the space of the leading
principal components, which all sets share.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grace_md.smax.statistics import Statistics

__all__ = [
    "Ellipsoid",
    "Hull",
    "PrincipalAxes",
    "Reservoir",
    "coverage_matrix",
    "floor_of",
    "principal_axes",
]

Floats = NDArray[np.float64]

CONFIDENCE = 0.999  # share of a set within its ellipsoid
NEGLIGIBLE = 1e-12  # of the largest variance: components below are rounding
FLOOR = 1e-10  # of the pooled variance: added to the covariance of a set that does not vary along some component


@dataclass(frozen=True)
class PrincipalAxes:
    """Leading principal components: y = (x - mean) axes.

    Attributes
    ----------
    mean : [m]; axes : [m, k], orthonormal columns unless scaled; variance : [k], descending
    total : sum of all variances
    """

    mean: Floats
    axes: Floats
    variance: Floats
    total: float

    def project(self, rows: Floats) -> Floats:
        """Return coordinates [n, k] of rows [n, m]."""
        return (rows - self.mean) @ self.axes

    @property
    def shares(self) -> Floats:
        """Share of the variance of each component."""
        return self.variance / self.total


def floor_of(axes: PrincipalAxes) -> Floats:
    """Return what is added to the variances of every set, [k]: `FLOOR` times the pooled ones.

    A set that does not vary along some component at all then has a covariance with an inverse.
    """
    return FLOOR * axes.variance


def principal_axes(statistics: Statistics, n_components: int, *, scaled: bool = False) -> PrincipalAxes:
    """Diagonalise the covariance and keep up to `n_components` components that are more than rounding.

    The sign of an axis is such that its largest entry is positive.

    Parameters
    ----------
    scaled : divide each feature by its standard deviation first (diagonalise the correlation matrix); the axes then
        include that factor and are not normalised

    Raises ValueError where nothing varies.
    """
    covariance = statistics.covariance()
    deviation = np.sqrt(np.diagonal(covariance)) if scaled else np.ones(len(covariance))
    factor = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=deviation > 0.0)
    values, vectors = np.linalg.eigh(covariance * np.outer(factor, factor) if scaled else covariance)
    values, vectors = values[::-1], vectors[:, ::-1]
    kept = min(n_components, int(np.count_nonzero(values > NEGLIGIBLE * values[0])))
    if not (values[0] > 0.0 and kept):
        raise ValueError("all atoms have the same features: there is nothing to compare.")
    axes = vectors[:, :kept]
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(kept)])
    total = float(np.clip(values, 0.0, None).sum())
    return PrincipalAxes(
        statistics.mean.copy(), np.ascontiguousarray(factor[:, None] * axes * signs), values[:kept].copy(), total
    )


class Reservoir:
    """A uniform sample of at most `most` rows of a stream, float32.

    Every row draws a random number, and those with the smallest ones stay.
    """

    def __init__(self, n_columns: int, most: int, seed: int) -> None:
        self.rows: NDArray[np.float32] = np.empty((0, n_columns), dtype=np.float32)
        self._keys: Floats = np.empty(0)
        self._most = most
        self._random = np.random.default_rng(seed)

    def add(self, rows: Floats) -> None:
        """Offer rows [n, n_columns]."""
        keys = self._random.random(len(rows))
        self.rows = np.concatenate([self.rows, rows.astype(np.float32)])
        self._keys = np.concatenate([self._keys, keys])
        if len(self._keys) > self._most:
            kept = np.sort(np.argpartition(self._keys, self._most)[: self._most])
            self.rows, self._keys = self.rows[kept], self._keys[kept]

    def sample(self, n: int) -> Floats:
        """Return `n` of the rows (all if there are fewer), the same ones at every call, float64."""
        kept = np.sort(np.argsort(self._keys, kind="stable")[:n])
        return self.rows[kept].astype(np.float64)


class Hull:
    """Convex hull of a stream of points in the plane, exact: the hull of the corners so far and the new points."""

    def __init__(self) -> None:
        self.corners: Floats = np.empty((0, 2))

    def add(self, points: ArrayLike) -> None:
        """Add points [n, 2]."""
        self.corners = _convex_hull(np.concatenate([self.corners, np.asarray(points, dtype=np.float64)]))

    @property
    def area(self) -> float:
        """Area (shoelace formula); 0 for fewer than three corners."""
        if len(self.corners) < 3:
            return 0.0
        x, y = (self.corners - self.corners[0]).T
        return float(0.5 * abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)))


def _convex_hull(points: Floats) -> Floats:
    """Return the corners of the convex hull, anticlockwise (monotone chain of Andrew 1979)."""
    unique = np.unique(points, axis=0)
    if len(unique) < 3:
        return unique

    def half(ordered: Floats) -> list[tuple[float, float]]:
        chain: list[tuple[float, float]] = []
        for x, y in ordered.tolist():
            while len(chain) > 1:
                (ax, ay), (bx, by) = chain[-2], chain[-1]
                if (bx - ax) * (y - ay) - (by - ay) * (x - ax) > 0.0:
                    break
                chain.pop()
            chain.append((x, y))
        return chain[:-1]

    return np.array(half(unique) + half(unique[::-1]))


@dataclass(frozen=True)
class Ellipsoid:
    """Mean and covariance of a set, and the radius that holds `CONFIDENCE` of it.

    Attributes
    ----------
    mean : [k]; factor : [k, k], lower Cholesky factor of the covariance
    radius2 : squared Mahalanobis radius, the quantile `CONFIDENCE` of the set's own d2
    """

    mean: Floats
    factor: Floats
    radius2: float

    @classmethod
    def of(cls, rows: Floats, floor: Floats) -> Ellipsoid:
        """Return the ellipsoid of rows [n, k]; `floor` [k] is added to the variances (`floor_of`)."""
        found = Statistics.of([rows], rows.shape[1])
        factor = np.asarray(np.linalg.cholesky(found.covariance() + np.diag(floor)), dtype=np.float64)
        bare = cls(found.mean, factor, np.inf)
        return cls(found.mean, factor, float(np.quantile(bare.squared_distances(rows), CONFIDENCE)))

    def squared_distances(self, rows: Floats) -> Floats:
        """Return d2 = (x - mean)^T Sigma^-1 (x - mean), [n]."""
        white = np.linalg.solve(self.factor, (rows - self.mean).T)
        distances: Floats = np.einsum("kn,kn->n", white, white)
        return distances

    def share_outside(self, rows: Floats) -> float:
        """Return the share of rows outside of the ellipsoid."""
        return float(np.mean(self.squared_distances(rows) > self.radius2))


def coverage_matrix(samples: list[Floats], floor: Floats) -> tuple[Floats, list[Ellipsoid]]:
    """Return the share of set a outside the ellipsoid of set b, [n_sets, n_sets] as [a, b], and the ellipsoids."""
    ellipsoids = [Ellipsoid.of(rows, floor) for rows in samples]
    shares = [[ellipsoid.share_outside(rows) for ellipsoid in ellipsoids] for rows in samples]
    return np.array(shares), ellipsoids
