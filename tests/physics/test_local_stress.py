"""Where the virial of a bond goes: the local stress and the virials of the heat flux, from differences of energies.

With f_ck = -dE/dr_ck for the directed bond from centre c to neighbour k (E the total energy),

    centroid_virial[k] = sum_c r_ck (x) f_ck           the virial of a bond on its neighbour
    atom_virial[k]     = half of every bond on each end
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from ase import Atoms
from numpy.typing import NDArray

import systems
import tolerances as tol
from evaluator_tools import CoreModel, tiny
from grace_md.reference import find_bonds, pair_cutoffs, reference_energies
from grace_md.weights import element_names
from tolerances import assert_close

Array = NDArray[np.float64]


def derivative(function: Callable[[float], Array]) -> Array:
    """Five-point derivative at 0 of a function that returns an array."""
    h = tol.STEP_FIVE
    return np.asarray((8.0 * (function(h) - function(-h)) - (function(2 * h) - function(-2 * h))) / (12.0 * h))


def binary_cell(symbols: tuple[str, str]) -> Atoms:
    """Two atoms in a skewed cell that see each other and images of themselves: a few dozen bonds."""
    cell = [[3.5, 0.0, 0.0], [0.7, 3.8, 0.0], [-0.4, 0.6, 3.6]]
    return Atoms(symbols, positions=[[0.1, 0.2, 0.0], [1.6, 1.9, 1.7]], cell=cell, pbc=True)


@pytest.mark.parametrize(("name", "symbols"), [("tiny_1l_pairs", ("Si", "O")), ("tiny_2l", ("Fe", "O"))])
def test_virials_of_atoms_are_those_of_their_bonds(name: str, symbols: tuple[str, str]) -> None:
    atoms, arrays = binary_cell(symbols), tiny(name)
    names = element_names(arrays)
    species = np.array([names.index(symbol) for symbol in symbols])
    i, j, vectors = find_bonds(atoms, species, pair_cutoffs(arrays))
    assert len(i) > 20
    bond_forces = np.zeros_like(vectors)
    for bond in range(len(i)):
        for axis in range(3):

            def energy(step: float, bond: int = bond, axis: int = axis) -> Array:
                moved = vectors.copy()
                moved[bond, axis] += step
                return np.asarray(reference_energies(arrays, species, (i, j, moved)).sum())

            bond_forces[bond, axis] = -derivative(energy)
    bond_virials = vectors[:, :, None] * bond_forces[:, None, :]
    centroid, half = np.zeros((2, 3, 3)), np.zeros((2, 3, 3))
    np.add.at(centroid, j, bond_virials)
    np.add.at(half, j, 0.5 * bond_virials)
    np.add.at(half, i, 0.5 * bond_virials)

    result = CoreModel(arrays, radial="exact").compute(atoms, atom_virial=True)
    size = np.abs(centroid).max()
    assert np.abs(centroid - half).max() > 1e-3 * size, "both partitions are the same here"
    assert_close(result["centroid_virial"], centroid, tol.LOCAL_STRESS, tol.LOCAL_STRESS)
    assert_close(result["atom_virial"], half, tol.LOCAL_STRESS, tol.LOCAL_STRESS)
    assert_close(result["centroid_virial"].sum(axis=0), result["atom_virial"].sum(axis=0), tol.SUMMATION * size)


def test_heat_flux_identity_of_one_layer() -> None:
    """W_k^ab = -sum_c (r_ck)_a dE_c/dx_kb: with E_c the energies of single atoms, J = sum_k W_k v_k is their transport.

    Only an open cluster has one r_ck per pair. Energies of two-layer models depend on atoms beyond the neighbours;
    there the bonds take the place of the pairs, as tested above.
    """
    atoms = systems.cluster(("O", "Si", "Fe"), n_atoms=8)
    model = CoreModel(tiny("tiny_1l_pairs"), radial="exact")
    expected = np.zeros((len(atoms), 3, 3))
    for k in range(len(atoms)):
        for b in range(3):

            def energies(step: float, k: int = k, b: int = b) -> Array:
                moved = atoms.copy()
                moved.positions[k, b] += step
                return np.asarray(model.compute(moved, forces=False)["atomic_energies"])

            slope = derivative(energies)
            slope[k] = 0.0
            expected[k, :, b] = -(atoms.positions[k] - atoms.positions).T @ slope
    result = model.compute(atoms, atom_virial=True)
    assert np.abs(expected).max() > 0.1
    assert_close(result["centroid_virial"], expected, tol.LOCAL_STRESS, tol.LOCAL_STRESS)
    asymmetry = expected - expected.transpose(0, 2, 1)
    assert np.abs(asymmetry).max() > 1e-3, "a symmetric tensor would have done"


def test_virial_of_a_rotated_cluster_is_the_rotated_virial() -> None:
    atoms = systems.cluster(("O", "Fe"), n_atoms=8)
    model = CoreModel(tiny("tiny_2l"), radial="exact")
    before = model.compute(atoms, atom_virial=True)
    rotation, _ = np.linalg.qr(np.random.default_rng(2).standard_normal((3, 3)))
    turned = atoms.copy()
    turned.positions = atoms.positions @ rotation.T
    after = model.compute(turned, atom_virial=True)
    size = np.abs(before["atom_virial"]).max()
    for key in ("atom_virial", "centroid_virial"):
        expected = np.einsum("ax,kxy,by->kab", rotation, before[key], rotation)
        assert_close(after[key], expected, tol.INVARIANCE_FORCE * size, what=key)
        assert np.abs(after[key] - before[key]).max() > 1e-3 * size, "the rotation did nothing"
