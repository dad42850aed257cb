"""Small data sets with known contents for the tests of reports on data."""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator


def pair(distance: float, symbols: str = "CuAu", energy: float = 0.0, kind: str = "pair", edge: float = 10.0) -> Atoms:
    """Two atoms in a cubic cell, with labels."""
    atoms = Atoms(symbols, positions=[[0, 0, 0], [distance, 0, 0]], cell=[edge] * 3, pbc=True)
    atoms.info["config_type"] = kind
    forces = np.array([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]]) * energy
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces, stress=np.full(6, 0.01 * energy))
    return atoms


def write(folder: Path, name: str, structures: list[Atoms]) -> Path:
    """Write structures as extended XYZ."""
    path = folder / f"{name}.extxyz"
    ase.io.write(path, structures)
    return path
