"""Histograms of streams: exact counts, whatever the order and the range of the values."""

from __future__ import annotations

import numpy as np
import pytest

from grace_md.analysis import dataset_histogram
from grace_md.analysis.dataset_histogram import SparseHistogram


def test_counts_are_those_of_numpy() -> None:
    values = np.random.default_rng(1).normal(0.3, 2.0, 5000)
    found = SparseHistogram(0.25)
    for some in np.array_split(values, 11):
        found.add(some)
    edges = 0.25 * np.arange(-60, 61)
    assert found.rebinned(edges).tolist() == np.histogram(values, edges)[0].tolist()
    wide = 0.5 * np.arange(-30, 31)
    assert found.rebinned(wide).tolist() == np.histogram(values, wide)[0].tolist()
    assert (found.count, found.minimum, found.maximum) == (5000, values.min(), values.max())
    assert found.mean == pytest.approx(values.mean())
    assert found.rms == pytest.approx(np.sqrt(np.mean(values**2)))


def test_quantiles_are_right_to_the_width() -> None:
    values = np.random.default_rng(2).exponential(3.0, 4000)
    found = SparseHistogram(2.0**-8)
    found.add(values)
    shares = [0.0, 0.01, 0.5, 0.999, 1.0]
    assert np.abs(np.array(found.quantiles(shares)) - np.quantile(values, shares, method="inverted_cdf")).max() < 2**-7


def test_quantiles_of_whole_numbers_are_whole() -> None:
    found = SparseHistogram(1.0, whole=True)
    found.add([1, 2, 2, 2, 7])
    assert found.quantiles([0.0, 0.2, 0.5, 1.0]) == [1.0, 1.0, 2.0, 7.0]


def test_bins_stay_bounded_and_do_not_depend_on_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset_histogram, "MOST_BINS", 100)
    values = np.random.default_rng(3).normal(0.0, 5.0, 3000)
    up, down = SparseHistogram(2.0**-7), SparseHistogram(2.0**-7)
    for some in np.array_split(np.sort(values), 30):
        up.add(some)
    for some in np.array_split(values, 4):
        down.add(some)
    assert up.width == down.width > 2.0**-7
    assert len(up.bins) <= 100
    assert (up.bins.tolist(), up.counts.tolist()) == (down.bins.tolist(), down.counts.tolist())
    edges = up.width * np.arange(up.bins[0], up.bins[-1] + 2)
    assert up.rebinned(edges).tolist() == np.histogram(values, edges)[0].tolist()


def test_outliers_cost_no_resolution() -> None:
    found = SparseHistogram(0.01)
    found.add(np.linspace(0.0, 1.0, 1000))
    found.add([1e12, -1e12, np.nan, np.inf])
    assert found.width == 0.01
    assert found.count == 1002
    assert found.quantiles([0.5])[0] == pytest.approx(0.5, abs=0.02)


def test_values_beyond_whole_numbers_widen_the_bins() -> None:
    found = SparseHistogram(1e-3)
    found.add([1e30, 1.0])
    assert found.count == 2
    assert found.counts.sum() == 2


def test_nothing_is_nothing() -> None:
    found = SparseHistogram(1.0)
    found.add([np.nan])
    assert found.count == 0
    assert np.isnan(found.mean)
    assert np.isnan(found.quantiles([0.5])[0])
