"""Streamed principal axes, ellipsoids, hulls and samples, against plain NumPy and closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from grace_md.analysis.dataset_space import Ellipsoid, Hull, Reservoir, coverage_matrix, floor_of, principal_axes
from grace_md.analysis.dataset_space_figures import chi_square_density
from grace_md.smax.statistics import Statistics
from tolerances import assert_close

STREAMED = 1e-6  # relative; 1e-12 is seen
AREA = 1e-12
SELF = 2e-4  # of the share outside of a set's own ellipsoid: the quantile falls between two of 20,000 atoms
MEAN = 1000.0  # far from zero, so that sums of squares would lose digits


@pytest.fixture
def rows() -> np.ndarray:
    rng = np.random.default_rng(11)
    mixing = rng.standard_normal((12, 12)) * np.geomspace(1.0, 1e-2, 12)
    return MEAN + rng.standard_normal((700, 12)) @ mixing


def test_streamed_axes_are_those_of_a_decomposition_of_all_rows(rows: np.ndarray) -> None:
    axes = principal_axes(Statistics.of(np.array_split(rows, 13), 12), 5)
    centred = rows - rows.mean(axis=0)
    _, singular, right = np.linalg.svd(centred, full_matrices=False)
    assert_close(axes.variance, singular[:5] ** 2 / len(rows), 0.0, STREAMED)
    assert axes.total == pytest.approx(np.sum(singular**2) / len(rows), rel=STREAMED)
    overlap = right[:5] @ axes.axes
    assert_close(np.abs(overlap), np.eye(5), STREAMED)
    expected = centred @ right[:5].T * np.diagonal(overlap)
    assert_close(axes.project(rows), expected, STREAMED * np.abs(expected).max())
    largest = np.abs(axes.axes).argmax(axis=0)
    assert (axes.axes[largest, np.arange(5)] > 0.0).all()


def test_scaled_axes_do_not_depend_on_units(rows: np.ndarray) -> None:
    units = np.geomspace(1e-3, 1e4, 12)
    plain, other = (principal_axes(Statistics.of([x], 12), 4, scaled=True) for x in (rows, rows * units))
    correlation = np.corrcoef(rows.T)
    assert_close(plain.variance, np.linalg.eigvalsh(correlation)[::-1][:4], 0.0, STREAMED)
    assert plain.total == pytest.approx(12.0)
    signs = np.sign(np.sum(plain.project(rows) * other.project(rows * units), axis=0))
    assert_close(other.project(rows * units) * signs, plain.project(rows), STREAMED)
    constant = np.concatenate([rows, np.full((700, 1), 3.0)], axis=1)
    assert np.isfinite(principal_axes(Statistics.of([constant], 13), 4, scaled=True).axes).all()


def test_components_that_are_rounding_are_left_out(rows: np.ndarray) -> None:
    doubled = np.concatenate([rows, rows], axis=1)
    assert len(principal_axes(Statistics.of([doubled], 24), 24).variance) == 12


def test_equal_rows_have_no_axes() -> None:
    with pytest.raises(ValueError, match="nothing to compare"):
        principal_axes(Statistics.of([np.ones((9, 3))], 3), 2)


def test_coverage_of_a_set_in_itself_and_of_sets_far_apart() -> None:
    rng = np.random.default_rng(5)
    near, far = rng.standard_normal((20_000, 6)), 50.0 + rng.standard_normal((20_000, 6))
    wide = 3.0 * rng.standard_normal((20_000, 6))
    shares, ellipsoids = coverage_matrix([near, far, wide], np.full(6, 1e-10))
    assert_close(np.diagonal(shares), np.full(3, 1e-3), SELF)
    assert shares[0, 1] == shares[1, 0] == 1.0
    assert shares[0, 2] < 1e-3
    assert shares[2, 0] > 0.5
    assert ellipsoids[0].radius2 == pytest.approx(22.46, rel=0.05)  # chi-square with 6 degrees of freedom at 99.9 %


def test_distances_are_those_of_the_definition() -> None:
    rng = np.random.default_rng(6)
    some = rng.standard_normal((50, 4)) @ rng.standard_normal((4, 4)) + 3.0
    found = Ellipsoid.of(some, np.zeros(4)).squared_distances(some)
    centred = some - some.mean(axis=0)
    expected = np.einsum("ni,ij,nj->n", centred, np.linalg.inv(centred.T @ centred / 50), centred)
    assert_close(found, expected, 0.0, 1e-9)
    assert found.mean() == pytest.approx(4.0)  # the trace of the identity


def test_a_set_that_is_flat_in_the_common_space_has_an_ellipsoid() -> None:
    rng = np.random.default_rng(7)
    flat, round_ = rng.standard_normal((500, 3)) * [1.0, 1.0, 0.0], rng.standard_normal((500, 3))
    axes = principal_axes(Statistics.of([flat, round_], 3), 3)
    shares, _ = coverage_matrix([axes.project(flat), axes.project(round_)], floor_of(axes))
    assert shares[1, 0] > 0.99
    assert shares[0, 1] < 0.01


def test_log_det_and_effective_dimension_have_closed_forms() -> None:
    scales = np.array([3.0, 2.0, 0.5])
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * scales  # diagonal covariance
    found = Statistics.of([corners], 3)
    shares = scales**2 / np.sum(scales**2)
    assert found.log_det() == pytest.approx(2.0 * np.sum(np.log(scales)))
    assert found.effective_dimension() == pytest.approx(np.exp(-np.sum(shares * np.log(shares))))
    assert Statistics.of([corners / scales], 3).effective_dimension() == pytest.approx(3.0)


def test_hull_of_a_stream_is_the_hull_of_all_points() -> None:
    spatial = pytest.importorskip("scipy.spatial")
    points = np.random.default_rng(8).standard_normal((400, 2))
    hull = Hull()
    assert hull.area == 0.0
    for some in np.array_split(points, 7):
        hull.add(some)
    assert hull.area == pytest.approx(spatial.ConvexHull(points).volume, rel=AREA)
    assert len(hull.corners) == len(spatial.ConvexHull(points).vertices)


def test_hull_of_a_square_and_of_a_line() -> None:
    square, line = Hull(), Hull()
    square.add([[0, 0], [2, 0], [2, 3], [0, 3], [1, 1], [1, 0], [0, 0]])
    line.add([[0, 0], [1, 1], [2, 2]])
    assert square.area == 6.0
    assert len(square.corners) == 4
    assert line.area == 0.0


def test_reservoir_is_a_uniform_sample_of_bounded_size() -> None:
    places = np.zeros(1000)
    for seed in range(200):
        reservoir = Reservoir(1, 50, seed)
        for some in np.array_split(np.arange(1000.0)[:, None], 9):
            reservoir.add(some)
        assert len(reservoir.rows) == 50
        places[reservoir.rows[:, 0].astype(int)] += 1
    tenths = places.reshape(10, 100).sum(axis=1)  # 1000 expected in each, standard deviation 30
    assert np.abs(tenths - 1000).max() < 5 * 30
    assert_close(reservoir.sample(50), reservoir.rows, 0.0)
    assert len(reservoir.sample(20)) == 20
    assert set(reservoir.sample(20)[:, 0]) < set(reservoir.sample(21)[:, 0])


def test_chi_square_density() -> None:
    stats = pytest.importorskip("scipy.stats")
    x = np.geomspace(0.1, 200.0, 30)
    for k in (2, 32, 55):
        assert_close(chi_square_density(x, k), stats.chi2.pdf(x, k), 1e-300, 1e-10)
