"""Print the errors of models and of CHGNet + ZBL against labelled structures, for example against PBE.

    python compare_dft.py ../../../tests/data/dft/lava_pbe_40.extxyz --model lava9_1l --recipe chgnet-zbl

Methods count energies from different references, so a shift of every element is fitted by least squares first: energy
errors are the residuals, per atom, and have fewer degrees of freedom than there are structures. Forces and stresses are
compared as they are.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import read
from ase.units import GPa
from numpy.typing import NDArray

from grace_md import GraceCalculator
from grace_md.data import find_model
from grace_md.labels.recipes import load_config, make_recipe

Array = NDArray[np.float64]
Results = Sequence[tuple[float, Array, Array]]  # energy, forces, stress of each structure


@dataclass(frozen=True)
class Errors:
    """Mean absolute and root mean square errors: energy in meV/atom, forces in meV/A, stress in GPa; correlation."""

    energy: tuple[float, float]
    forces: tuple[float, float]
    stress: tuple[float, float]
    correlation: float


def composition_matrix(images: Sequence[Atoms]) -> Array:
    """Atoms of every element [n_structures, n_elements]."""
    elements = sorted({int(z) for atoms in images for z in atoms.numbers})
    return np.array([[np.count_nonzero(atoms.numbers == z) for z in elements] for atoms in images], dtype=np.float64)


def residuals(images: Sequence[Atoms], difference: Array) -> Array:
    """What is left of energy differences [n_structures] after one shift per element, eV per atom."""
    counts = composition_matrix(images)
    shifts = np.linalg.lstsq(counts, difference, rcond=None)[0]
    return (difference - counts @ shifts) / counts.sum(axis=1)


def errors(images: Sequence[Atoms], results: Results) -> Errors:
    """Errors of `results` against the labels that `images` carry."""
    difference = [r[0] - a.get_potential_energy() for a, r in zip(images, results, strict=True)]
    energy = residuals(images, np.array(difference))
    wanted = np.concatenate([a.get_forces().ravel() for a in images])
    found = np.concatenate([r[1].ravel() for r in results])
    stress = np.concatenate([r[2] - a.get_stress() for a, r in zip(images, results, strict=True)]) / GPa

    def both(values: Array, factor: float = 1.0) -> tuple[float, float]:
        return factor * float(np.abs(values).mean()), factor * float(np.sqrt((values**2).mean()))

    return Errors(both(energy, 1e3), both(found - wanted, 1e3), both(stress), float(np.corrcoef(wanted, found)[0, 1]))


def by_model(name: str) -> Callable[[Sequence[Atoms]], Results]:
    """Results of a GRACE model, by file or name."""
    calculator = GraceCalculator(find_model(name), device="cpu")

    def evaluate(images: Sequence[Atoms]) -> Results:
        return [(r["energy"], r["forces"], r["stress"]) for r in calculator.evaluate(list(images))]

    return evaluate


def by_recipe(name: str) -> Callable[[Sequence[Atoms]], Results]:
    """Results of a recipe of `grace-md label`."""
    recipe = make_recipe(load_config(name))
    recipe.start(1)

    def evaluate(images: Sequence[Atoms]) -> Results:
        labels = [recipe.label(atoms, Path()) for atoms in images]
        assert all(label.stress is not None for label in labels)
        return [(label.energy, label.forces, label.stress) for label in labels]

    return evaluate


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labelled")
    parser.add_argument("--model", action="append", default=[], help="GRACE weight file, or name of a shipped one")
    parser.add_argument("--recipe", action="append", default=[], help="recipe of `grace-md label`")
    parser.add_argument("--without", action="append", default=[], metavar="ELEMENT", help="leave out what holds it")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    args = parser.parse_args()
    images = [a for a in read(args.labelled, ":") if not set(args.without) & set(a.get_chemical_symbols())]
    forces = np.concatenate([atoms.get_forces().ravel() for atoms in images])
    stress = np.concatenate([atoms.get_stress() for atoms in images]) / GPa
    counts = composition_matrix(images)
    print(f"{len(images)} structures, {int(counts.sum())} atoms; {counts.shape[1]} energy shifts fitted")
    force_rms, stress_rms = 1e3 * np.sqrt((forces**2).mean()), np.sqrt((stress**2).mean())
    print(f"labels: force rms {force_rms:.0f} meV/A, stress rms {stress_rms:.1f} GPa\n")
    print("| | E MAE / RMSE (meV/atom) | F MAE / RMSE (meV/A) | F correlation | S MAE / RMSE (GPa) |")
    print("|---|---|---|---|---|")
    methods = [(name, by_model(name)) for name in args.model] + [(name, by_recipe(name)) for name in args.recipe]
    table = {}
    for name, evaluate in methods:
        e = errors(images, evaluate(images))
        table[name] = vars(e)
        print(
            f"| {name} | {e.energy[0]:.0f} / {e.energy[1]:.0f} | {e.forces[0]:.0f} / {e.forces[1]:.0f} | "
            f"{e.correlation:.3f} | {e.stress[0]:.1f} / {e.stress[1]:.1f} |"
        )
    if args.json:
        args.json.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
