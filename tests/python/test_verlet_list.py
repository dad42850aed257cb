"""The skin list must never miss a pair, and should not be rebuilt needlessly."""

import numpy as np
import pytest

from grace_md.neighbors import VerletList
from neighbor_oracle import brute_force

CUTOFFS = np.array([[4.0, 3.0], [3.0, 3.5]])


def pairs_within_cutoff(found, positions, cell, species):
    center = np.repeat(np.arange(len(positions)), np.diff(found.first))
    distance = np.linalg.norm(found.vectors(positions, cell[None]), axis=1)
    keep = distance < CUTOFFS[species[center], species[found.neighbor]]
    table = np.column_stack([center, found.neighbor, found.shift])[keep]
    return table[np.lexsort(table.T[::-1])]


@pytest.mark.parametrize("pbc", [(True, True, True), (True, False, True), (False, True, False), (False, False, False)])
@pytest.mark.parametrize("strain", [0.0, 0.003])
def test_random_walk_under_strain_never_misses_a_pair(pbc, strain):
    """Atoms drift across the boundaries unwrapped; the cell is strained and rotated; all atoms translate."""
    rng = np.random.default_rng([sum(pbc), int(strain * 1000)])
    cell = np.array([[6.0, 0.3, 0.0], [-2.0, 5.5, 0.4], [0.5, 0.1, 4.5]])
    positions, species = rng.random((14, 3)) @ cell, rng.integers(0, 2, 14)
    verlet, n_steps, n_pairs = VerletList(CUTOFFS, skin=0.8), 120, 0
    for _ in range(n_steps):
        found = verlet.update(positions, cell, pbc, species)
        expected, _ = brute_force(positions, cell, pbc, CUTOFFS, species)
        assert np.array_equal(pairs_within_cutoff(found, positions, cell, species), expected)
        n_pairs += len(expected)
        deformation = np.eye(3) + strain * rng.normal(size=(3, 3))
        cell, positions = cell @ deformation, positions @ deformation
        positions = positions + rng.normal(size=(14, 3)) * 0.03 + rng.normal(size=3)
    assert n_pairs > 0
    assert verlet.n_updates == n_steps
    assert 2 <= verlet.n_builds < n_steps / 2


def test_positions_leave_the_cell_without_a_rebuild():
    verlet = VerletList([[3.0]], skin=1.0)
    cell, positions = np.eye(3) * 4.0, np.array([[0.05, 0.0, 0.0], [2.0, 2.0, 3.95]])
    verlet.update(positions, cell, True, [0, 0])
    moved = positions + np.array([[-0.2, 0, 0], [0, 0, 0.2]])
    found = verlet.update(moved, cell, True, [0, 0])
    assert verlet.n_builds == 1
    center = np.repeat([0, 1], np.diff(found.first))
    expected = moved[found.neighbor] - moved[center] + found.shift @ cell
    assert np.all(np.abs(found.vectors(moved, cell[None]) - expected) <= 1e-12)


def test_common_translation_and_pure_strain_keep_the_list():
    rng = np.random.default_rng(1)
    verlet, cell, positions = VerletList([[4.0]], skin=0.5), np.eye(3) * 7.0, rng.random((20, 3)) * 7.0
    verlet.update(positions, cell, True, np.zeros(20, int))
    verlet.update(positions * 1.02 + [30.0, -8.0, 2.0], cell * 1.02, True, np.zeros(20, int))
    assert verlet.n_builds == 1
    verlet.update(positions * 0.85, cell * 0.85, True, np.zeros(20, int))  # 4 A / 0.85 is more than 4.5 A
    assert verlet.n_builds == 2


@pytest.mark.parametrize("change", ["wrap", "far", "species", "pbc", "fewer", "nan"])
def test_what_must_rebuild(change):
    rng = np.random.default_rng(2)
    positions, cell, species = rng.random((9, 3)) * 6.0, np.eye(3) * 6.0, np.zeros(9, int)
    verlet = VerletList(CUTOFFS, skin=0.4)
    verlet.update(positions, cell, True, species)
    verlet.update(positions, cell, True, species)
    assert verlet.n_builds == 1
    moved, new_species, pbc = positions.copy(), species.copy(), True
    if change == "wrap":
        moved[3, 1] -= 6.0
    elif change == "far":
        moved[3, 1] += 0.41  # half of it is the common translation
        moved[4, 1] -= 0.01
    elif change == "species":
        new_species[2] = 1
    elif change == "pbc":
        pbc = [True, True, False]
    elif change == "fewer":
        moved, new_species = moved[:-1], new_species[:-1]
    else:
        moved[5, 0] = np.nan
        with pytest.raises(ValueError, match="`positions` of atom 5 are not finite"):
            verlet.update(moved, cell, pbc, new_species)
        return
    found = verlet.update(moved, cell, pbc, new_species)
    assert verlet.n_builds == 2
    expected, _ = brute_force(moved, cell, np.broadcast_to(pbc, 3), CUTOFFS, new_species)
    assert np.array_equal(pairs_within_cutoff(found, moved, cell, new_species), expected)


def test_zero_skin_rebuilds_only_when_something_moved():
    verlet, cell = VerletList([[3.0]], skin=0.0), np.eye(3) * 5.0
    positions = np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    for _ in range(3):
        verlet.update(positions, cell, True, [0, 0])
    assert verlet.n_builds == 1
    verlet.update(positions + np.array([[1e-3, 0, 0], [0, 0, 0]]), cell, True, [0, 0])
    assert verlet.n_builds == 2


@pytest.mark.parametrize("skin", [-0.1, np.nan, np.inf])
def test_bad_skin_is_named(skin):
    with pytest.raises(ValueError, match="`skin` must be finite"):
        VerletList([[3.0]], skin=skin)
