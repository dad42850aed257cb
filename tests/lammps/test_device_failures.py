"""LAMMPS when the device of a rank is full or breaks: every rank stops, and the reason is printed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

import systems
from lammps_tools import MODELS, lmp, potential, write_data

RANKS_TRIED = pytest.mark.parametrize("ranks", [1, 2])


def lopsided() -> Atoms:
    """A long box with most of its atoms in one half: two ranks have work of very different sizes."""
    dense = systems.pack(["O", "Fe"] * 40, np.diag([9.0, 9.0, 12.0]), contact=0.5, seed=3)
    lonely = Atoms(["O", "Fe"], positions=[[3.0, 3.0, 30.0], [3.0, 5.0, 30.0]])
    atoms = dense + lonely
    atoms.cell = np.diag([9.0, 9.0, 40.0])
    atoms.pbc = True
    return atoms


def script(folder: Path, words: str, model: str) -> str:
    write_data(lopsided(), ["Fe", "O"], folder / "cell.data")
    style = potential(MODELS / f"{model}.npz", ["Fe", "O"], words)
    box = "processors 1 1 *\nunits metal\nbox tilt large\nread_data cell.data\nmass * 50\n"
    return f"{box}{style}fix nve all nve\nrun 3\nprint FINISHED"


@RANKS_TRIED
@pytest.mark.parametrize("model", ["tiny_1l_pairs", "tiny_2l"])
def test_a_full_device_stops_all_ranks(model: str, ranks: int, tmp_path: Path) -> None:
    text = script(tmp_path, "device emulated precision fp64", model)
    status, output = lmp(text, tmp_path, ranks=ranks)
    assert status == 0, output
    assert "FINISHED" in output
    limits = [2_000_000 + 150_000 * k for k in range(30)]
    refused = 0
    for limit in limits:
        status, output = lmp(text, tmp_path, ranks=ranks, GRACE_MD_EMULATED_MEMORY=str(limit))
        if status == 0:
            assert refused > 0, "even the smallest memory was enough"
            break
        assert "FINISHED" not in output
        refused += "grace: out of GPU memory: " in output
        if "set chunksize to" in output:
            chunk = output.split("set chunksize to ")[1].split()[0]
            text_advised = text.replace("precision fp64", f"precision fp64 chunksize {chunk}")
            status, output = lmp(text_advised, tmp_path, ranks=ranks, GRACE_MD_EMULATED_MEMORY=str(limit))
            assert status == 0, output
            break
    assert refused > 0


@RANKS_TRIED
def test_weights_that_do_not_fit(ranks: int, tmp_path: Path) -> None:
    text = script(tmp_path, "device emulated", "tiny_2l")
    status, output = lmp(text, tmp_path, ranks=ranks, GRACE_MD_EMULATED_MEMORY="1000")
    assert status != 0
    assert output.count("ERROR: grace: out of GPU memory: the weights of the model need ") == 1  # by all ranks together


@RANKS_TRIED
def test_a_lost_device_stops_all_ranks(ranks: int, tmp_path: Path) -> None:
    text = script(tmp_path, "device emulated", "tiny_2l")
    status, output = lmp(text, tmp_path, ranks=ranks, GRACE_MD_EMULATED_FAILURE="scatter_forces")
    assert status != 0
    assert "FINISHED" not in output
    if ranks == 1:
        assert "grace: GPU failure on emulated (order 0) in or before kernel scatter_forces: " in output
        assert "continue the run from its last restart file" in output
