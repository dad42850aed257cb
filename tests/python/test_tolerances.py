"""The comparison of the tests must itself be able to fail."""

from __future__ import annotations

import numpy as np
import pytest

from tolerances import assert_close


def test_equal_values_pass() -> None:
    assert_close([1.0, 2.0], [1.0, 2.0 + 1e-12], atol=1e-11)
    assert_close(100.0, 101.0, atol=0.0, rtol=0.01)
    assert_close(np.zeros((0, 3)), np.zeros((0, 3)), atol=0.0)


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        ([1.0, np.nan], [1.0, 2.0]),
        ([1.0, 2.0], [1.0, np.nan]),
        ([np.nan], [np.nan]),
        ([np.inf], [np.inf]),
        ([np.inf], [1.0]),
        ([1.0], [1.0 + 1e-9]),
        ([1.0, 1.0], [1.0]),  # would broadcast
        (1.0, [1.0]),
        ([[1.0]], [1.0]),
    ],
)
def test_different_values_fail(actual: object, expected: object) -> None:
    with pytest.raises(AssertionError, match="energy"):
        assert_close(actual, expected, atol=1e-10, rtol=1e-10, what="energy")


def test_the_worst_value_is_named() -> None:
    with pytest.raises(AssertionError, match=r"2 of 4 values differ; worst at \(1, 0\)"):
        assert_close([[0.0, 1e-3], [5.0, 0.0]], np.zeros((2, 2)), atol=1e-4)
