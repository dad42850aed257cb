"""Exact histograms of streams: bins of a fixed width, of which only those that hold something are kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["SparseHistogram"]

MOST_BINS = 20_000  # bins that hold something; beyond, the width is doubled


class SparseHistogram:
    """Counts of values in bins [k w, (k + 1) w), in one pass and bounded memory, whatever the range of the values.

    Counts are exact. When more than `MOST_BINS` bins are occupied, pairs of neighbours are joined; the width that
    results is the same for every order of the values. A few values far out cost a bin each and no resolution.

    Parameters
    ----------
    width : w > 0 of the first bins
    whole : the values are whole numbers and w is 1: quantiles are whole too

    Attributes
    ----------
    width : float, now
    bins : int64 [n_bins], sorted k; counts : int64 [n_bins]
    count : int; minimum, maximum : float, NaN before there is a value; total, square : float, sums over the values
    """

    def __init__(self, width: float, *, whole: bool = False) -> None:
        self.width = width
        self.whole = whole
        self.bins: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self.counts: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self.count = 0
        self.minimum = self.maximum = float("nan")
        self.total = self.square = 0.0

    def add(self, values: ArrayLike) -> None:
        """Count the finite ones of some values."""
        v = np.asarray(values, dtype=np.float64).reshape(-1)
        v = v[np.isfinite(v)]
        if not len(v):
            return
        self.count += len(v)
        self.minimum, self.maximum = float(np.fmin(self.minimum, v.min())), float(np.fmax(self.maximum, v.max()))
        self.total += float(v.sum())
        self.square += float(v @ v)
        while np.abs(v).max() / self.width > 2.0**62:  # the number of the bin must fit
            self._double()
        self._merge(np.floor(v / self.width).astype(np.int64), np.ones(len(v), dtype=np.int64))
        while len(self.bins) > MOST_BINS:
            self._double()

    def _double(self) -> None:
        self.width *= 2.0
        bins, counts = self.bins // 2, self.counts
        self.bins, self.counts = self.bins[:0], self.counts[:0]
        self._merge(bins, counts)

    def _merge(self, bins: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
        both = np.concatenate([self.bins, bins])
        self.bins, place = np.unique(both, return_inverse=True)
        # bincount sums in double precision, which is exact below 2^53
        weights = np.concatenate([self.counts, counts]).astype(np.float64)
        self.counts = np.bincount(place.reshape(-1), weights, len(self.bins)).astype(np.int64)

    @property
    def mean(self) -> float:
        """Mean of the values; NaN without any."""
        return self.total / self.count if self.count else float("nan")

    @property
    def rms(self) -> float:
        """Root of the mean square of the values; NaN without any."""
        return float(np.sqrt(self.square / self.count)) if self.count else float("nan")

    def quantiles(self, shares: Sequence[float]) -> list[float]:
        """Return quantiles, interpolated within a bin and hence right to its width; NaN without values."""
        if not self.count:
            return [float("nan")] * len(shares)
        ends = np.cumsum(self.counts)
        found = []
        for share in shares:
            wanted = share * self.count
            k = min(int(np.searchsorted(ends, wanted)), len(ends) - 1)
            inside = 0.0 if self.whole else (wanted - (ends[k] - self.counts[k])) / self.counts[k]
            value = self.width * (self.bins[k] + min(max(inside, 0.0), 1.0))
            found.append(float(min(max(value, self.minimum), self.maximum)))
        return found

    def rebinned(self, edges: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return counts in wider bins with increasing `edges` [n + 1], float64 [n]; a bin counts where its middle lies.

        Values beyond the ends are not counted.
        """
        middle = self.width * (self.bins + 0.5)
        place = np.searchsorted(edges, middle, side="right") - 1
        inside = (place >= 0) & (place < len(edges) - 1)
        weights = self.counts[inside].astype(np.float64)
        return np.bincount(place[inside], weights, len(edges) - 1).astype(np.int64)
