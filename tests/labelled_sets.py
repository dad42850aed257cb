"""Small labelled sets that tests make with the EMT potential of ASE. All are seeded."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

ELEMENTS = ["Ag", "Au", "Cu"]
CUTOFF = 4.5  # A


def labelled(atoms: Atoms) -> Atoms:
    """Compute labels and keep them as plain results, as files have them."""
    work = atoms.copy()
    work.calc = EMT()
    results = {"energy": work.get_potential_energy(), "forces": work.get_forces()}
    if work.pbc.all():
        results["stress"] = work.get_stress()
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def alloys(n: int, seed: int = 1, sizes: Sequence[int] = (1, 2)) -> list[Atoms]:
    """Rattled fcc alloys of 4 to 8 atoms, each one a family of its own."""
    rng = np.random.default_rng(seed)
    found = []
    for k in range(n):
        atoms = bulk("Cu", "fcc", a=rng.uniform(3.7, 4.2), cubic=True).repeat((int(rng.choice(sizes)), 1, 1))
        atoms.symbols = rng.choice(ELEMENTS, size=len(atoms))
        atoms.positions += 0.1 * rng.standard_normal((len(atoms), 3))
        atoms.info.update(family=f"alloy{seed}-{k}", config_type="alloy")
        found.append(labelled(atoms))
    return found


def volume_scan(n: int = 7, symbol: str = "Cu") -> list[Atoms]:
    """One crystal, slightly rattled, at several volumes."""
    base = bulk(symbol, "fcc", a=3.6, cubic=True)
    base.positions += 0.05 * np.random.default_rng(5).standard_normal((len(base), 3))
    found = []
    for scale in np.linspace(0.94, 1.08, n):
        atoms = base.copy()
        atoms.set_cell(base.cell * scale, scale_atoms=True)
        atoms.info.update(family="scan", config_type="scan")
        found.append(labelled(atoms))
    return found


def trajectory(n: int = 15, step: float = 0.04) -> list[Atoms]:
    """Random small steps of one alloy."""
    rng = np.random.default_rng(7)
    atoms = alloys(1, seed=9)[0]
    found = []
    for _ in range(n):
        atoms = atoms.copy()
        atoms.positions += step * rng.standard_normal((len(atoms), 3))
        atoms.info.update(family="walk", config_type="md")
        found.append(labelled(atoms))
    return found


def cluster() -> Atoms:
    """Three atoms without a cell."""
    atoms = Atoms("Cu2Au", positions=[[0, 0, 0], [2.4, 0, 0], [0, 2.5, 0.3]])
    atoms.info.update(family="cluster", config_type="cluster")
    return labelled(atoms)


def lone_atom(symbol: str = "Cu") -> Atoms:
    """One atom in a box that is larger than the cutoffs: no neighbours."""
    atoms = Atoms(symbol, positions=[[1, 1, 1]], cell=[12, 12, 12], pbc=True)
    atoms.info.update(family=f"lone-{symbol}", config_type="atom")
    return labelled(atoms)


def mixed_set() -> list[Atoms]:
    """Some of everything."""
    return [*alloys(12), *volume_scan(), *trajectory(), cluster(), lone_atom()]
