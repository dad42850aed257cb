"""The comparison with DFT of examples/smax/dft: known errors come out as they were put in."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.units import GPa

from tolerances import assert_close

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/smax/dft/compare_dft.py"
ROUNDING = 1e-9


@pytest.fixture
def compare(monkeypatch: pytest.MonkeyPatch) -> Any:
    specification = importlib.util.spec_from_file_location("compare_dft", EXAMPLE)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    monkeypatch.setitem(__import__("sys").modules, "compare_dft", module)  # its dataclasses look themselves up
    specification.loader.exec_module(module)
    return module


def labelled(count: int) -> list[Atoms]:
    random = np.random.default_rng(5)
    images = []
    for _ in range(count):
        symbols = ["O", "Si", "Fe", *random.choice(["O", "Si", "Fe"], size=5)]
        atoms = Atoms(symbols, random.random((8, 3)) * 5.0, cell=5.0 * np.eye(3), pbc=True)
        values = {"energy": random.normal(), "forces": random.normal(size=(8, 3)), "stress": random.normal(size=6)}
        atoms.calc = SinglePointCalculator(atoms, **values)
        images.append(atoms)
    return images


def test_a_shift_per_element_is_no_error(compare: Any) -> None:
    images = labelled(12)
    shift = {"O": -3.0, "Si": 7.5, "Fe": 0.25}
    results = [
        (a.get_potential_energy() + sum(shift[s] for s in a.get_chemical_symbols()), a.get_forces() + 0.1,
         a.get_stress() - 2.0 * GPa)
        for a in images
    ]  # fmt: skip
    errors = compare.errors(images, results)
    assert_close(errors.energy, (0.0, 0.0), ROUNDING)
    assert_close(errors.forces, (100.0, 100.0), ROUNDING)
    assert_close(errors.stress, (2.0, 2.0), ROUNDING)
    assert_close(errors.correlation, 1.0, ROUNDING)


def test_what_no_shift_explains_is_an_error(compare: Any) -> None:
    images = labelled(12)
    noise = np.random.default_rng(6).normal(size=12)
    pairs = zip(images, noise, strict=True)
    results = [(a.get_potential_energy() + n, a.get_forces(), a.get_stress()) for a, n in pairs]
    found = compare.errors(images, results)
    assert 0.2 * 1e3 * noise.std() / 8 < found.energy[1] <= 1e3 * np.sqrt((noise**2).mean()) / 8
    assert_close(found.forces, (0.0, 0.0), 0.0)
