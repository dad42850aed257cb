"""Rattled crystals of some metals, the conventional training set that `closed_loop.py` compares with an entropy set.

    python crystals.py crystals.extxyz --elements Al,Ni,Ti --number 400 --seed 1

Elements in four structures and every pair in seven ordered ones are relaxed with CHGNet + ZBL (cell and positions),
then strained and displaced at random, as the rattled parts of large public sets are made.
"""

from __future__ import annotations

import argparse
import itertools
import warnings
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.data import atomic_numbers, covalent_radii
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE
from ase.spacegroup import crystal

from grace_md.labels.recipes import load_config, make_recipe
from grace_md.labels.recipes.base import Recipe
from grace_md.progress import ProgressBar

STRAIN = 0.03  # standard deviation of the entries of the strain
DISPLACEMENTS = (0.03, 0.08, 0.14, 0.2)  # A, standard deviation of one component: about 100 to 2000 K


class RecipeCalculator(Calculator):  # type: ignore[misc]
    """A recipe of `grace-md label` as a calculator of ASE."""

    implemented_properties = ("energy", "forces", "stress")

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.recipe.start(threads=1)

    def calculate(self, atoms=None, properties=("energy",), system_changes=tuple(all_changes)) -> None:
        super().calculate(atoms, properties, system_changes)
        label = self.recipe.label(self.atoms, Path())
        self.results = {"energy": label.energy, "forces": label.forces, "stress": label.stress}


def elemental(element: str) -> list[Atoms]:
    """Return fcc, bcc, hcp and simple cubic cells, touching spheres of covalent radii."""
    d = 2.0 * covalent_radii[atomic_numbers[element]]
    return [
        bulk(element, "fcc", a=d * 2**0.5, cubic=True),
        bulk(element, "bcc", a=d * 2 / 3**0.5, cubic=True),
        bulk(element, "hcp", a=d, c=d * (8 / 3) ** 0.5),
        bulk(element, "sc", a=d).repeat(2),
    ]


def ordered(a: str, b: str) -> list[Atoms]:
    """Return B2, L1_0, L1_2, D0_3, A15, B1 and C15 of two elements, the last four in both orders."""
    d = float(covalent_radii[atomic_numbers[a]] + covalent_radii[atomic_numbers[b]])
    found = [
        crystal([a, b], [(0, 0, 0), (0.5, 0.5, 0.5)], spacegroup=221, cellpar=[d * 2 / 3**0.5] * 3 + [90] * 3),
        Atoms([a, b], scaled_positions=[(0, 0, 0), (0.5, 0.5, 0.5)], cell=[d, d, d * 2**0.5], pbc=True),
        crystal([a, b], [(0, 0, 0), (0.5, 0, 0)], spacegroup=225, cellpar=[2 * d] * 3 + [90] * 3),
    ]
    for one, other in ((a, b), (b, a)):
        found += [
            crystal([one, other], [(0, 0, 0), (0.5, 0.5, 0)], spacegroup=221, cellpar=[d * 2**0.5] * 3 + [90] * 3),
            crystal(
                [one, other, other],
                [(0, 0, 0), (0.25, 0.25, 0.25), (0.5, 0.5, 0.5)],
                spacegroup=225,
                cellpar=[d * 4 / 3**0.5] * 3 + [90] * 3,
                primitive_cell=True,
            ),
            crystal([one, other], [(0, 0, 0), (0.25, 0, 0.5)], spacegroup=223, cellpar=[d * 1.9] * 3 + [90] * 3),
            crystal(
                [one, other],
                [(0.125, 0.125, 0.125), (0.5, 0.5, 0.5)],
                spacegroup=227,
                setting=2,
                cellpar=[d * 2.6] * 3 + [90] * 3,
                primitive_cell=True,
            ),
        ]
    return found


def relaxed(prototypes: list[Atoms], calculator: Calculator, steps: int = 60) -> list[Atoms]:
    """Relax cells and positions; what does not stay a solid (volume times 0.5 to 2) is left out."""
    kept = []
    with ProgressBar(len(prototypes), "relaxing crystals") as bar:
        for atoms in prototypes:
            atoms.calc = calculator
            before = atoms.get_volume()
            FIRE(FrechetCellFilter(atoms), logfile=None).run(fmax=0.1, steps=steps)
            atoms.calc = None
            if 0.5 < atoms.get_volume() / before < 2.0 and np.isfinite(atoms.positions).all():
                kept.append(atoms)
            bar.update()
    return kept


def rattled(parents: list[Atoms], number: int, seed: int) -> list[Atoms]:
    """Return `number` strained and displaced copies, parents in turn."""
    rng = np.random.default_rng(seed)
    found = []
    for index in range(number):
        parent = index % len(parents)
        atoms = parents[parent].copy()
        strain = rng.normal(0.0, STRAIN, (3, 3))
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.5 * (strain + strain.T)), scale_atoms=True)
        atoms.positions += rng.normal(0.0, DISPLACEMENTS[index // len(parents) % len(DISPLACEMENTS)], (len(atoms), 3))
        atoms.info = {"config_type": "rattled", "family": f"{atoms.get_chemical_formula()}_{parent}"}
        found.append(atoms)
    return found


def make(elements: list[str], number: int, seed: int, calculator: Calculator) -> list[Atoms]:
    """Return rattled crystals of all elements and pairs."""
    prototypes = [atoms for element in elements for atoms in elemental(element)]
    prototypes += [atoms for pair in itertools.combinations(elements, 2) for atoms in ordered(*pair)]
    return rattled(relaxed(prototypes, calculator), number, seed)


def main() -> None:
    """Write the set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--elements", default="Al,Ni,Ti")
    parser.add_argument("--number", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if args.output.exists():
        parser.error(f"`{args.output}` exists; give another name or remove it.")
    warnings.filterwarnings("ignore", category=UserWarning, module="chgnet|ase")
    calculator = RecipeCalculator(make_recipe(load_config("chgnet-zbl")))
    structures = make(args.elements.split(","), args.number, args.seed, calculator)
    ase.io.write(args.output, structures)
    print(f"{len(structures)} structures in {args.output}")


if __name__ == "__main__":
    main()
