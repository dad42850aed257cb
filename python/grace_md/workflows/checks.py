"""Two checks of a finished quench that need more computing: energy drift in NVE, and LAMMPS against ASE."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from grace_md.analysis.lammps_files import read_data, read_thermo
from grace_md.analysis.report import Check
from grace_md.workflows.quench_input import QuenchSettings, potential_lines
from grace_md.workflows.run_lammps import run_to_end

__all__ = ["lammps_against_ase", "nve_drift"]

NVE_TEMPERATURE = 1000.0  # K
NVE_PICOSECONDS = 2.0
NVE_DRIFT_LIMIT = 1.0  # meV/atom/ps
ENERGY_TOLERANCE = 1e-8  # eV/atom
FORCE_TOLERANCE = 1e-7  # eV/A


def nve_drift(
    folder: Path, settings: QuenchSettings, picoseconds: float = NVE_PICOSECONDS, ranks: int = 1, threads: int = 1
) -> Check:
    """Slope of the total energy at constant volume and energy from the final frame, in meV/atom/ps."""
    steps = round(1000.0 * picoseconds / settings.timestep_fs)
    # A solid shares the new kinetic energy with its potential energy, half and half.
    start = max(NVE_TEMPERATURE, 2.0 * NVE_TEMPERATURE - settings.temperature[1])
    text = f"""\
log nve.log
{_system(folder, settings)}
velocity all create {start:g} {settings.seed + 7919} mom yes
timestep {settings.timestep_fs / 1000.0:g}
fix nve all nve
thermo_style custom step time temp etotal
thermo_modify format float %.12g
thermo {max(1, steps // 200)}
run {steps}
"""
    with tempfile.TemporaryDirectory() as scratch:
        _run(text, Path(scratch), ranks, threads)
        thermo = read_thermo([Path(scratch) / "nve.log"])
    # The first tenth is left out: the velocities are new and the potential energy has to find its level.
    late = thermo["Time"] >= 0.1 * picoseconds
    slope = float(np.polyfit(thermo["Time"][late], thermo["TotEng"][late], 1)[0]) / settings.n_atoms
    return Check(
        "energy drift in NVE",
        bool(abs(1000.0 * slope) < NVE_DRIFT_LIMIT),
        f"{1000.0 * slope:+.4f} meV/atom/ps over {picoseconds:g} ps at {float(thermo['Temp'][late].mean()):.0f} K",
        f"below {NVE_DRIFT_LIMIT:g}",
    )


def lammps_against_ase(folder: Path, settings: QuenchSettings) -> Check:
    """Energy and forces of the final frame in double precision: ``pair_style grace`` against `GraceCalculator`."""
    from grace_md.ase import GraceCalculator  # noqa: PLC0415 - opens the compiled core

    settings = replace(settings, precision="fp64")  # floats of sums in another order differ by more than the tolerance
    text = f"""\
log static.log
{_system(folder, settings)}
thermo_style custom step pe
thermo_modify format float %.17g
dump forces all custom 1 forces.txt id fx fy fz
dump_modify forces sort id format float %.17g
run 0
"""
    with tempfile.TemporaryDirectory() as scratch:
        _run(text, Path(scratch), 1, 1)
        energy = float(read_thermo([Path(scratch) / "static.log"])["PotEng"][-1])
        forces = np.loadtxt(Path(scratch) / "forces.txt", skiprows=9)[:, 1:4]
    atoms = read_data(folder / "final.data", settings.elements)
    atoms.calc = GraceCalculator(str(folder / settings.model), device=settings.device, precision=settings.precision)
    energy_error = abs(energy - atoms.get_potential_energy()) / len(atoms)
    force_error = float(np.abs(forces - atoms.get_forces()).max())
    return Check(
        "LAMMPS against ASE, final frame",
        bool(energy_error <= ENERGY_TOLERANCE and force_error <= FORCE_TOLERANCE),
        f"{energy_error:.1e} eV/atom, {force_error:.1e} eV/A",
        f"{ENERGY_TOLERANCE:g} and {FORCE_TOLERANCE:g}",
    )


def _system(folder: Path, settings: QuenchSettings) -> str:
    potential = potential_lines(replace(settings, model=str((folder / settings.model).resolve())))
    return f"""\
units metal
atom_style atomic
atom_modify map yes
boundary p p p
read_data "{(folder / "final.data").resolve()}"
{potential}
neighbor 1.0 bin
neigh_modify every 1 delay 0 check yes"""


def _run(text: str, scratch: Path, ranks: int, threads: int) -> None:
    (scratch / "in.check").write_text(text, encoding="utf-8")
    run_to_end(["-in", "in.check", "-log", "none"], scratch, ranks, threads)
