"""Neighbour lists of the GPU evaluator, run on the CPU in shuffled order, against those of the CPU and stored cases.

Ghosts and the test of motion have no way into Python of their own: tests/core/test_gpu_neighbors.cpp.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from device_tools import DEVICE, ORDERS
from grace_md import _core
from neighbor_oracle import GOLDEN, brute_force


def build(structures: list[Atoms], species: Any, cutoffs: Any, skin: float = 0.0, device: str = DEVICE) -> Any:
    first_atom = np.concatenate([[0], np.cumsum([len(atoms) for atoms in structures])]).astype(np.int64)
    positions = np.concatenate([atoms.positions for atoms in structures])
    cells = np.array([atoms.cell.array for atoms in structures])
    periodic = np.array([atoms.pbc for atoms in structures])
    return _core.build_neighbors(positions, species, cells, periodic, first_atom, cutoffs, skin, device=device)


def assert_equals_the_cpu(
    structures: list[Atoms], species: Any, cutoffs: Any, skin: float, device: str = DEVICE
) -> Any:
    """Row by row, with the images and the wraps; the list of the device is returned."""
    found = build(structures, species, cutoffs, skin, device)
    expected = build(structures, species, cutoffs, skin, "cpu")
    for name in ("first", "neighbor", "packed_shift", "wrap", "structure", "shift"):
        assert np.array_equal(getattr(found, name), getattr(expected, name)), name
    return found


@pytest.mark.parametrize("device", ORDERS)
@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.json")), ids=lambda p: p.stem)
def test_stored_cases(path: Any, device: str) -> None:
    case = json.loads(path.read_text())
    atoms = Atoms(case["symbols"], case["positions"], cell=case["cell"], pbc=case["pbc"])
    names = sorted(set(case["symbols"]) | {name for a, b, _ in case["pair_cutoffs"] for name in (a, b)})
    cutoffs = np.zeros((len(names), len(names)))
    for a, b, radius in case["pair_cutoffs"]:
        cutoffs[names.index(a), names.index(b)] = cutoffs[names.index(b), names.index(a)] = radius
    species = np.array([names.index(symbol) for symbol in atoms.get_chemical_symbols()], dtype=np.int32)
    found = build([atoms], species, cutoffs, device=device)
    table = np.column_stack([np.repeat(np.arange(found.n_atoms), np.diff(found.first)), found.neighbor, found.shift])
    table = table[np.lexsort(table.T[::-1])]
    assert np.array_equal(table, np.array(case["pairs"], dtype=int).reshape(-1, 5))


@pytest.mark.parametrize("seed", range(5))
def test_batches_equal_brute_force(seed: int) -> None:
    """Small and skewed cells with images of an atom itself, open directions, atoms outside, cutoffs of pairs."""
    rng = np.random.default_rng(seed)
    structures = []
    for _ in range(6):
        n_atoms = int(rng.integers(1, 7))
        cell = np.diag(rng.uniform(3.0, 9.0, 3)) + rng.normal(size=(3, 3)) * 0.6
        scaled = rng.uniform(-1.5, 2.5, (n_atoms, 3))
        structures.append(Atoms("H" * n_atoms, scaled @ cell, cell=cell, pbc=rng.random(3) < 0.7))
    species = rng.integers(0, 3, sum(map(len, structures)))
    radii = rng.uniform(2.5, 7.5, 3)
    cutoffs = (radii[:, None] + radii) / 2
    found = assert_equals_the_cpu(structures, species, cutoffs, 0.0, ORDERS[seed % len(ORDERS)])
    assert_equals_the_cpu(structures, species, cutoffs, 0.8)
    start = 0
    center = np.repeat(np.arange(found.n_atoms), np.diff(found.first))
    for atoms in structures:
        end = start + len(atoms)
        expected, _ = brute_force(atoms.positions, atoms.cell.array, atoms.pbc, cutoffs, species[start:end])
        mine = (center >= start) & (center < end)
        table = np.column_stack([center[mine] - start, found.neighbor[mine] - start, found.shift[mine]])
        assert np.array_equal(table[np.lexsort(table.T[::-1])], expected)
        start = end


def test_one_atom_cells_and_large_cells_in_one_batch() -> None:
    structures = [bulk("Fe"), bulk("Fe", cubic=True) * (5, 5, 5), bulk("Cu"), bulk("W", cubic=True) * (2, 1, 1)]
    species = np.zeros(sum(map(len, structures)), dtype=np.int32)
    assert_equals_the_cpu(structures, species, [[6.0]], 0.7)


@pytest.mark.parametrize("n_cells", [1, 2, 5])
def test_atoms_on_edges_and_at_the_cutoff(n_cells: int) -> None:
    """Atoms on the faces of cell and bins; distances that are the cutoff to the last bit are never listed."""
    atoms = Atoms("H", cell=[2.0, 2.0, 2.0], pbc=True) * (n_cells, n_cells, n_cells)
    atoms.positions[::3] -= 2.0 * n_cells
    atoms.positions[1::5] += np.nextafter(0.0, -1.0)
    species = np.zeros(len(atoms), dtype=np.int32)
    found = assert_equals_the_cpu([atoms], species, [[4.0]], 0.0)
    assert found.n_pairs < 33 * len(atoms)
    assert_equals_the_cpu([atoms], species, [[np.nextafter(4.0, 5.0)]], 0.0)
    assert_equals_the_cpu([atoms], species, [[3.0]], 1.0)


def test_rows_belong_to_the_centre() -> None:
    """Cutoffs need not be symmetric; pairs without a cutoff are never listed."""
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True) * (2, 2, 2)
    species = np.array([0, 1] * (len(atoms) // 2), dtype=np.int32)
    found = assert_equals_the_cpu([atoms], species, [[4.2, 3.0], [0.0, 6.1]], 0.2)
    center = np.repeat(species, np.diff(found.first))
    assert np.any((center == 0) & (species[found.neighbor] == 1))
    assert not np.any((center == 1) & (species[found.neighbor] == 0))


def damaged(change: str) -> tuple[list[Atoms], np.ndarray]:
    structures = [bulk("Cu", cubic=True), bulk("Fe", cubic=True)]
    species = np.zeros(6, dtype=np.int32)
    atoms = structures[1]
    if change == "nan":
        atoms.positions[1, 2] = np.nan
    elif change == "infinity":
        atoms.positions[0, 0] = -np.inf
    elif change == "volume":
        atoms.cell[2] = atoms.cell[0] + atoms.cell[1]
    elif change == "length":
        atoms.cell[1] = 0.0
    elif change == "cell":
        atoms.cell[0, 1] = np.nan
    elif change == "images":
        atoms.set_cell([0.004, 3.0, 3.0])
    elif change == "species":
        species[5] = 1
    return structures, species


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("nan", "`positions` of atom 1 of structure 1 are not finite"),
        ("infinity", "`positions` of atom 0 of structure 1 are not finite"),
        ("volume", "`cell` of structure 1 has zero volume"),
        ("length", "`cell` of structure 1 has zero length"),
        ("cell", "`cell` of structure 1 has a value that is not finite"),
        ("images", "images would be needed"),
        ("species", "`species` of atom 1 of structure 1 is 1"),
    ],
)
def test_errors_are_those_of_the_cpu(change: str, message: str) -> None:
    structures, species = damaged(change)
    sentences = []
    for device in ("cpu", DEVICE):
        with pytest.raises(_core.Error, match=message) as caught:
            build(structures, species, [[3.0]], device=device)
        sentences.append(str(caught.value))
    assert sentences[0] == sentences[1]


def test_bad_arguments_are_named() -> None:
    with pytest.raises(_core.Error, match="`skin` must be finite and >= 0"):
        build([bulk("Cu")], [0], [[3.0]], skin=-0.1)
    with pytest.raises(_core.Error, match="`device` must be"):
        build([bulk("Cu")], [0], [[3.0]], device="abacus")
