"""Dynamics at constant energy with the lava composition, shared by the short tests and the long run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms, units
from ase.md.langevin import Langevin
from ase.md.verlet import VelocityVerlet

import systems
from evaluator_tools import thermal_momenta
from grace_md import GraceCalculator


@dataclass(frozen=True)
class Conservation:
    """Total energy of a run: `drift` of a linear fit (eV/atom/ps), `fluctuation` (rms) around it (eV/atom)."""

    drift: float
    fluctuation: float
    temperature: float  # mean, K


def equilibrated_melt(n_atoms: int, temperature: float, steps: int, calc: GraceCalculator) -> Atoms:
    """Random packing of the lava composition, thermostatted for `steps` fs."""
    atoms = systems.lava(n_atoms)
    atoms.calc = calc
    atoms.set_momenta(thermal_momenta(atoms, temperature))
    Langevin(
        atoms,
        timestep=1.0 * units.fs,
        temperature_K=temperature,
        friction=0.05 / units.fs,
        fixcm=False,
        rng=np.random.default_rng(20),
    ).run(steps)
    momenta = atoms.get_momenta()
    masses = atoms.get_masses()[:, None]
    atoms.set_momenta(momenta - masses * momenta.sum(axis=0) / masses.sum())
    return atoms


def run_nve(atoms: Atoms, steps: int, timestep: float = 1.0, every: int = 5) -> Conservation:
    """Velocity Verlet for `steps` of `timestep` fs, total energy sampled `every` steps."""
    md = VelocityVerlet(atoms, timestep=timestep * units.fs)
    times, energies, temperatures = [], [], []

    def sample() -> None:
        times.append(md.nsteps * timestep * 1e-3)
        energies.append(atoms.get_total_energy() / len(atoms))
        temperatures.append(atoms.get_temperature())

    md.attach(sample, interval=every)
    md.run(steps)
    drift, offset = np.polyfit(times, energies, 1)
    residual = np.array(energies) - drift * np.array(times) - offset
    return Conservation(float(drift), float(np.sqrt(np.mean(residual**2))), float(np.mean(temperatures)))
