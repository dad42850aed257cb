"""Labels: keys that are found or refused, units, signs, orders, weights, missing values."""

from __future__ import annotations

from typing import Any

import ase.units
import numpy as np
import pytest
from ase import Atoms

from grace_md.training.data.labels import VASP_TO_ASE, Frame, LabelError, LabelKeys, extract, resolve_keys

STRESS = np.array([0.01, 0.02, 0.03, 0.004, 0.005, 0.006])
FULL = np.array([[0.01, 0.006, 0.005], [0.006, 0.02, 0.004], [0.005, 0.004, 0.03]])
FORCES = np.array([[0.1, 0.2, 0.3], [-0.1, -0.2, -0.3]])


def frame(pbc: bool = True, **values: Any) -> Frame:
    atoms = Atoms("CuAu", positions=[[0, 0, 0], [2, 2, 2]], cell=[4, 5, 6], pbc=pbc)
    return Frame(atoms.numbers.astype(np.int64), atoms.positions, atoms.cell[:], atoms.pbc, values, 3, "a.xyz")


def read(keys: LabelKeys | None = None, **values: Any) -> Any:
    one = frame(**values)
    asked = keys or LabelKeys()
    return extract(one, resolve_keys(asked, [one], "a.xyz"))


def test_keys_are_found_by_name() -> None:
    found = read(REF_energy=-3.0, REF_forces=FORCES, REF_stress=STRESS, density=2.0)
    assert found.energy == -3.0
    np.testing.assert_array_equal(found.forces, FORCES)
    np.testing.assert_array_equal(found.stress, STRESS)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"energy": -3.0, "free_energy": -3.1}, ["`energy` and `free_energy`", "`energy_key`"]),
        ({"energy": -3.0, "REF_energy": -4.0}, ["`energy` and `REF_energy`"]),
        ({"energy": -3.0, "energy_corrected": 1.0}, ["`energy_corrected`"]),
        ({"forces": FORCES, "dft_forces": 2 * FORCES}, ["`forces_key`"]),
        ({"energy": 1.0, "stress": STRESS, "virial": -120 * STRESS}, ["both `stress` and `virial`"]),
        ({"density": 1.0}, ["neither energies nor forces", "density"]),
    ],
)
def test_two_candidates_or_none_are_refused(values: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(LabelError) as error:
        read(**values)
    assert all(word in str(error.value) for word in words), error.value
    assert "a.xyz" in str(error.value)


def test_a_choice_ends_the_doubt() -> None:
    assert read(LabelKeys(energy="free_energy"), energy=-3.0, free_energy=-3.1).energy == -3.1
    assert np.isnan(read(LabelKeys(energy="none"), energy=-3.0, forces=FORCES).energy)
    chosen = read(LabelKeys(virial="virial"), energy=1.0, stress=STRESS, virial=-240 * STRESS)
    np.testing.assert_allclose(chosen.stress, 2 * STRESS)


def test_equal_candidates_are_one() -> None:
    assert read(energy=-3.0, free_energy=-3.0).energy == -3.0


def test_a_key_that_is_not_there_is_named() -> None:
    with pytest.raises(LabelError, match=r"`energy_key` = 'E0' is not in a.xyz; its keys are: energy"):
        read(LabelKeys(energy="E0"), energy=1.0)


def test_a_label_that_the_sample_lacked_is_refused() -> None:
    resolved = resolve_keys(LabelKeys(), [frame(energy=1.0)], "a.xyz")
    with pytest.raises(LabelError, match=r"structure 3 of a.xyz has `forces`, which a sample"):
        extract(frame(energy=1.0, forces=FORCES), resolved, LabelKeys())
    extract(frame(energy=1.0), resolved, LabelKeys())


def test_missing_labels_are_nan() -> None:
    resolved = resolve_keys(LabelKeys(), [frame(energy=1.0, forces=FORCES, stress=STRESS)], "a.xyz")
    found = extract(frame(), resolved)
    assert np.isnan(found.energy)
    assert np.isnan(found.forces).all()
    assert np.isnan(found.stress).all()
    partly = np.array([[0.1, np.nan, 0.3], [-0.1, -0.2, -0.3]])
    found = extract(frame(forces=partly), resolved)
    assert np.isnan(found.forces[0]).all()
    assert np.isfinite(found.forces[1]).all()
    assert np.isnan(extract(frame(pbc=False, stress=STRESS), resolved).stress).all()


@pytest.mark.parametrize("value", [STRESS, FULL, FULL.ravel(), FULL.tolist()])
def test_shapes_of_stresses(value: Any) -> None:
    np.testing.assert_allclose(read(stress=value).stress, STRESS)


@pytest.mark.parametrize(
    ("unit", "number"),
    [
        ("eV/A^3", 1.0),
        ("GPa", 1 / ase.units.GPa),
        ("kbar", 10 / ase.units.GPa),
        ("-kbar", -10 / ase.units.GPa),
        ("-GPa", -1 / ase.units.GPa),
    ],
)
def test_units_of_stresses(unit: str, number: float) -> None:
    np.testing.assert_allclose(read(LabelKeys(stress_unit=unit), stress=STRESS * number).stress, STRESS, rtol=1e-12)


def test_virial_order_of_vasp_and_other_units() -> None:
    volume = 120.0
    np.testing.assert_allclose(read(virial=-volume * STRESS).stress, STRESS)
    vasp = np.empty(6)
    vasp[[0, 1, 2, 3, 4, 5]] = [0.01, 0.02, 0.03, 0.006, 0.004, 0.005]  # xx yy zz xy yz zx
    np.testing.assert_allclose(vasp[VASP_TO_ASE], STRESS)
    np.testing.assert_allclose(read(LabelKeys(stress_order="vasp"), stress=vasp).stress, STRESS)
    keys = LabelKeys(energy_unit="Ha", forces_unit="Ha/Bohr")
    found = read(keys, energy=1.0, forces=FORCES)
    assert found.energy == pytest.approx(27.211386, abs=1e-5)
    np.testing.assert_allclose(found.forces, 51.42208 * FORCES, rtol=1e-5)
    assert read(LabelKeys(energy_unit="eV/atom"), energy=-2.5).energy == -5.0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"stress_unit": "Pa"}, "`stress_unit` = 'Pa' is unknown"),
        ({"energy_unit": "-eV"}, "`energy_unit` = '-eV' is unknown"),
        ({"forces_unit": "N"}, "`forces_unit` = 'N' is unknown"),
        ({"stress_order": "lammps"}, "`stress_order`"),
    ],
)
def test_unknown_units_are_named(options: dict[str, str], words: str) -> None:
    with pytest.raises(LabelError, match=words):
        LabelKeys(**options)


def test_weights() -> None:
    found = read(energy=1.0, weight=2.0, forces_weight=3.0, atom_weight=[1.0, 0.5])
    np.testing.assert_array_equal(found.weights, [2.0, 6.0, 2.0])
    np.testing.assert_array_equal(found.atom_weights, [1.0, 0.5])
    with pytest.raises(LabelError, match=r"`weight` of structure 3 of a.xyz is -1"):
        read(energy=1.0, weight=-1.0)
    with pytest.raises(LabelError, match="`atom_weight`"):
        read(energy=1.0, atom_weight=[1.0, np.nan])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"forces": FORCES[:1]}, r"shape \[1, 3\] instead of \[2, 3\]"),
        ({"energy": "low"}, "not an array of numbers"),
        ({"energy": np.inf}, "is infinite"),
        ({"stress": np.arange(9.0).reshape(3, 3)}, "not symmetric"),
        ({"stress": [1.0, 2.0]}, "6, 9 or 3x3"),
    ],
)
def test_labels_that_cannot_be_right(values: dict[str, Any], words: str) -> None:
    with pytest.raises(LabelError, match=words):
        read(**values)


def test_geometries_that_cannot_be_right() -> None:
    keys = LabelKeys()
    flat = frame(energy=1.0)
    flat.cell = np.zeros((3, 3))
    with pytest.raises(ValueError, match="no volume"):
        extract(flat, keys)
    lost = frame(energy=1.0)
    lost.positions = np.full((2, 3), np.nan)
    with pytest.raises(ValueError, match="not finite"):
        extract(lost, keys)
    empty = frame(energy=1.0)
    empty.numbers = np.zeros(0, np.int64)
    with pytest.raises(ValueError, match="no atoms"):
        extract(empty, keys)
