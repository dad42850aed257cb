"""Reference energies: given, of isolated atoms, fitted, and what the data leave open."""

from __future__ import annotations

import numpy as np
import pytest

from grace_md.strict import ConfigError
from grace_md.training.references import (
    composition_counts,
    given_references,
    isolated_atoms,
    ridge_references,
)

ELEMENTS = ["O", "Si", "Mg"]
ENERGIES = np.array([-8.8, -5.2, -1.0])


def test_counts() -> None:
    counts = composition_counts(np.array([0, 1, 0, 2, 2]), np.array([0, 3, 5]), 3)
    np.testing.assert_array_equal(counts, [[2, 1, 0], [0, 0, 2]])


def test_a_fit_finds_the_energies_that_made_the_labels() -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 9, (60, 3)).astype(float) + np.eye(3)[rng.integers(0, 3, 60)]
    energies = counts @ ENERGIES
    energies[5] = np.nan
    found = ridge_references(counts, energies, ELEMENTS)
    np.testing.assert_allclose(found.energies, ENERGIES, atol=1e-3)
    assert not found.warning


def test_fixed_ratios_are_reported_and_stay_bounded() -> None:
    n = np.arange(1.0, 21.0)
    counts = np.stack([2 * n, n, np.zeros(20)], axis=1)  # SiO2 at all sizes, no Mg
    found = ridge_references(counts, counts @ ENERGIES, ELEMENTS)
    assert "determine 1 of 3" in found.warning
    for element in ELEMENTS:
        assert element in found.warning
    np.testing.assert_allclose(counts @ found.energies, counts @ ENERGIES, rtol=1e-4)
    assert np.abs(found.energies).max() < 20.0
    assert found.energies[2] == pytest.approx((2 * ENERGIES[0] + ENERGIES[1]) / 3, rel=1e-6)  # the mean


def test_weights_decide_between_contradicting_labels() -> None:
    counts, energies = np.ones((2, 1)), np.array([1.0, 3.0])
    assert ridge_references(counts, energies, ["O"], weights=np.array([1.0, 3.0])).energies[0] == pytest.approx(2.5)


def test_no_energies_is_an_error() -> None:
    with pytest.raises(ConfigError, match="needs structures with an energy"):
        ridge_references(np.ones((2, 1)), np.full(2, np.nan), ["O"])


def test_isolated_atoms() -> None:
    counts = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0], [2, 0, 0]], dtype=float)
    energies = np.array([-1.0, -2.0, -3.0, -9.0, -2.5])
    bonds = np.array([0, 0, 0, 12, 0])  # the fourth is a crystal of one atom
    np.testing.assert_allclose(isolated_atoms(counts, energies, bonds, ELEMENTS).energies, [-1.0, -2.0, -3.0])
    with pytest.raises(ConfigError, match="no isolated atom of Mg"):
        isolated_atoms(counts[:2], energies[:2], bonds[:2], ELEMENTS)
    bonds[3] = 0
    with pytest.raises(ConfigError, match=r"atoms of O have energies from -9.000000 to -1.000000"):
        isolated_atoms(counts, energies, bonds, ELEMENTS)


def test_given() -> None:
    np.testing.assert_array_equal(given_references({"Mg": -1.0, "O": -8.8, "Si": -5.2}, ELEMENTS).energies, ENERGIES)
    with pytest.raises(ConfigError, match="no energy for Mg"):
        given_references({"O": 1.0, "Si": 1.0}, ELEMENTS)
    with pytest.raises(ConfigError, match="has Fe, which the model does not"):
        given_references({"O": 1.0, "Si": 1.0, "Mg": 1.0, "Fe": 1.0}, ELEMENTS)
