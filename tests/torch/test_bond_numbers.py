"""Vectors, harmonics and radial basis of bonds against the NumPy oracle, their slopes against torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from grace_md.reference_formulas import chebyshev_basis, real_spherical_harmonics  # noqa: E402
from grace_md.torch.batch import AtomsBatch  # noqa: E402
from grace_md.torch.bond_numbers import bond_harmonics, bond_radial_basis, bond_vectors  # noqa: E402
from tolerances import OPERATOR_RELATIVE, assert_close  # noqa: E402


def batch(n_bonds: int = 37) -> tuple[AtomsBatch, Any]:
    """Two structures of four and three atoms, the second without a cell, with random bonds and images."""
    random = np.random.default_rng(3)
    center = np.sort(random.integers(0, 7, n_bonds))
    neighbor = np.where(center < 4, random.integers(0, 4, n_bonds), random.integers(4, 7, n_bonds))
    shift = random.integers(-2, 3, (n_bonds, 3)) * (center < 4)[:, None] * 1.0
    cells = np.stack([random.normal(size=(3, 3)) + 4.0 * np.eye(3), np.zeros((3, 3))])
    arrays = {
        "positions": random.normal(size=(7, 3)) * 2.0,
        "species": random.integers(0, 2, 7),
        "cells": cells,
        "structure": np.array([0, 0, 0, 0, 1, 1, 1]),
        "center": center,
        "neighbor": neighbor,
        "shift": shift,
        "first_bond": np.searchsorted(center, np.arange(8)),
    }
    return AtomsBatch(**{key: torch.from_numpy(value) for key, value in arrays.items()}), arrays


def test_vectors() -> None:
    bonds, a = batch()
    cutoffs = np.array([[5.0, 5.5], [6.0, 7.0]])
    numbers = bond_vectors(bonds, torch.from_numpy(cutoffs))
    r = a["positions"][a["neighbor"]] - a["positions"][a["center"]]
    r = r + np.einsum("bs,bsx->bx", a["shift"], a["cells"][a["structure"][a["center"]]])
    d = np.sqrt((r * r).sum(1) + 1e-10)
    rc = cutoffs[a["species"][a["center"]], a["species"][a["neighbor"]]]
    assert_close(numbers.vector, r, 1e-13)
    assert_close(numbers.distance, d, 1e-13)
    assert_close(numbers.scaled, d / rc, 1e-13)
    bonds.neighbor[3] = 7
    with pytest.raises(ValueError, match=r"`neighbor` must be 0 .. 6, got 7"):
        bond_vectors(bonds, torch.from_numpy(cutoffs))


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("n_bonds", [0, 1, 9])
@pytest.mark.parametrize("lmax", [0, 4, 8])
def test_harmonics(lmax: int, n_bonds: int) -> None:
    random = np.random.default_rng(lmax)
    r = torch.from_numpy(random.normal(size=(n_bonds, 3)) * 2.0).requires_grad_()
    d = torch.sqrt((r * r).sum(1) + 1e-10)
    expected, slope = real_spherical_harmonics((r / d[:, None]).detach().numpy(), lmax)
    # dY/dr by the chain rule, from the oracle's dY/du and torch's du/dr
    gradient = np.zeros((n_bonds, (lmax + 1) ** 2, 3))
    for axis in range(3):
        if n_bonds:
            (du,) = torch.autograd.grad((r / torch.sqrt((r * r).sum(1) + 1e-10)[:, None])[:, axis].sum(), r)
            gradient += slope[:, :, axis, None] * du.numpy()[:, None, :]
    values, actual = bond_harmonics(r.detach(), lmax, torch.float64)
    assert_close(values, expected, OPERATOR_RELATIVE * 10)
    assert_close(actual, gradient, OPERATOR_RELATIVE * max(1.0, np.abs(gradient).max(initial=0.0)))
    single, single_slope = bond_harmonics(r.detach(), lmax, torch.float32)
    assert torch.equal(single, values.float())
    assert torch.equal(single_slope, actual.float())


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("n_bonds", [0, 1, 21])
@pytest.mark.parametrize(("n_basis", "order"), [(1, 1), (8, 16), (10, 5)])
def test_radial_basis(n_basis: int, order: int, n_bonds: int) -> None:
    x = np.linspace(0.05, 1.1, n_bonds)
    expected, slope = chebyshev_basis(x, np.ones_like(x), n_basis, order, x < 1.0)
    values, actual = bond_radial_basis(torch.from_numpy(x), n_basis, order, torch.float64)
    assert_close(values, expected, OPERATOR_RELATIVE)
    assert_close(actual, slope, OPERATOR_RELATIVE * max(1.0, np.abs(slope).max(initial=0.0)))
    single, single_slope = bond_radial_basis(torch.from_numpy(x), n_basis, order, torch.float32)
    assert torch.equal(single, values.float())
    assert torch.equal(single_slope, actual.float())


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match=r"`lmax` must be 0 .. 8, got 9"):
        bond_harmonics(torch.zeros(1, 3, dtype=torch.float64), 9, torch.float64)
    with pytest.raises(ValueError, match=r"`vector` must be torch.float64"):
        bond_harmonics(torch.zeros(1, 3), 2, torch.float64)
    with pytest.raises(ValueError, match=r"`dtype` must be torch.float32 or torch.float64"):
        bond_harmonics(torch.zeros(1, 3, dtype=torch.float64), 2, torch.float16)
    with pytest.raises(ValueError, match=r"`order` must be >= 1, got 0"):
        bond_radial_basis(torch.zeros(1, dtype=torch.float64), 2, 0, torch.float64)
