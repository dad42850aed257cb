"""Mean and covariance of features: exact, streaming, mergeable; and the small arrays that a search needs of them.

With M items b in R^m (equation 5 of the paper, normalised by 1/M):

    mu = (1/M) sum b,   Sigma = (1/M) sum (b - mu)(b - mu)^T,   S = ln det Sigma.

Items are atoms or configurations (means over their atoms). Sums are kept about the running mean and joined by the
formula of Chan, Golub and LeVeque (1983), so that they do not lose digits to a large mean, and joining is associative.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grace_md.smax.candidate import Mode

if TYPE_CHECKING:
    from grace_md.smax.config import StatisticsSettings

__all__ = [
    "EntropyState",
    "ModeSnapshot",
    "SingularStatisticsError",
    "Snapshot",
    "Statistics",
    "log_det",
    "mode_snapshot",
]

Floats = NDArray[np.float64]
MODES: tuple[Mode, Mode] = ("atom", "config")


class SingularStatisticsError(ValueError):
    """Features so nearly dependent that ln det Sigma has no meaning."""


def log_det(covariance: Floats) -> float:
    """Return ln det of a symmetric positive definite matrix.

    Raises
    ------
    SingularStatisticsError
        If it is not positive definite or not finite.
    """
    try:
        factor = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        factor = np.full_like(covariance, np.nan)
    result = 2.0 * float(np.sum(np.log(np.diagonal(factor))))
    if not np.isfinite(result):
        raise SingularStatisticsError(
            "The covariance of the features is singular: a feature is constant or depends on others; let "
            "`statistics.seed_items_per_feature` be larger, or set `statistics.ridge` to 1e-8 or more."
        )
    return result


@dataclass
class Statistics:
    """Number, mean and scatter of items.

    Attributes
    ----------
    count : int
        M.
    mean : float64 [m]
    scatter : float64 [m, m]
        sum (b - mean)(b - mean)^T.
    """

    count: int
    mean: Floats
    scatter: Floats

    @classmethod
    def empty(cls, n_features: int) -> Statistics:
        """No items of `n_features` features."""
        return cls(0, np.zeros(n_features), np.zeros((n_features, n_features)))

    @classmethod
    def of(cls, chunks: Iterable[ArrayLike], n_features: int) -> Statistics:
        """Statistics of a stream of chunks of rows, each [n, m]; the rows are not kept."""
        result = cls.empty(n_features)
        for rows in chunks:
            result.add(rows)
        return result

    @property
    def n_features(self) -> int:
        """The number m of features."""
        return len(self.mean)

    def add(self, rows: ArrayLike) -> None:
        """Add items, [n, m].

        Raises
        ------
        ValueError
            If the shape differs or a value is not finite; nothing is added then.
        """
        rows = np.asarray(rows, dtype=np.float64)
        if rows.ndim != 2 or rows.shape[1] != self.n_features:
            raise ValueError(f"`rows` has shape {list(rows.shape)}, not [n, {self.n_features}] as these statistics.")
        if not np.all(np.isfinite(rows)):
            raise ValueError("`rows` contains values that are not finite; check the structures with them.")
        if len(rows):
            mean = rows.mean(axis=0)
            centred = rows - mean
            joined = self.merged(Statistics(len(rows), mean, centred.T @ centred))
            self.count, self.mean, self.scatter = joined.count, joined.mean, joined.scatter

    def merged(self, other: Statistics) -> Statistics:
        """Return the statistics of the items of both."""
        if other.n_features != self.n_features:
            raise ValueError(
                f"`other` has {other.n_features} features and these statistics {self.n_features}; only those of the "
                "same descriptor can be merged."
            )
        count = self.count + other.count
        if not count:
            return Statistics.empty(self.n_features)
        shift = other.mean - self.mean
        scatter = self.scatter + other.scatter + (self.count * other.count / count) * np.outer(shift, shift)
        return Statistics(count, self.mean + (other.count / count) * shift, scatter)

    def covariance(self) -> Floats:
        """Sigma, float64 [m, m]."""
        if not self.count:
            raise SingularStatisticsError("There are no items yet, and so no covariance; add structures first.")
        return self.scatter / self.count

    def log_det(self, ridge: Floats | None = None) -> float:
        """Return ln det (Sigma + diag(ridge)); ridge is [m].

        Raises
        ------
        SingularStatisticsError
            If the matrix is not positive definite.
        """
        covariance = self.covariance()
        return log_det(covariance if ridge is None else covariance + np.diag(ridge))

    def condition(self) -> float:
        """Ratio of the largest to the smallest eigenvalue of Sigma; inf if it is singular."""
        values = np.linalg.eigvalsh(self.covariance())
        return float(values[-1] / values[0]) if values[0] > 0.0 else float("inf")

    def effective_dimension(self) -> float:
        """Return exp of the entropy of the normalised eigenvalues of Sigma: m if all are equal, 1 if one dominates."""
        values = np.maximum(np.linalg.eigvalsh(self.covariance()), 0.0)
        shares = values[values > 0.0] / values.sum()
        return float(np.exp(-np.sum(shares * np.log(shares))))


@dataclass(frozen=True)
class ModeSnapshot:
    """What the objective needs of the statistics of one kind of item.

    Attributes
    ----------
    count : int
        M.
    mean : float64 [m]
    whitening : float64 [m, m]
        L^-1, with Sigma (and its ridge) = L L^T: d2 of b is |L^-1 (b - mean)|^2.
    """

    count: int
    mean: Floats
    whitening: Floats


@dataclass(frozen=True)
class Snapshot:
    """Statistics at one moment, small enough to send to workers; None for kinds of items that no candidate uses."""

    atom: ModeSnapshot | None
    config: ModeSnapshot | None


def _ridges() -> dict[Mode, Floats | None]:
    return {"atom": None, "config": None}


@dataclass
class EntropyState:
    """Everything that changes when a structure is accepted: both statistics and the ridges of the start.

    Attributes
    ----------
    atom, config : Statistics
        Of atoms, and of means over configurations. Both are always kept.
    ridge : dict of float64 [m] or None
        Added to the diagonal of Sigma of each kind. None: dropped, or the seed phase has not ended.
    seeding : bool
        Whether structures are still accepted as they are.
    """

    atom: Statistics
    config: Statistics
    ridge: dict[Mode, Floats | None] = field(default_factory=_ridges)
    seeding: bool = True

    @classmethod
    def empty(cls, n_features: int) -> EntropyState:
        """No structures yet."""
        return cls(Statistics.empty(n_features), Statistics.empty(n_features))

    def of(self, mode: Mode) -> Statistics:
        """Statistics of one kind of item."""
        return self.atom if mode == "atom" else self.config

    def add(self, features: ArrayLike) -> None:
        """Add one structure by the features of its atoms, [N, m]; raises ValueError as `Statistics.add`."""
        rows = np.asarray(features, dtype=np.float64)
        self.atom.add(rows)
        self.config.add(rows.mean(axis=0, keepdims=True))

    def merged(self, other: EntropyState) -> EntropyState:
        """Return the state of the structures of both; a ridge that one of them has dropped stays dropped.

        The seed phase is over if it is for one of them; where both have a ridge, that of `self` is kept.
        """
        seeded = [state for state in (self, other) if not state.seeding]
        ridge = _ridges()
        for mode in MODES:
            kept = [state.ridge[mode] for state in seeded]
            ridge[mode] = None if not kept or any(value is None for value in kept) else kept[0]
        return EntropyState(self.atom.merged(other.atom), self.config.merged(other.config), ridge, not seeded)

    def log_det(self, mode: Mode) -> float:
        """Return S = ln det Sigma of one kind of item, with its ridge if there is one."""
        return self.of(mode).log_det(self.ridge[mode])

    def update_phase(self, settings: StatisticsSettings) -> None:
        """End the seed phase once there are enough items, and drop ridges once Sigma does without.

        Raises
        ------
        SingularStatisticsError
            If the seed structures span too little even with the ridge.
        """
        modes = _used(settings)
        if self.seeding:
            needed = settings.seed_items_per_feature * self.atom.n_features
            if any(self.of(mode).count < max(needed, 2) for mode in modes):
                return
            self.seeding = False
            for mode in modes:
                self.ridge[mode] = settings.ridge * np.diagonal(self.of(mode).covariance())
                self.log_det(mode)
        for mode in modes:
            if self.ridge[mode] is not None and self.of(mode).condition() < settings.ridge_condition:
                self.ridge[mode] = None

    def snapshot(self, settings: StatisticsSettings) -> Snapshot | None:
        """Return what `search` needs now; None during the seed phase."""
        if self.seeding:
            return None
        found = {mode: mode_snapshot(self.of(mode), self.ridge[mode]) for mode in _used(settings)}
        return Snapshot(found.get("atom"), found.get("config"))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the state as named arrays, for a checkpoint; `from_arrays` is the inverse, bitwise."""
        result: dict[str, NDArray[Any]] = {"seeding": np.array(self.seeding)}
        for mode in MODES:
            part = self.of(mode)
            result |= {
                f"{mode}_count": np.array(part.count),
                f"{mode}_mean": part.mean,
                f"{mode}_scatter": part.scatter,
            }
            ridge = self.ridge[mode]
            if ridge is not None:
                result[f"{mode}_ridge"] = ridge
        return result

    @classmethod
    def from_arrays(cls, arrays: Any) -> EntropyState:
        """Return the state that `arrays` were made of; any mapping of arrays will do."""
        parts = [
            Statistics(
                int(arrays[f"{mode}_count"]), np.array(arrays[f"{mode}_mean"]), np.array(arrays[f"{mode}_scatter"])
            )
            for mode in MODES
        ]
        ridge = _ridges()
        for mode in MODES:
            if f"{mode}_ridge" in arrays:
                ridge[mode] = np.array(arrays[f"{mode}_ridge"])
        return cls(parts[0], parts[1], ridge, bool(arrays["seeding"]))


def _used(settings: StatisticsSettings) -> tuple[Mode, ...]:
    return MODES if settings.mode == "mixed" else (settings.mode,)


def mode_snapshot(statistics: Statistics, ridge: Floats | None) -> ModeSnapshot:
    """Return what the objective needs of `statistics` with diag(ridge) added to Sigma.

    Raises
    ------
    SingularStatisticsError
        If the sum is not positive definite.
    """
    covariance = statistics.covariance()
    if ridge is not None:
        covariance = covariance + np.diag(ridge)
    log_det(covariance)  # refuses a singular one
    identity = np.eye(statistics.n_features)
    whitening = np.tril(np.linalg.solve(np.linalg.cholesky(covariance), identity))
    return ModeSnapshot(statistics.count, statistics.mean, whitening)
