"""How the virial is shared among atoms: sums, and finite differences of the energies of single atoms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

import systems
from lammps_tools import MODELS, full, run, single_point, symmetric
from tolerances import DIFFERENCE_RELATIVE, DIFFERENCE_VIRIAL, STEP, VIRIAL, assert_close


@pytest.mark.parametrize("ranks", [1, 2])
def test_sums(case: tuple[Path, Atoms], ranks: int, tmp_path: Path) -> None:
    model, atoms = case
    [result] = run([single_point(atoms, tmp_path, "cell", model, words="")], tmp_path, ranks)
    total = symmetric(result["virial"])
    assert_close(symmetric(result["virials"].sum(axis=0)), total, VIRIAL)
    assert_close(full(result["centroid_virials"].sum(axis=0)), total, VIRIAL)


def test_shares_by_differences(tmp_path: Path) -> None:
    """W_k = -sum_c r_ck (x) dE_c/dx_k for one layer; r_ck = x_k - x_c; J = sum_k W_k.v_k.

    E_c of a one-layer model depends on x_k only through the bond from c to k; a free cluster has no images.
    """
    atoms = systems.cluster(("O", "Si", "Fe"), 6)
    model = MODELS / "tiny_1l_pairs.npz"
    elements = sorted(set(atoms.symbols))
    types = [elements.index(symbol) + 1 for symbol in atoms.symbols]

    def job(moved: Atoms):
        return single_point(moved, tmp_path, "cluster", model, types=types)

    n = len(atoms)
    slopes = np.zeros((n, n, 3))  # dE_c / dx_k
    for k in range(n):
        for b in range(3):
            energies = []
            for sign in (1.0, -1.0):
                moved = atoms.copy()
                moved.positions[k, b] += sign * STEP
                energies.append(run([job(moved)], tmp_path)[0]["energies"])
            slopes[:, k, b] = (energies[0] - energies[1]) / (2.0 * STEP)
    bonds = atoms.positions[None, :, :] - atoms.positions[:, None, :]  # x_k - x_c
    of_bond = -bonds[:, :, :, None] * slopes[:, :, None, :]
    [result] = run([job(atoms)], tmp_path)
    assert np.abs(of_bond).max() > 0.1
    on_neighbor, on_center = of_bond.sum(axis=0), of_bond.sum(axis=1)
    assert_close(full(result["centroid_virials"]), on_neighbor, DIFFERENCE_VIRIAL, DIFFERENCE_RELATIVE)
    halves = 0.5 * (on_neighbor + on_center)
    a, b = np.triu_indices(3)
    shares = symmetric(result["virials"])
    assert_close(shares[:, a, b], halves[:, a, b], DIFFERENCE_VIRIAL, DIFFERENCE_RELATIVE)
