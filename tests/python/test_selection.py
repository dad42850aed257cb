"""Energies and forces of chosen atoms: `selection` of the evaluator and `GraceCalculator.compute_atoms`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ase import Atoms

import systems
import tolerances as tol
from evaluator_tools import SYMBOLS, CoreModel, small_cell, tiny
from grace_md import GraceCalculator, GraceModel
from grace_md.reference import find_bonds, pair_cutoffs, reference_evaluate, reference_gradients
from grace_md.weights import element_names
from reference_data import load_reference
from tolerances import assert_close

NAMES = ("tiny_1l_pairs", "tiny_2l")


def one_sided(name: str) -> dict[str, Any]:
    """The model with a cutoff matrix that is not symmetric: A sees B further than B sees A."""
    arrays = dict(tiny(name))
    cutoffs = arrays["bond_cutoff_map"].copy()
    cutoffs[np.tril_indices(len(cutoffs), -1)] -= 0.9
    return {**arrays, "bond_cutoff_map": cutoffs}


def reference_forces(arrays: dict[str, Any], atoms: Atoms, selection: np.ndarray) -> np.ndarray:
    """-d(sum of the selected energies)/dx from the oracle."""
    names = element_names(arrays)
    species = np.array([names.index(symbol) for symbol in atoms.symbols])
    i, j, vectors = find_bonds(atoms, species, pair_cutoffs(arrays))
    weights = np.zeros(len(atoms))
    weights[selection] = 1.0
    gradient = reference_gradients(arrays, species, (i, j, vectors), weights)[2]["r"]
    forces = np.zeros((len(atoms), 3))
    np.add.at(forces, i, gradient)
    np.add.at(forces, j, -gradient)
    return forces


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_selected_energies_and_the_forces_of_their_sum(name: str, n_threads: int) -> None:
    atoms = systems.bcc(SYMBOLS[name], repeat=3, lattice=3.3, rattle=0.15)[:30]
    model = CoreModel(tiny(name), radial="exact", n_threads=n_threads)
    full = model.compute(atoms)
    size = max(1.0, np.abs(full["forces"]).max())
    for selection in ([0], [3, 17, 4], list(range(30))):
        wanted = np.array(selection, dtype=np.int32)
        result = model.compute(atoms, selection=wanted)
        assert_close(result["atomic_energies"][wanted], full["atomic_energies"][wanted], tol.SUMMATION * size)
        others = np.setdiff1d(np.arange(30), wanted)
        assert not np.any(result["atomic_energies"][others])
        assert_close(result["forces"], reference_forces(tiny(name), atoms, wanted), tol.INVARIANCE_ENERGY * size)
        only_energies = model.compute(atoms, selection=wanted, forces=False)
        assert "forces" not in only_energies
        assert np.array_equal(only_energies["atomic_energies"], result["atomic_energies"])
    nothing = model.compute(atoms, selection=np.array([], dtype=np.int32))
    assert not np.any(nothing["atomic_energies"])
    assert not np.any(nothing["forces"])


def test_selection_must_be_atoms_each_once() -> None:
    model = CoreModel(tiny("tiny_1l_pairs"))
    atoms = small_cell("tiny_1l_pairs")
    for wrong in ([9], [-1]):
        with pytest.raises(ValueError, match=rf"selection: atom {wrong[0]} is outside \[0, 9\)"):
            model.compute(atoms, selection=np.array(wrong, dtype=np.int32))
    with pytest.raises(ValueError, match="listed twice"):
        model.compute(atoms, selection=np.array([2, 5, 2], dtype=np.int32))


# ------------------------------------------------------------------------------------------ compute_atoms


def calculator(arrays: dict[str, Any], **options: Any) -> GraceCalculator:
    return GraceCalculator(GraceModel(arrays, "model of a test"), threads=1, **options)


@pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "one-sided"])
@pytest.mark.parametrize("name", NAMES)
def test_compute_atoms_equals_the_full_evaluation(name: str, symmetric: bool) -> None:
    arrays = tiny(name) if symmetric else one_sided(name)
    atoms = systems.bcc(SYMBOLS[name], repeat=5, lattice=3.3, rattle=0.15)  # 16.5 A: not everybody sees an atom
    calc = calculator(arrays, radial="exact")
    atoms.calc = calc
    energies, forces = atoms.get_potential_energies(), atoms.get_forces()
    size = max(1.0, np.abs(forces).max())
    for indices in ([7], [100, 3, 200], [5, 5, 6], np.arange(len(atoms))[::-1]):
        wanted = np.asarray(indices)
        result = calc.compute_atoms(atoms, indices)
        assert_close(result["energies"], energies[wanted], 10 * tol.SUMMATION * size)
        assert_close(result["forces"], forces[wanted], 10 * tol.SUMMATION * size)
        only = calc.compute_atoms(atoms, indices, forces=False)
        assert set(only) == {"energies"}
        assert_close(only["energies"], energies[wanted], 10 * tol.SUMMATION * size)
    empty = calc.compute_atoms(atoms, [])
    assert empty["energies"].shape == (0,)
    assert empty["forces"].shape == (0, 3)


@pytest.mark.parametrize("name", NAMES)
def test_one_sided_cutoffs_follow_the_row_of_the_centre(name: str) -> None:
    arrays, atoms = one_sided(name), small_cell(name)
    expected, result = reference_evaluate(arrays, atoms), CoreModel(arrays, radial="exact").compute(atoms)
    size = np.abs(expected["forces"]).max()
    assert_close(result["atomic_energies"], expected["atomic_energies"], tol.INVARIANCE_ENERGY * size)
    assert_close(result["forces"], expected["forces"], tol.INVARIANCE_ENERGY * size)
    plain = reference_evaluate(tiny(name), atoms)
    assert abs(plain["energy"] - expected["energy"]) > 1e-3, "the cutoffs make no difference here"


def test_compute_atoms_of_the_starter_model_in_every_boundary() -> None:
    calc = calculator(load_reference("lava9_1l").arrays)
    for atoms in (systems.thin_slab(), systems.triclinic(), systems.cluster(), systems.isolated()):
        atoms.calc = calc
        forces = atoms.get_forces().copy()
        assert_close(calc.compute_atoms(atoms, [0])["forces"], forces[:1], 10 * tol.SUMMATION)


def test_compute_atoms_follows_moving_atoms() -> None:
    """The list is kept with its skin; results are those of a new list."""
    rng = np.random.default_rng(1)
    atoms = systems.bcc(SYMBOLS["tiny_2l"], repeat=3, lattice=3.3, rattle=0.1)
    calc = calculator(tiny("tiny_2l"))
    for _ in range(4):
        atoms.positions += 0.08 * rng.standard_normal(atoms.positions.shape)
        atoms.calc = calculator(tiny("tiny_2l"), skin=0.0)
        result = calc.compute_atoms(atoms, [11, 40])
        size = np.abs(atoms.get_forces()).max()
        assert_close(result["forces"], atoms.get_forces()[[11, 40]], 10 * tol.SUMMATION * size)


@pytest.mark.parametrize("wrong", [[9], [-1], [0, 12]])
def test_atoms_out_of_range_are_named(wrong: list[int]) -> None:
    atoms = small_cell("tiny_2l")
    with pytest.raises(ValueError, match=r"`indices` must lie in \[0, 9\)"):
        calculator(tiny("tiny_2l")).compute_atoms(atoms, wrong)


def test_a_boolean_mask_is_refused() -> None:
    atoms = systems.bcc(SYMBOLS["tiny_1l_pairs"], repeat=2, lattice=3.3)
    calculator = GraceCalculator(GraceModel(tiny("tiny_1l_pairs")))
    with pytest.raises(ValueError, match="flatnonzero"):
        calculator.compute_atoms(atoms, np.ones(len(atoms), dtype=bool))
