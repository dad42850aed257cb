"""Runs that change atoms or the box: conservation, restarts, deformation, thin cells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

import systems
from lammps_tools import MODELS, OUTPUT, Job, lmp, open_lammps, potential, run, run_here, setup, single_point
from reference_data import LAVA
from tolerances import DIFFERENCE_FORCE, DRIFT, ENERGY_FLUCTUATION, FORCE, RANKS, TRAJECTORY, assert_close


def total_energies(
    atoms: Atoms, temperature: float, steps: int, every: int, folder: Path, words: str = ""
) -> np.ndarray:
    """Total energy per atom, eV, along a run at constant energy, 1 fs, from a relaxed structure."""
    elements = sorted(set(atoms.symbols))
    masses = "\n".join(f"mass {k + 1} {Atoms(symbol).get_masses()[0]}" for k, symbol in enumerate(elements))
    job = (
        setup(atoms, folder, "nve", elements)
        + f"{masses}\n{potential(LAVA, elements, words)}"
        + "min_style fire\nminimize 0 0 20 40\n"
        + f"velocity all create {2 * temperature} 6\nfix 1 all nve\nthermo_modify norm yes\nrun 0"
    )
    instance, energies = open_lammps(), []
    for line in job.commands:
        instance.command(line)
    for _ in range(steps // every):
        instance.command(f"run {every} pre no post no")
        energies.append(instance.get_thermo("etotal"))
    instance.close()
    return np.array(energies)


def test_conservation(tmp_path: Path) -> None:
    """Starter model, about 2000 K."""
    energies = total_energies(systems.lava(36), 2000.0, 400, 10, tmp_path)
    assert np.all(np.abs(energies - energies.mean()) <= ENERGY_FLUCTUATION)


@pytest.mark.slow
def test_conservation_for_long(tmp_path: Path) -> None:
    """20 ps at 1 fs: slope of the total energy."""
    energies = total_energies(systems.lava(36), 2000.0, 20_000, 20, tmp_path, words="threads 1")
    slope = np.polyfit(np.linspace(0.02, 20.0, len(energies)), energies, 1)[0]
    assert abs(slope) <= DRIFT, f"{slope:.2e} eV/atom/ps"


def test_forces_are_slopes_of_the_tabulated_energy(case: tuple[Path, Atoms], tmp_path: Path) -> None:
    """Directional difference along the force, one number that sees every component."""
    model, atoms = case
    [center] = run([single_point(atoms, tmp_path, "cell", model, words="")], tmp_path)
    norm = np.linalg.norm(center["forces"])
    step = 1e-5
    energies = []
    for sign in (1.0, -1.0):
        moved = atoms.copy()
        moved.positions += sign * step * center["forces"] / norm
        energies.append(run([single_point(moved, tmp_path, "cell", model, words="")], tmp_path)[0]["energy"])
    assert_close((energies[1] - energies[0]) / (2 * step), norm, DIFFERENCE_FORCE, DIFFERENCE_FORCE)


@pytest.mark.parametrize("ranks", [1, 2])
def test_thin_cell(ranks: int, tmp_path: Path) -> None:
    """A cell thinner than the cutoff holds several images of each neighbour: three copies of it must not differ."""
    model = MODELS / "tiny_2l.npz"
    atoms = systems.pack(["O", "Fe"] * 8, np.diag([11.0, 10.0, 2.6]), contact=0.6, seed=3)
    jobs = [single_point(a, tmp_path, f"n{len(a)}", model) for a in (atoms, atoms.repeat((1, 1, 3)))]
    thin, thick = run(jobs, tmp_path, ranks)
    assert_close(3.0 * thin["energy"], thick["energy"], RANKS)
    assert_close(np.tile(thin["forces"], (3, 1)), thick["forces"], FORCE)
    assert_close(3.0 * thin["virial"], thick["virial"], FORCE)


@pytest.mark.parametrize("ranks", [1, 2])
def test_box_changes(case: tuple[Path, Atoms], ranks: int, tmp_path: Path) -> None:
    """After `change_box` and a barostat, energy and forces are those of a fresh start from the same state."""
    model, atoms = case
    elements = sorted(set(atoms.symbols))
    job = (
        setup(atoms, tmp_path, "cell", elements)
        + potential(model, elements)
        + OUTPUT
        + "run 0\nchange_box all x scale 1.1 xy delta 0.4 remap\nrun 0\nvelocity all create 500 3 loop all\n"
        + "fix npt all npt temp 500 500 0.1 aniso 0 0 0.5\ntimestep 0.0005\nrun 20\n"
        + f"write_data {tmp_path}/end.data nocoeff\nrun 0"
    )
    [end] = run([job], tmp_path, ranks)
    fresh = Job(["units metal", f"read_data {tmp_path}/end.data", *(potential(model, elements) + OUTPUT).splitlines()])
    fresh.commands = [line for line in fresh.commands if line] + ["run 0"]
    [again] = run([fresh], tmp_path)
    # A data file has about 16 digits, and its atoms are wrapped.
    assert_close(again["energy"], end["energy"], TRAJECTORY)
    assert_close(again["forces"], end["forces"], TRAJECTORY)


def test_barostat_on_two_ranks(case: tuple[Path, Atoms], tmp_path: Path) -> None:
    model, atoms = case
    elements = sorted(set(atoms.symbols))
    lines = (
        "velocity all create 500 3 loop all\nfix npt all npt temp 500 500 0.1 aniso 0 0 0.5\ntimestep 0.0005\nrun 20"
    )
    job = setup(atoms, tmp_path, "cell", elements) + potential(model, elements) + OUTPUT + lines
    [one], [two] = run([job], tmp_path), run([job], tmp_path, ranks=2)
    for key in ("energy", "positions", "forces", "virial"):
        assert_close(two[key], one[key], TRAJECTORY, TRAJECTORY, what=key)


def test_restart(case: tuple[Path, Atoms], tmp_path: Path) -> None:
    """The style is given again after read_restart; the run then goes on as if it had not been interrupted."""
    model, atoms = case
    elements = sorted(set(atoms.symbols))
    start = setup(atoms, tmp_path, "cell", elements) + potential(model, elements) + OUTPUT
    moving = "fix nve all nve\nneigh_modify every 1 delay 0 check no\n"
    whole = start + f"velocity all create 900 3\n{moving}run 10\nwrite_restart {tmp_path}/middle\nrun 10"
    [expected] = run([whole], tmp_path)
    resumed = Job([f"read_restart {tmp_path}/middle"]) + potential(model, elements) + OUTPUT + moving + "run 10"
    [result] = run([resumed], tmp_path)
    for key in ("energy", "positions", "forces"):
        assert_close(result[key], expected[key], TRAJECTORY, what=key)


def test_subset_of_atoms_moves(case: tuple[Path, Atoms], tmp_path: Path) -> None:
    """`neigh_modify exclude` takes pairs out of the list of LAMMPS, and with them out of the energy."""
    model, atoms = case
    elements = sorted(set(atoms.symbols))
    start = setup(atoms, tmp_path, "cell", elements) + potential(model, elements) + OUTPUT
    groups = "group a id 1:20\ngroup b id 21:40\nneigh_modify exclude group a b\n"
    [apart] = run([start + groups + "run 0"], tmp_path)
    halves = [atoms[:20], atoms[20:]]
    energies = []
    for k, half in enumerate(halves):
        types = [elements.index(symbol) + 1 for symbol in half.symbols]
        job = setup(half, tmp_path, f"half{k}", elements, types) + potential(model, elements) + OUTPUT + "run 0"
        energies.append(run_here(job)["energy"])
    assert_close(apart["energy"], sum(energies), RANKS)


def test_all_cores_by_default(one_layer: tuple[Path, Atoms], tmp_path: Path) -> None:
    """One process without OMP_NUM_THREADS uses all cores; several ranks share them."""
    import os

    model, atoms = one_layer
    setup(atoms, tmp_path, "cell", ["Fe", "O", "Si"])
    script = f"units metal\nread_data cell.data\nmass * 50\npair_style grace\npair_coeff * * {model} Fe O Si\nrun 0\n"
    cores = len(os.sched_getaffinity(0))
    unset = {"OMP_NUM_THREADS": None}
    for variables, ranks, expected in ((unset, 1, cores), ({}, 1, 1), (unset, 2, 1)):
        status, output = lmp(script, tmp_path, ranks=ranks, **variables)
        assert status == 0, output
        words = f"{expected} thread" + ("" if expected == 1 else "s")
        assert any(line.startswith("grace: cpu") and line.endswith(words) for line in output.splitlines()), output
