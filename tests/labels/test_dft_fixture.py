"""Forty lava cells by PBE (GPAW): the fixture is what it says, and the starter model agrees with it as far as it did.

Made by examples/smax/dft; see its README.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.io import read

from tolerances import assert_close

ROOT = Path(__file__).resolve().parents[2]
FIXTURE = ROOT / "tests/data/dft/lava_pbe_40.extxyz"
CELLS = 40
LAVA = {"O", "Si", "Al", "Fe", "Ca", "Na", "Mg", "K", "Ti"}
NET_FORCE = 0.05  # eV/A per cell: the grid of the exchange-correlation energy breaks translations
SAME_CELL = 1e-5  # A
SIMILAR_POSITIONS = 0.05  # A; the shipped model moves the atoms, and it has changed since: 0.01 was measured
# Of the starter model against PBE, with some room: see examples/smax/dft/README.md for what was measured.
WORST_ENERGY, WORST_FORCES, WORST_STRESS = 150.0, 650.0, 3.5  # RMSE in meV/atom, MAE in meV/A, MAE in GPa
LEAST_CORRELATION = 0.9


@pytest.fixture(scope="module")
def cells() -> list[Atoms]:
    return list(read(FIXTURE, ":"))


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import a script of examples/smax/dft by its name."""

    def load(name: str) -> Any:
        specification = importlib.util.spec_from_file_location(name, ROOT / f"examples/smax/dft/{name}.py")
        assert specification is not None
        assert specification.loader is not None
        module = importlib.util.module_from_spec(specification)
        monkeypatch.setitem(__import__("sys").modules, name, module)  # its dataclasses look themselves up
        specification.loader.exec_module(module)
        return module

    return load


def test_the_fixture_is_complete(cells: list[Atoms]) -> None:
    assert len(cells) == CELLS
    assert {symbol for atoms in cells for symbol in atoms.get_chemical_symbols()} == LAVA
    assert len({atoms.info["family"] for atoms in cells}) == CELLS
    for atoms in cells:
        assert atoms.get_chemical_symbols().count("O") >= 2
        assert atoms.info["label_recipe"] == "gpaw"
        assert atoms.info["label_cutoff"] >= 600.0
        assert list(atoms.info["label_kpoints"]) == [2, 2, 2]
        assert "gpaw 22.8.0" in atoms.info["label_versions"]


def test_labels_are_physical(cells: list[Atoms]) -> None:
    for atoms in cells:
        forces, stress = atoms.get_forces(), atoms.get_stress()
        assert np.isfinite(forces).all()
        assert np.isfinite(stress).all()
        assert np.abs(forces.sum(axis=0)).max() < NET_FORCE
        # Smearing lowers the free energy; the extrapolated energy lies above it.
        assert 0.0 <= atoms.get_potential_energy() - atoms.info["force_consistent_energy"] < 0.05 * len(atoms)
    squares = np.concatenate([atoms.get_forces().ravel() ** 2 for atoms in cells])
    assert 0.5 < np.sqrt(squares.mean()) < 5.0


def test_the_script_makes_the_same_cells(cells: list[Atoms], example: Any) -> None:
    made = example("make_lava_cells").cell(0)
    assert made.get_chemical_symbols() == cells[0].get_chemical_symbols()
    assert_close(made.cell.array, cells[0].cell.array, SAME_CELL)
    assert_close(made.positions, cells[0].positions, SIMILAR_POSITIONS)


def test_the_starter_model_against_dft(cells: list[Atoms], example: Any) -> None:
    compare = example("compare_dft")
    errors = compare.errors(cells, compare.by_model("lava9_1l")(cells))
    assert errors.energy[1] < WORST_ENERGY
    assert errors.forces[0] < WORST_FORCES
    assert errors.stress[0] < WORST_STRESS
    assert errors.correlation > LEAST_CORRELATION
