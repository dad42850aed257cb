"""Neighbour lists against brute force, matscipy, vesin and ASE, on every kind of cell."""

import json

import ase.neighborlist
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from grace_md import _core
from grace_md.neighbors import PairList, neighbor_list
from neighbor_oracle import GOLDEN, RULE, brute_force, completed_cell
from tolerances import NEIGHBOR_VECTOR, assert_close

ELEMENTS = ["O", "Si", "Fe"]
CELLS = ["orthorhombic", "triclinic", "skewed", "left_handed", "thin", "zero_rows", "tiny"]


def build(positions, cell, pbc, cutoffs, species, skin=0.0, n_threads=1):
    positions = np.asarray(positions, float).reshape(-1, 3)
    first_atom, cells = [0, len(positions)], np.asarray(cell, float).reshape(1, 3, 3)
    periodic = np.asarray(pbc, bool).reshape(1, 3)
    return _core.build_neighbors(positions, species, cells, periodic, first_atom, cutoffs, skin, n_threads)


def rows(found):
    """(i, j, Sx, Sy, Sz), sorted, with multiplicity."""
    if isinstance(found, PairList):
        table = np.column_stack([found.center, found.neighbor, found.shift])
    else:
        center = np.repeat(np.arange(found.n_atoms), np.diff(found.first))
        table = np.column_stack([center, found.neighbor, found.shift])
    return table[np.lexsort(table.T[::-1])]


def random_system(kind, seed):
    """Positions in and around the cell, cell, pbc, species, cutoffs [3, 3] of one random structure."""
    rng = np.random.default_rng([CELLS.index(kind), seed])
    cell = np.diag(rng.uniform(4.0, 11.0, 3))
    pbc = rng.random(3) < 0.7
    if kind == "triclinic":
        cell += rng.normal(size=(3, 3)) * 1.5
    elif kind == "skewed":
        cell[1, 0], cell[2, 1], cell[2, 0] = rng.uniform(-3, 3, 3) * np.diag(cell)
    elif kind == "left_handed":
        cell = cell[[1, 0, 2]]
    elif kind == "thin":
        cell[rng.integers(3)] *= 0.0
        axis = np.flatnonzero(~cell.any(axis=1))[0]
        cell[axis, axis] = 5.2
        pbc[axis] = True
    elif kind == "zero_rows":
        cell[~pbc] = 0.0
    elif kind == "tiny":
        cell = np.diag(rng.uniform(1.5, 2.5, 3)) + rng.normal(size=(3, 3)) * 0.2
    n_atoms = int(rng.integers(1, 4 if kind == "tiny" else 25))
    spread = np.where(cell.any(axis=1)[:, None], cell, np.eye(3) * 6.0)
    positions = rng.uniform(-1.5, 2.5, (n_atoms, 3)) @ spread
    radii = rng.uniform(2.0, 5.0 if kind == "tiny" else 7.0, 3)
    return positions, cell, pbc, rng.integers(0, 3, n_atoms), (radii[:, None] + radii) / 2


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("seed", range(8))
def test_random_systems_equal_brute_force(kind, seed):
    positions, cell, pbc, species, cutoffs = random_system(kind, seed)
    expected, distances = brute_force(positions, cell, pbc, cutoffs, species)
    found = build(positions, cell, pbc, cutoffs, species)
    assert np.array_equal(rows(found), expected)
    vectors = found.vectors(positions, cell[None])
    table = np.column_stack([np.repeat(np.arange(len(positions)), np.diff(found.first)), found.neighbor, found.shift])
    order = np.lexsort(table.T[::-1])
    assert_close(np.linalg.norm(vectors[order], axis=1), distances, NEIGHBOR_VECTOR, what="distances")
    image = table[:, 2:] @ np.where(pbc[:, None], cell, 0.0)
    expected_vectors = positions[table[:, 1]] - positions[table[:, 0]] + image
    assert_close(vectors, expected_vectors, NEIGHBOR_VECTOR, what="vectors")


@pytest.mark.parametrize("kind", ["orthorhombic", "triclinic", "skewed", "thin", "tiny"])
@pytest.mark.parametrize("seed", range(3))
def test_random_systems_equal_matscipy_vesin_and_ase(kind, seed):
    matscipy = pytest.importorskip("matscipy.neighbours")
    vesin = pytest.importorskip("vesin")
    positions, cell, _, species, cutoffs = random_system(kind, seed)
    symbols = [ELEMENTS[s] for s in species]
    by_pair = {(a, b): cutoffs[m, n] for m, a in enumerate(ELEMENTS) for n, b in enumerate(ELEMENTS) if m <= n}
    atoms = Atoms(symbols, positions, cell=cell, pbc=True)
    found = rows(neighbor_list(atoms, by_pair))
    assert len(found) > 0

    def sorted_rows(i, j, shift):
        table = np.column_stack([i, j, shift]).astype(int)
        return table[np.lexsort(table.T[::-1])]

    assert np.array_equal(found, sorted_rows(*matscipy.neighbour_list("ijS", atoms, by_pair))), "matscipy"
    assert np.array_equal(found, sorted_rows(*ase.neighborlist.neighbor_list("ijS", atoms, by_pair))), "ase"
    search = vesin.NeighborList(cutoff=cutoffs.max(), full_list=True)
    i, j, shift, distance = search.compute(points=positions, box=cell, periodic=True, quantities="ijSd")
    keep = distance < cutoffs[species[i.astype(int)], species[j.astype(int)]]
    assert np.array_equal(found, sorted_rows(i[keep], j[keep], shift[keep])), "vesin"


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.json")), ids=lambda p: p.stem)
def test_golden_cases(path):
    case = json.loads(path.read_text())
    assert case["rule"] == RULE
    atoms = Atoms(case["symbols"], case["positions"], cell=case["cell"], pbc=case["pbc"])
    found = rows(neighbor_list(atoms, {(a, b): r for a, b, r in case["pair_cutoffs"]}))
    assert np.array_equal(found, np.array(case["pairs"], dtype=int).reshape(-1, 5))


def test_many_bins_equal_matscipy():
    matscipy = pytest.importorskip("matscipy.neighbours")
    rng = np.random.default_rng(5)
    cell = np.diag([41.0, 37.0, 58.0]) + rng.normal(size=(3, 3)) * 3
    atoms = Atoms(rng.choice(ELEMENTS, 6000), rng.random((6000, 3)) @ cell, cell=cell, pbc=[True, False, True])
    cutoffs = {("O", "O"): 5.0, ("O", "Si"): 5.5, ("Si", "Si"): 6.0, ("Fe", "Fe"): 7.0}  # no O-Fe and Si-Fe pairs
    table = np.column_stack(matscipy.neighbour_list("ijS", atoms, cutoffs))
    found = rows(neighbor_list(atoms, cutoffs))
    assert len(found) > 100_000
    assert np.array_equal(found, table[np.lexsort(table.T[::-1])])


def test_rows_are_sorted_and_do_not_depend_on_threads():
    rng = np.random.default_rng(6)
    cell = np.diag([30.0, 6.0, 31.0])
    positions, species = rng.random((3000, 3)) @ cell, rng.integers(0, 3, 3000)
    cutoffs = np.array([[5.0, 5.5, 0.0], [5.5, 7.0, 6.0], [0.0, 6.0, 6.5]])
    one = build(positions, cell, [1, 1, 1], cutoffs, species, n_threads=1)
    two = build(positions, cell, [1, 1, 1], cutoffs, species, n_threads=2)
    for name in ("first", "neighbor", "packed_shift", "wrap", "structure"):
        assert np.array_equal(getattr(one, name), getattr(two, name)), name
    image = np.column_stack([(one.packed_shift >> bit) & 1023 for bit in (0, 10, 20)])
    center = np.repeat(np.arange(3000), np.diff(one.first))
    order = np.lexsort([image[:, 2], image[:, 1], image[:, 0], one.neighbor, center])
    assert np.array_equal(order, np.arange(one.n_pairs))


def test_asymmetric_cutoffs_belong_to_the_centre():
    rng = np.random.default_rng(7)
    positions, species = rng.random((40, 3)) * 9.0, rng.integers(0, 2, 40)
    cutoffs = np.array([[3.0, 6.0], [4.0, -1.0]])
    expected, _ = brute_force(positions, np.eye(3) * 9.0, [1, 1, 0], cutoffs, species)
    assert np.array_equal(rows(build(positions, np.eye(3) * 9.0, [1, 1, 0], cutoffs, species)), expected)


def test_skin_widens_every_listed_pair():
    positions, cell, pbc, species, cutoffs = random_system("triclinic", 3)
    cutoffs[0, 1] = cutoffs[1, 0] = 0.0
    expected, _ = brute_force(positions, cell, pbc, np.where(cutoffs > 0, cutoffs + 0.7, 0.0), species)
    assert np.array_equal(rows(build(positions, cell, pbc, cutoffs, species, skin=0.7)), expected)


@pytest.mark.parametrize("n_cells", [1, 2, 9])
def test_strict_at_the_cutoff(n_cells):
    """Distances of a simple cubic lattice of edge 2 are exact: a cutoff of 2 excludes the six nearest atoms."""
    atoms = bulk("Po", "sc", a=2.0).repeat(n_cells)
    assert len(neighbor_list(atoms, 2.0)) == 0
    assert len(neighbor_list(atoms, np.nextafter(2.0, 3.0))) == 6 * n_cells**3


@pytest.mark.parametrize("n_cells", [1, 3, 8])
def test_atoms_on_the_edges_of_cell_and_bins(n_cells):
    """Positions that are multiples of bin edges, and a rounding error beside them, inside and outside the cell."""
    rng = np.random.default_rng(n_cells)
    atoms = bulk("Po", "sc", a=3.0).repeat(n_cells)
    reference = neighbor_list(atoms, 6.5)
    for noise in (0.0, 1e-17, 1e-15, 1e-13):
        jitter = noise * rng.choice([-1.0, 0.0, 1.0], (len(atoms), 3))
        moved = atoms.copy()
        moved.positions += jitter * 3.0 * n_cells + rng.integers(-3, 4, (len(atoms), 3)) * 3.0 * n_cells
        found = neighbor_list(moved, 6.5)
        assert np.array_equal(np.bincount(found.center, minlength=len(atoms)), np.bincount(reference.center))
        assert_close(np.sort(found.distance), np.sort(reference.distance), NEIGHBOR_VECTOR, what="distances")


def test_supercell_has_the_pairs_of_its_unit_cells():
    atoms = Atoms(
        "SiO2", [[0.1, 0.2, 0.0], [1.2, 1.4, 0.3], [2.0, 0.2, 1.9]], cell=[[3, 0, 0], [1.4, 3.1, 0], [-2, 0.4, 2.9]]
    )
    atoms.pbc = True
    cutoffs = {("Si", "Si"): 5.2, ("Si", "O"): 6.1, ("O", "O"): 4.7}
    single, repeated = neighbor_list(atoms, cutoffs), neighbor_list(atoms * (3, 2, 4), cutoffs)
    assert len(repeated) == 24 * len(single)
    for center in range(3 * 24):
        expected = np.sort(single.distance[single.center == center % 3])
        assert_close(np.sort(repeated.distance[repeated.center == center]), expected, NEIGHBOR_VECTOR, what="distances")


def test_far_outside_the_cell():
    positions, cell, pbc, species, cutoffs = random_system("triclinic", 1)
    cells_away = np.random.default_rng(8).integers(-1_000_000, 1_000_000, positions.shape) * pbc
    near, far = (build(r, cell, pbc, cutoffs, species) for r in (positions, positions + cells_away @ cell))
    assert np.array_equal(near.first, far.first)
    assert np.array_equal(near.neighbor, far.neighbor)


def test_vacuum_and_evaporated_atoms():
    rng = np.random.default_rng(9)
    cluster = rng.random((200, 3)) * 13.0
    positions = np.vstack([cluster, [[1e6, 0.0, 3e4], [1e6, 2.0, 3e4], [-5e8, 0.0, 0.0]]])
    expected, _ = brute_force(cluster, np.zeros((3, 3)), [0, 0, 0], [[3.0]], np.zeros(200, int))
    expected = np.vstack([expected, [[200, 201, 0, 0, 0], [201, 200, 0, 0, 0]]])
    zeros = np.zeros(203, int)
    assert np.array_equal(rows(build(positions, np.zeros((3, 3)), [0, 0, 0], [[3.0]], zeros)), expected)
    in_box = build(cluster, np.eye(3) * 1000.0, [1, 1, 1], [[3.0]], zeros[:200])
    assert np.array_equal(rows(in_box), expected[:-2])


def test_list_of_structures_is_the_single_lists_in_a_row():
    systems = [random_system(kind, seed) for kind in CELLS for seed in (10, 11)]
    structures = [Atoms([ELEMENTS[s] for s in sp], r, cell=c, pbc=p) for r, c, p, sp, _ in systems]
    structures.insert(3, Atoms(cell=np.eye(3) * 3.0, pbc=True))
    structures.append(Atoms())
    matrix = np.array([[5.0, 4.0, 3.0], [4.0, 6.0, 0.0], [3.0, 0.0, 5.5]])
    batch = neighbor_list(structures, matrix, elements=ELEMENTS)
    singles = [neighbor_list(atoms, matrix, elements=ELEMENTS) for atoms in structures]
    first = np.cumsum([0] + [len(a) for a in structures])
    assert np.array_equal(batch.first_atom, first)
    assert np.array_equal(batch.center, np.concatenate([s.center + f for s, f in zip(singles, first, strict=False)]))
    assert np.array_equal(
        batch.neighbor, np.concatenate([s.neighbor + f for s, f in zip(singles, first, strict=False)])
    )
    assert np.array_equal(batch.shift, np.concatenate([s.shift for s in singles]))
    assert np.array_equal(batch.vector, np.concatenate([s.vector for s in singles]))


def test_forms_of_cutoffs_agree():
    atoms = bulk("MgO", "rocksalt", a=4.2) * (2, 1, 1)
    by_name = neighbor_list(atoms, {("O", "Mg"): 4.0, (12, 12): 4.0, ("O", "O"): 4.0})
    number = neighbor_list(atoms, 4.0)
    matrix = neighbor_list(atoms, np.full((3, 3), 4.0), elements=["O", "Xe", "Mg"])
    for other in (number, matrix):
        assert len(other) > 0
        assert np.array_equal(rows(by_name), rows(other))


def test_no_pairs():
    empty = neighbor_list(Atoms(cell=np.eye(3) * 4.0, pbc=True), 5.0)
    assert len(empty) == 0
    assert empty.vector.shape == (0, 3)
    assert len(neighbor_list([], 5.0)) == 0
    assert len(neighbor_list(Atoms("H", [[0, 0, 0]]), 5.0)) == 0
    assert len(neighbor_list(bulk("Cu"), {})) == 0
    assert len(neighbor_list(bulk("Cu"), 0.0, skin=3.0)) == 0


def test_arrays_are_read_only_and_outlive_the_list():
    neighbor = build([[0, 0, 0], [1, 0, 0]], np.zeros((3, 3)), [0, 0, 0], [[2.0]], [0, 0]).neighbor
    assert neighbor.tolist() == [1, 0]
    with pytest.raises(ValueError, match="read-only"):
        neighbor[0] = 5


FLAT = [[4.0, 0, 0], [8.0, 0, 0], [0, 0, 4.0]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positions": [[0, 0, 0], [np.nan, 0, 0]]}, r"`positions` of atom 1 are not finite.*remove the atom"),
        ({"positions": [[np.inf, 0, 0], [0, 0, 0]]}, r"`positions` of atom 0 are not finite"),
        ({"positions": [[1e300, 0, 0], [0, 0, 0]]}, r"`positions` of atom 0 are beyond"),
        ({"positions": [[1e11, 0, 0], [0, 0, 0]]}, r"`positions` of atom 0 are .* cells outside the cell"),
        ({"positions": [[0, 0, 0]]}, r"`positions` must have shape \[2, 3\], got \[1, 3\]"),
        ({"cells": [FLAT]}, r"`cell` has zero volume.*set pbc to False"),
        ({"cells": [[[4.0, 0, 0], [0, 0, 0], [0, 0, 4.0]]]}, r"`cell` has zero length along direction 1.*periodic"),
        ({"cells": [np.eye(3) * np.nan]}, r"`cell` has a value that is not finite"),
        ({"cells": [np.diag([0.005, 9.0, 9.0])]}, r"height of 0.005 A along direction 0, too small for a cutoff of 3"),
        ({"cells": np.eye(3)}, r"`cells` must have shape \[1, 3, 3\], got \[3, 3\]"),
        ({"species": [0, 1]}, r"`species` of atom 1 is 1, must be in \[0, 1\)"),
        ({"species": [0, -1]}, r"`species` of atom 1 is -1"),
        ({"pair_cutoffs": [[np.nan]]}, r"`pair_cutoffs` must be finite"),
        ({"pair_cutoffs": [[1e9]]}, r"`pair_cutoffs` must be finite and at most"),
        ({"pair_cutoffs": [[3.0, 3.0]]}, r"`pair_cutoffs` must have shape \[n_species, n_species\]"),
        ({"skin": -0.1}, r"`skin` must be finite and >= 0, got -0.1"),
        ({"skin": np.nan}, r"`skin` must be finite and >= 0"),
        ({"n_threads": -1}, r"`n_threads` must be >= 0"),
        ({"first_atom": [0, 3]}, r"`positions` must have shape \[3, 3\]"),
        ({"first_atom": [1, 2]}, r"`first_atom` must start with 0"),
        ({"first_atom": [0, 3, 2]}, r"`first_atom` must not decrease"),
        ({"first_atom": []}, r"`first_atom` must have shape"),
        ({"periodic": [True, True, True]}, r"`periodic` must have shape \[1, 3\]"),
    ],
)
def test_bad_input_is_named(change, message):
    good = {
        "positions": [[0, 0, 0], [1, 0, 0]],
        "species": [0, 0],
        "cells": [np.eye(3) * 4.0],
        "periodic": [[True, True, True]],
        "first_atom": [0, 2],
        "pair_cutoffs": [[3.0]],
    }
    assert _core.build_neighbors(**good).n_pairs > 0
    with pytest.raises(ValueError, match=message):
        _core.build_neighbors(**(good | change))


@pytest.mark.parametrize(
    ("cutoffs", "elements", "message"),
    [
        ({("Cu", "Cu"): 3.0, ("Cu", "Qq"): 3.0}, None, "'Qq', which does not exist"),
        ({("Cu", "O"): 3.0, ("O", "Cu"): 3.1}, None, r"two values for the pair"),
        (np.eye(2), None, "`elements` is needed"),
        (np.eye(2), ["Cu"], r"must have shape \[1, 1\]"),
        (np.eye(2), ["Cu", "Cu"], "names an element twice"),
        (np.eye(2), ["O", "Si"], "lacks Cu"),
        ({("Cu", "Cu"): 3.0}, ["Cu"], "goes with a matrix"),
    ],
)
def test_bad_cutoffs_are_named(cutoffs, elements, message):
    with pytest.raises(ValueError, match=message):
        neighbor_list(bulk("Cu"), cutoffs, elements=elements)


def test_structures_of_a_batch_are_named():
    bad = Atoms("H2", [[0, 0, 0], [0, 0, np.inf]])
    with pytest.raises(ValueError, match=r"`positions` of atom 1 of structure 1 are not finite"):
        neighbor_list([Atoms("H"), bad], 3.0)


def test_completed_cell_of_the_oracle_is_perpendicular():
    full = completed_cell([[3.0, 1.0, 0.0], [9.0, 9.0, 9.0], [0.0, 0.5, 2.0]], np.array([True, False, True]))
    assert_close(full @ full[1], [0.0, 1.0, 0.0], NEIGHBOR_VECTOR, what="normal")
