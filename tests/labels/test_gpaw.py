"""GPAW itself, where some Python has it: a label, and a self-consistent field that does not converge."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk

from grace_md.labels import Farm, create_farm
from grace_md.labels.recipes import load_config

PACKAGE = Path(__file__).resolve().parents[2] / "python"


def interpreter() -> str:
    """A Python with GPAW: this one, or that of the system."""
    for python in filter(os.path.exists, (sys.executable, "/usr/bin/python3")):
        found = subprocess.run([python, "-c", "import gpaw"], capture_output=True, check=False)
        if found.returncode == 0:
            return python
    pytest.skip("no Python with gpaw")


def label(folder: Path, **settings: object) -> Farm:
    python = interpreter()
    atoms = bulk("Si")
    atoms.positions[1, 0] += 0.05
    recipe = {"recipe": "gpaw", "settings": {"cutoff": 200, "kpts": [1, 1, 1], **settings}}
    create_farm(folder, [atoms], load_config(recipe))
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE), "OMP_NUM_THREADS": "1"}
    command = [python, "-m", "grace_md.cli", "label", "run", str(folder), "--max-failures", "1"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Farm(folder)


def test_gpaw_labels_silicon(tmp_path: Path) -> None:
    farm = label(tmp_path / "farm")
    found = farm.outcomes(1, 0)[0].label
    assert found is not None
    assert -12.0 < found.energy < -6.0
    assert found.free_energy is not None
    assert np.abs(found.forces.sum(axis=0)).max() < 0.02  # the grid breaks translations a little
    assert found.forces[1, 0] < -0.1  # back to where it was
    assert found.stress is not None
    assert "gpaw" in farm.outcomes(1, 0)[0].provenance["versions"]


def test_gpaw_that_does_not_converge_is_a_failure(tmp_path: Path) -> None:
    farm = label(tmp_path / "farm", maxiter=3)
    assert farm.store.counts().failed == 1
    assert "did not converge in 3 steps" in farm.store.reasons()[0][3]
