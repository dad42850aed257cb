"""Write 40 small lava cells for DFT: random packings, part of them after some steps of hot dynamics.

    python make_lava_cells.py cells.extxyz

8 to 10 atoms of O Si Al Fe Ca Na Mg K Ti with at least two O, cells strained at random. All
are relaxed by 8 damped steps of the starter model; two thirds then run 60 fs at 3000 K with it. The starter model only
moves the atoms, so that none meet as they do in random cells; its energies go nowhere.
"""

from __future__ import annotations

import argparse
from collections import Counter

import numpy as np
from ase import Atoms, units
from ase.io import write
from ase.md.langevin import Langevin
from ase.optimize import FIRE

from grace_md import GraceCalculator
from grace_md.data import model_path
from grace_md.workflows.composition import LAVA
from grace_md.workflows.packing import random_packing

COUNT = 40
SEED = 20
PACKING = (0.28, 0.48)  # covalent spheres over volume; 0.36 is 2.5 g/cm3 for the lava of the paper
RELAX_STEPS = 8
MD_STEPS = 60  # of 1 fs
TEMPERATURE = 3000.0  # K


def composition(random: np.random.Generator) -> dict[str, int]:
    """8 to 10 atoms: two O, the rest drawn with the square roots of the lava shares, so that K and Ti occur too."""
    weights = np.sqrt(np.array(list(LAVA.values()), dtype=np.float64))
    extra = random.choice(list(LAVA), size=int(random.integers(6, 9)), p=weights / weights.sum())
    return dict(sorted(Counter(["O", "O", *extra]).items()))


def cell(index: int) -> Atoms:
    """Return cell number `index`."""
    random = np.random.default_rng([SEED, index])
    atoms = random_packing(
        composition(random),
        packing_fraction=random.uniform(*PACKING),
        minimum_distance=0.7,
        seed=int(random.integers(2**31)),
    )
    strain = np.eye(3) + random.uniform(-0.08, 0.08, (3, 3))
    atoms.set_cell(atoms.cell.array @ (strain / np.cbrt(np.linalg.det(strain))), scale_atoms=True)
    atoms.calc = GraceCalculator(model_path("lava9_1l"), device="cpu")
    FIRE(atoms, logfile=None, maxstep=0.1).run(fmax=0.1, steps=RELAX_STEPS)
    kind = "relaxed"
    if index % 3:
        kind = "md"
        masses = atoms.get_masses()[:, None]
        atoms.set_momenta(random.normal(size=(len(atoms), 3)) * np.sqrt(units.kB * TEMPERATURE * masses))
        friction = 0.02 / units.fs
        Langevin(atoms, units.fs, temperature_K=TEMPERATURE, friction=friction, fixcm=False, rng=random).run(MD_STEPS)
    result = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)
    result.wrap()
    result.info.update({"config_type": f"lava_{kind}", "family": f"lava-{SEED}-{index}"})
    return result


def main() -> None:
    """Write the cells."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output")
    parser.add_argument("-n", type=int, default=COUNT, help=f"number of cells (default {COUNT})")
    args = parser.parse_args()
    cells = [cell(index) for index in range(args.n)]
    write(args.output, cells, format="extxyz")


if __name__ == "__main__":
    main()
