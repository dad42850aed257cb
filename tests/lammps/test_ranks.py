"""Several MPI ranks do the same as one; so do the ways in which two-layer models get the messages of ghosts."""

from __future__ import annotations

from pathlib import Path

import pytest
from ase import Atoms

from lammps_tools import OUTPUT, Job, lmp, potential, run, setup, single_point, write_data
from tolerances import FORCE, MIXED_ENERGY_PER_ATOM, MIXED_FORCE_RELATIVE, RANKS, TRAJECTORY, assert_close

# Hot enough that atoms cross sub-domains and lists are built again.
DYNAMICS = """
velocity all create 3000 7 loop all
fix nve all nve
timestep 0.001
neighbor 0.5 bin
neigh_modify every 1 delay 0 check yes
run 25
"""


def dynamics(case: tuple[Path, Atoms], folder: Path, words: str = "", before: str = "", grid: str = "* * *") -> Job:
    model, atoms = case
    elements = sorted(set(atoms.symbols))
    start = Job([f"processors {grid}", *setup(atoms, folder, "cell", elements).commands])
    return start + before + potential(model, elements, words) + OUTPUT + DYNAMICS


def assert_same(actual: dict, expected: dict, tolerance: float, what: str) -> None:
    for key in ("energy", "energies", "forces", "virial", "virials", "centroid_virials", "positions"):
        assert_close(actual[key], expected[key], tolerance, what=f"{what}, {key}")


@pytest.mark.parametrize(
    ("grid", "before"), [("* * *", ""), ("1 2 1", ""), ("* * *", "comm_style tiled\nbalance 1.0 rcb\n")]
)
def test_two_ranks(case: tuple[Path, Atoms], grid: str, before: str, tmp_path: Path) -> None:
    [one] = run([dynamics(case, tmp_path)], tmp_path)
    [two] = run([dynamics(case, tmp_path, before=before, grid=grid)], tmp_path, ranks=2)
    assert_same(two, one, TRAJECTORY, f"processors {grid} {before}")


@pytest.mark.parametrize("ranks", [1, 2])
def test_single_point(case: tuple[Path, Atoms], ranks: int, tmp_path: Path) -> None:
    model, atoms = case
    [one] = run([single_point(atoms, tmp_path, "cell", model)], tmp_path)
    words = ["radial exact", "radial exact chunksize 3", "radial exact listcut uniform", "radial exact ghost2rc"]
    others = run([single_point(atoms, tmp_path, "cell", model, word) for word in words], tmp_path, ranks)
    for other, word in zip(others, words, strict=True):
        assert_same(other, one, RANKS, f"{word} on {ranks} ranks")


@pytest.mark.parametrize("neighbor", ["neighbor 1.0 multi\n", "neighbor 1.0 nsq\n"])
def test_neighbor_styles(two_layers: tuple[Path, Atoms], neighbor: str, tmp_path: Path) -> None:
    model, atoms = two_layers
    [one] = run([single_point(atoms, tmp_path, "cell", model)], tmp_path)
    [two] = run([single_point(atoms, tmp_path, "cell", model, before=neighbor)], tmp_path, ranks=2)
    assert_same(two, one, RANKS, neighbor)


@pytest.mark.parametrize("precision", ["mixed", "fp32"])
@pytest.mark.parametrize("ranks", [1, 2])
def test_single_precision(case: tuple[Path, Atoms], precision: str, ranks: int, tmp_path: Path) -> None:
    """Messages then travel as pairs of floats."""
    model, atoms = case
    [double] = run([single_point(atoms, tmp_path, "cell", model)], tmp_path)
    [single] = run([single_point(atoms, tmp_path, "cell", model, f"precision {precision}")], tmp_path, ranks)
    n = len(atoms)
    assert_close(single["energy"] / n, double["energy"] / n, MIXED_ENERGY_PER_ATOM)
    assert_close(single["forces"], double["forces"], MIXED_FORCE_RELATIVE * abs(double["forces"]).max())
    assert abs(single["forces"] - double["forces"]).max() > FORCE  # it is not double precision under another name


def test_partitions(two_layers: tuple[Path, Atoms], tmp_path: Path) -> None:
    """Two worlds of one rank: nothing may be sent through MPI_COMM_WORLD."""
    model, atoms = two_layers
    [one] = run([single_point(atoms, tmp_path, "cell", model)], tmp_path)
    write_data(atoms, ["Fe", "O"], tmp_path / "cell.data")
    script = f"""
    units metal
    read_data cell.data
    mass * 50
    {potential(model, ["Fe", "O"])}
    run 0
    variable e equal pe
    print "ENERGY $(v_e:%.15g)" append energies
    """
    status, output = lmp(script, tmp_path, "-partition", "2x1", ranks=2)
    assert status == 0, output
    energies = [float(line.split()[1]) for line in (tmp_path / "energies").read_text().splitlines()]
    assert_close(energies, [float(one["energy"])] * 2, RANKS)
