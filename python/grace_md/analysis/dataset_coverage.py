"""Which part of the space of features several data sets cover: principal components and what follows from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grace_md.analysis.dataset_features import Features
from grace_md.analysis.dataset_sets import DataSet
from grace_md.analysis.dataset_space import (
    Ellipsoid,
    Hull,
    PrincipalAxes,
    Reservoir,
    coverage_matrix,
    floor_of,
    principal_axes,
)
from grace_md.analysis.dataset_statistics import SetStatistics
from grace_md.smax.statistics import Statistics
from grace_md.training.data.labels import Record

__all__ = ["Coverage", "CoverageSettings", "choose", "feature_work", "measure_coverage"]

Floats = NDArray[np.float64]

ATOMS_PER_BATCH = 1024
ATOMS_PER_COMPONENT = 10  # atoms of the smallest set for each component of the common space
LEAST_COMPONENTS = 2


@dataclass(frozen=True)
class CoverageSettings:
    """How much is sampled.

    Attributes
    ----------
    fit : structures of each set that the principal axes are fitted to (the paper: 5,000); fewer if a set has fewer
    project : structures of each set that are projected; 0: all
    components : most principal components of the common space
    most_rows : projected atoms that are kept of each set, a uniform sample
    seed : of all samples
    """

    fit: int = 5000
    project: int = 20_000
    components: int = 32
    most_rows: int = 200_000
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("fit", 1), ("project", 0), ("components", LEAST_COMPONENTS), ("most_rows", 100)):
            if getattr(self, name) < least:
                raise ValueError(f"`{name}` = {getattr(self, name)} must be at least {least}.")


@dataclass
class Coverage:
    """Sets of atoms in the space of the leading principal components.

    Attributes
    ----------
    names : of the sets, the order of all lists
    features : name of the features
    n_features : int
    axes : principal axes, fitted to `n_fit` structures of each set
    samples : projected atoms, float64 [n, n_components] each, in random order
    hulls : convex hulls of all projected atoms in PC1-PC2
    ellipsoids : of the samples
    matrix : share of set a outside of the ellipsoid of set b, [a, b]
    scalars : by name: atoms (projected), log_det, effective_dimension, hull_area, radius, skipped (structures with
        elements that the features do not know), dropped (atoms whose features are not finite)
    n_fit : structures of each set; n_fair : atoms of each set in log_det and effective_dimension
    """

    names: list[str]
    features: str
    n_features: int
    axes: PrincipalAxes
    samples: list[Floats]
    hulls: list[Hull]
    ellipsoids: list[Ellipsoid]
    matrix: Floats
    scalars: dict[str, dict[str, float]]
    n_fit: int
    n_fair: int

    def summary(self) -> dict[str, Any]:
        """Return plain values for machines."""
        return {
            "features": self.features,
            "n_features": self.n_features,
            "n_components": len(self.axes.variance),
            "variance_shares": self.axes.shares.tolist(),
            "structures_fitted_per_set": self.n_fit,
            "atoms_compared_per_set": self.n_fair,
            "sets": self.scalars,
            "outside": {
                a: {b: float(self.matrix[i, j]) for j, b in enumerate(self.names)} for i, a in enumerate(self.names)
            },
        }


def choose(numbers: NDArray[np.int64], n: int, seed: int) -> NDArray[np.int64]:
    """Return a sorted random sample of `n` of some numbers (all if there are not more, or n is 0)."""
    if n == 0 or n >= len(numbers):
        return np.sort(numbers)
    return np.sort(np.random.default_rng(seed).choice(numbers, n, replace=False))


class _Reader:
    """Feature rows of some structures of a set, in batches; counts what cannot be used."""

    def __init__(self, one: DataSet, features: Features, advance: Callable[[int], None]) -> None:
        self.set, self.features, self.advance = one, features, advance
        self.skipped = self.dropped = 0

    def batches(self, chosen: NDArray[np.int64]) -> Iterator[Floats]:
        some: list[Record] = []
        n_atoms = 0
        for _, record in self.set.read(chosen):
            if not self.features.knows(record.numbers):
                self.skipped += 1
                self.advance(len(record.numbers))
                continue
            some.append(record)
            n_atoms += len(record.numbers)
            if n_atoms >= ATOMS_PER_BATCH:
                yield self._rows(some)
                some, n_atoms = [], 0
        if some:
            yield self._rows(some)

    def _rows(self, records: list[Record]) -> Floats:
        rows = self.features.rows(records)
        good = np.isfinite(rows).all(axis=1)
        self.dropped += int((~good).sum())
        self.advance(len(rows))
        return rows[good]


def measure_coverage(
    sets: Sequence[DataSet],
    statistics: Sequence[SetStatistics],
    features: Features,
    settings: CoverageSettings,
    advance: Callable[[int], None] = lambda _: None,
) -> Coverage:
    """Fit the principal axes to equal samples of all sets, project, and measure.

    Parameters
    ----------
    sets, statistics : scanned sets, and what a first pass found in them
    features : of atoms
    advance : called with the number of atoms done since; `feature_work` says how many there will be

    Raises
    ------
    ValueError
        A set of which no structure can be described; too few atoms for two components.
    """
    n_fit = _equal_number(statistics, settings)
    pooled = Statistics.empty(features.n_features)
    fitted_atoms = []
    for one, found in zip(sets, statistics, strict=True):
        before = pooled.count
        for rows in _Reader(one, features, advance).batches(choose(found.numbers, n_fit, settings.seed)):
            pooled.add(rows)
        fitted_atoms.append(pooled.count - before)
        if not fitted_atoms[-1]:
            raise ValueError(
                f"no sampled structure of {one.name} consists of elements that the features ({features.name}) know; "
                "give another model, or leave the set out."
            )
    most = min(settings.components, max(1, min(fitted_atoms) // ATOMS_PER_COMPONENT))
    axes = principal_axes(pooled, most, scaled=features.scaled)
    n_components = len(axes.variance)
    if n_components < LEAST_COMPONENTS:
        raise ValueError(
            f"the smallest set has {min(fitted_atoms)} atoms whose features vary along {n_components} direction; "
            f"at least {LEAST_COMPONENTS * ATOMS_PER_COMPONENT} different ones are needed: leave it out."
        )
    reservoirs, hulls = [], []
    scalars: dict[str, dict[str, float]] = {}
    for k, (one, found) in enumerate(zip(sets, statistics, strict=True)):
        reader, hull = _Reader(one, features, advance), Hull()
        reservoir, atoms = Reservoir(n_components, settings.most_rows, settings.seed + k), 0
        for rows in reader.batches(choose(found.numbers, settings.project, settings.seed)):
            projected = axes.project(rows)
            hull.add(projected[:, :2])
            reservoir.add(projected)
            atoms += len(rows)
        reservoirs.append(reservoir)
        hulls.append(hull)
        scalars[one.name] = {"atoms": atoms, "skipped": reader.skipped, "dropped": reader.dropped}
    return _measured(sets, features, axes, reservoirs, hulls, scalars, n_fit)


def _equal_number(statistics: Sequence[SetStatistics], settings: CoverageSettings) -> int:
    return min(settings.fit, *(found.n_structures for found in statistics))


def feature_work(statistics: Sequence[SetStatistics], settings: CoverageSettings) -> int:
    """Return about how many atoms `measure_coverage` will go through, for a progress bar."""
    n_fit = _equal_number(statistics, settings)
    total = 0
    for found in statistics:
        for n in (n_fit, settings.project):
            total += int(found.sizes[np.searchsorted(found.numbers, choose(found.numbers, n, settings.seed))].sum())
    return total


def _measured(
    sets: Sequence[DataSet],
    features: Features,
    axes: PrincipalAxes,
    reservoirs: Sequence[Reservoir],
    hulls: list[Hull],
    scalars: dict[str, dict[str, float]],
    n_fit: int,
) -> Coverage:
    samples = [reservoir.sample(len(reservoir.rows)) for reservoir in reservoirs]
    samples = [rows[np.random.default_rng(1).permutation(len(rows))] for rows in samples]
    n_fair = min(len(rows) for rows in samples)
    floor = floor_of(axes)
    matrix, ellipsoids = coverage_matrix(samples, floor)
    for one, rows, hull, ellipsoid in zip(sets, samples, hulls, ellipsoids, strict=True):
        fair = Statistics.of([rows[:n_fair]], rows.shape[1])
        scalars[one.name].update(
            log_det=fair.log_det(floor),
            effective_dimension=fair.effective_dimension(),
            hull_area=hull.area,
            radius=float(np.sqrt(ellipsoid.radius2)),
        )
    return Coverage(
        names=[one.name for one in sets],
        features=features.name,
        n_features=features.n_features,
        axes=axes,
        samples=samples,
        hulls=hulls,
        ellipsoids=ellipsoids,
        matrix=matrix,
        scalars=scalars,
        n_fit=n_fit,
        n_fair=n_fair,
    )
