"""The screened nuclear repulsion against its formula and against differences of the energy."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from ase import Atoms
from ase.data import covalent_radii

from grace_md.labels.zbl import zbl
from tolerances import assert_close

FORMULA = 1e-12  # relative: a few exponentials
STEP = 1e-5  # A
DIFFERENCE = 1e-6  # eV/A relative to forces of up to 1e3: truncation at this step is 1e-8 of them


def by_hand(d: float, z1: int, z2: int) -> float:
    """The formula as it stands in the description of the starter data, term by term."""
    a = 0.46850 / (z1**0.23 + z2**0.23)
    x = d / a
    phi = (
        0.18175 * math.exp(-3.19980 * x)
        + 0.50986 * math.exp(-0.94229 * x)
        + 0.28022 * math.exp(-0.40290 * x)
        + 0.02817 * math.exp(-0.20162 * x)
    )
    r_out = 0.75 * (covalent_radii[z1] + covalent_radii[z2])
    t = min(1.0, max(0.0, (d - r_out / 2) / (r_out - r_out / 2)))
    return (1 - 10 * t**3 + 15 * t**4 - 6 * t**5) * 14.399645 * z1 * z2 / d * phi


def random_cell(seed: int) -> Atoms:
    random = np.random.default_rng(seed)
    cell = 2.6 * np.eye(3) + random.uniform(-0.4, 0.4, (3, 3))
    return Atoms("OSiFeK", random.random((4, 3)) @ cell, cell=cell, pbc=True)


@pytest.mark.parametrize(("pair", "d"), list(product(["OO", "SiO", "FeK", "HW"], [0.05, 0.3, 0.7, 1.0, 1.3])))
def test_a_pair_follows_the_formula(pair: str, d: float) -> None:
    atoms = Atoms(pair, [[0, 0, 0], [0, 0.6 * d, 0.8 * d]])
    energy, forces, stress = zbl(atoms)
    expected = by_hand(d, *atoms.numbers)
    assert_close(energy, expected, 1e-15, FORMULA)
    assert stress is None
    assert_close(forces[0], -forces[1], 0.0)
    assert forces[1] @ [0, 0.6, 0.8] >= 0.0  # repulsion


def test_nothing_beyond_the_outer_radius() -> None:
    energy, forces, _ = zbl(Atoms("Si2", [[0, 0, 0], [0, 0, 0.75 * 2 * covalent_radii[14] + 1e-9]]))
    assert energy == 0.0
    assert not forces.any()


@pytest.mark.parametrize("seed", range(4))
def test_forces_are_the_gradient(seed: int) -> None:
    atoms = random_cell(seed)
    _, forces, _ = zbl(atoms)
    scale = np.abs(forces).max()
    assert scale > 1.0
    for atom, axis in product(range(len(atoms)), range(3)):
        energies = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[atom, axis] += sign * STEP
            energies.append(zbl(moved)[0])
        assert_close(forces[atom, axis], -(energies[0] - energies[1]) / (2 * STEP), DIFFERENCE * scale)


@pytest.mark.parametrize("seed", range(4))
def test_stress_is_the_derivative_by_strain(seed: int) -> None:
    atoms = random_cell(seed)
    stress = zbl(atoms)[2]
    assert stress is not None
    scale = np.abs(stress).max()
    for k, (a, b) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):
        energies = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[a, b] += 0.5 * sign * STEP
            strain[b, a] += 0.5 * sign * STEP
            moved = atoms.copy()
            moved.set_cell(atoms.cell.array @ strain, scale_atoms=True)
            energies.append(zbl(moved)[0])
        assert_close(stress[k], (energies[0] - energies[1]) / (2 * STEP * atoms.get_volume()), DIFFERENCE * scale)


def test_a_supercell_has_twice_the_energy() -> None:
    atoms = random_cell(7)
    energy, forces, stress = zbl(atoms)
    double = zbl(atoms.repeat((2, 1, 1)))
    assert_close(double[0], 2 * energy, 0.0, 1e-10)
    assert_close(double[1], np.concatenate([forces, forces]), 1e-9 * np.abs(forces).max())
    assert_close(double[2], stress, 1e-10 * np.abs(stress).max())


def test_elements_without_a_radius_are_refused() -> None:
    with pytest.raises(ValueError, match="Z = 97"):
        zbl(Atoms("BkO", [[0, 0, 0], [0, 0, 1.0]]))
