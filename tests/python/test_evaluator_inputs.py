"""Odd and wrong input of the evaluator: every refusal is one sentence that names the argument and the remedy."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from ase import Atoms

import systems
import tolerances as tol
from evaluator_tools import CoreModel, small_cell, tiny
from grace_md import GraceCalculator, GraceModel
from grace_md._core import Evaluator, ModelSpec, build_neighbors
from reference_data import LAVA
from tolerances import assert_close

NAMES = ("tiny_1l_pairs", "tiny_2l")


def calculator(**options: Any) -> GraceCalculator:
    return GraceCalculator(LAVA, threads=1, **options)


# ----------------------------------------------------------------------------------------- odd, but allowed


@pytest.mark.parametrize("name", NAMES)
def test_empty_structure(name: str) -> None:
    result = CoreModel(tiny(name)).compute(Atoms(), atom_virial=True)
    assert result["energy"] == 0.0
    assert result["forces"].shape == (0, 3)
    assert result["atom_virial"].shape == (0, 3, 3)
    assert not np.any(result["virial"])


@pytest.mark.parametrize("name", NAMES)
def test_atoms_of_no_element_are_not_seen(name: str) -> None:
    """species -1 (an atom of another pair style): no energy, no force, and no bond of the others to it."""
    model, atoms = CoreModel(tiny(name)), small_cell(name, n_atoms=14)
    foreign = np.array([2, 9, 13])
    species = model.species(atoms)
    pairs = model.neighbors(atoms)
    species[foreign] = -1
    raw = model.evaluator.compute(pairs, atoms.positions, atoms.cell.array[None], species, atom_virial=True)
    others = np.setdiff1d(np.arange(14), foreign)
    expected = model.compute(atoms[others], atom_virial=True)
    size = max(1.0, np.abs(expected["forces"]).max())
    for key in ("atomic_energies", "forces", "atom_virial", "centroid_virial"):
        assert_close(raw[key][others], expected[key], 10 * tol.SUMMATION * size, what=key)
        assert not np.any(raw[key][foreign]), key


@pytest.mark.parametrize("name", NAMES)
def test_only_atoms_of_no_element(name: str) -> None:
    model, atoms = CoreModel(tiny(name)), small_cell(name)
    species = np.full(len(atoms), -1, dtype=np.int32)
    raw = model.evaluator.compute(model.neighbors(atoms), atoms.positions, atoms.cell.array[None], species)
    assert not np.any(raw["forces"])
    assert raw["closest_pair"] == (-1, -1)


def test_atoms_nearly_on_top_of_each_other_warn_once(caplog: pytest.LogCaptureFixture) -> None:
    atoms = systems.lava(40)
    atoms.positions[17] = atoms.positions[4] + [0.0, 0.12, 0.16]
    atoms.calc = calculator()
    with caplog.at_level(logging.WARNING, logger="grace_md"):
        assert np.isfinite(atoms.get_potential_energy())
        assert np.all(np.isfinite(atoms.get_forces()))
        atoms.positions[0] += 0.01
        assert np.isfinite(atoms.get_potential_energy())
    messages = [record.getMessage() for record in caplog.records if "apart" in record.getMessage()]
    assert len(messages) == 1
    assert "0.200 A apart" in messages[0]
    assert ("Atoms 4 and 17" in messages[0]) or ("Atoms 17 and 4" in messages[0])


def test_coinciding_atoms_stay_finite() -> None:
    for name in NAMES:
        atoms = small_cell(name)
        atoms.positions[1] = atoms.positions[0]
        for radial in ("exact", "table"):
            for precision in ("fp64", "mixed"):
                result = CoreModel(tiny(name), radial=radial, precision=precision).compute(atoms)
                assert np.all(np.isfinite(result["forces"]))
                assert np.all(np.isfinite(result["atomic_energies"]))
                assert result["closest_distance"] == 0.0
                assert set(result["closest_pair"]) == {0, 1}


# ------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"precision": "fp16"}, r"`precision` must be auto, fp64, mixed or fp32, got .fp16."),
        ({"radial": "spline"}, r"`radial` must be table or exact, got .spline."),
        ({"device": "tpu"}, r"tpu"),
        ({"device": "cuda:99"}, r"device cuda"),
        ({"threads": -2}, r"n_threads.*-2"),
        ({"skin": -0.1}, r"`skin`.*-0\.1"),
        ({"skin": float("nan")}, r"`skin`.*nan"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_options_are_checked_when_the_calculator_is_made(options: dict[str, Any], sentence: str) -> None:
    arguments = {"threads": 1, **options}
    with pytest.raises(ValueError, match=sentence):
        GraceCalculator(GraceModel(tiny("tiny_1l")), **arguments)


def test_unknown_element_is_named_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"Xe is not in .*lava9_1l.model\.npz; it knows Al Ca Fe K Mg Na O Si Ti"):
        calculator().evaluate([Atoms("SiXe", positions=[[0, 0, 0], [0, 0, 2]])])
    with pytest.raises(ValueError, match=r"Xe"):
        ModelSpec(tiny("tiny_1l"), "a model", ["Mo", "Xe"])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_positions_that_are_not_finite(value: float) -> None:
    atoms = systems.triclinic()
    calc = calculator()
    atoms.calc = calc
    before = atoms.get_forces().copy()
    good = atoms.positions.copy()
    atoms.positions[5, 1] = value
    with pytest.raises(ValueError, match=r"position.*atom 5.*not finite|not finite.*atom 5"):
        atoms.get_potential_energy()
    with pytest.raises(ValueError, match="finite"):
        calc.evaluate([atoms])
    atoms.positions[:] = good  # a refusal leaves nothing behind
    assert np.array_equal(atoms.get_forces(), before)


def test_the_evaluator_itself_refuses_nan() -> None:
    """Through a list built before the positions went wrong, as it happens in a run that explodes."""
    model, atoms = CoreModel(tiny("tiny_1l")), small_cell("tiny_1l")
    pairs, positions = model.neighbors(atoms), atoms.positions.copy()
    positions[3, 2] = np.nan
    with pytest.raises(ValueError, match="position of atom 3 is not finite"):
        model.evaluator.compute(pairs, positions, atoms.cell.array[None], model.species(atoms))


def test_cells_without_volume() -> None:
    flat = Atoms("SiO", positions=[[0, 0, 0], [1, 1, 0.5]], cell=[[5, 0, 0], [0, 5, 0], [5, 5, 0]], pbc=True)
    with pytest.raises(ValueError, match="volume"):
        calculator().evaluate([flat])
    flat.calc = calculator()
    with pytest.raises(ValueError, match="volume"):
        flat.get_forces()


def test_arrays_of_wrong_shape() -> None:
    model, atoms = CoreModel(tiny("tiny_1l")), small_cell("tiny_1l")
    pairs, species, cells = model.neighbors(atoms), model.species(atoms), atoms.cell.array[None]
    run = model.evaluator.compute
    for positions, cell, numbers in (
        (atoms.positions[:-1], cells, species),
        (atoms.positions.T, cells, species),
        (atoms.positions, cells[0], species),
        (atoms.positions, cells, species[:-1]),
        (atoms.positions, cells, species[:, None]),
    ):
        with pytest.raises(ValueError, match=r"must have shapes \[9, 3\], \[n_structures, 3, 3\] and \[9\]"):
            run(pairs, positions, cell, numbers)
    with pytest.raises(ValueError, match="0 cells"):
        run(pairs, atoms.positions, np.zeros((0, 3, 3)), species)
    with pytest.raises(ValueError, match=r"species of atom 2 is 7"):
        run(pairs, atoms.positions, cells, np.array([0, 0, 7, 0, 0, 0, 0, 0, 0]))
    with pytest.raises(ValueError, match="positions"):
        build_neighbors(atoms.positions[:, :2], species, cells, atoms.pbc[None], [0, 9], model.spec.pair_cutoffs)


def test_negative_chunk() -> None:
    with pytest.raises(ValueError, match=r"`chunksize` must be >= 0 .* got -3"):
        Evaluator(ModelSpec(tiny("tiny_1l")), chunk=-3)
