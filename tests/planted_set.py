"""A labelled set whose every violation of a merging rule was planted: what a merge must drop is known exactly."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_numbers, covalent_radii

from grace_md import GraceCalculator
from systems import pack

COUNTS = {
    "plus-u": 90, "pseudopotential": 70, "max-force": 40, "min-distance": 30, "duplicates": 60, "stress-outlier": 50
}  # fmt: skip
SIZE = 1000
MAX_FORCE, MAX_STRESS_ERROR, CONTACT = 1000.0, 0.084, 0.5
U_METALS = ["Co", "Cr", "Fe", "Mn", "Mo", "Ni", "V", "W"]
# Close to what a rule wants, but innocent: metals without an anion, anions without one of the metals.
INNOCENT = [["Fe", "Si"], ["Fe", "Al", "Mg"], ["O", "Ti"], ["O", "Si"], ["O", "Ca", "Al"], ["Na", "O"], ["K", "Si"]]


@dataclass
class Planted:
    """Structures with labels, and the rule that each one breaks ("" for none)."""

    structures: list[Atoms] = field(default_factory=list)
    rules: list[str] = field(default_factory=list)


def _cell(rng: np.random.Generator, symbols: list[str]) -> Atoms:
    """Random cell of 2 to 6 atoms without close contacts; each element occurs."""
    names = [*symbols, *rng.choice(symbols, size=int(rng.integers(0, 4)))]
    volume = sum(4.2 * covalent_radii[atomic_numbers[name]] ** 3 for name in names) / 0.35
    shape = np.eye(3) + rng.uniform(-0.15, 0.15, (3, 3))
    cell = shape * (volume / np.linalg.det(shape)) ** (1 / 3)
    return pack(list(rng.permutation(names)), cell, contact=0.62, seed=int(rng.integers(1 << 30)))


def _copy(rng: np.random.Generator, atoms: Atoms) -> Atoms:
    """The same crystal: atoms in another order, moved and turned."""
    order = rng.permutation(len(atoms))
    copy = atoms[order]
    copy.positions += rng.uniform(-3.0, 3.0, 3)
    copy.rotate(float(rng.uniform(10.0, 350.0)), rng.standard_normal(3), rotate_cell=True)
    copy.wrap()
    return copy


def _close_pair(atoms: Atoms) -> Atoms:
    """Two atoms at 0.4 of the sum of their radii."""
    direction = np.array([1.0, 0.0, 0.0])
    sum_of_radii = covalent_radii[atoms.numbers[0]] + covalent_radii[atoms.numbers[1]]
    atoms.positions[1] = atoms.positions[0] + 0.4 * sum_of_radii * direction
    return atoms


def planted_set(calculator: GraceCalculator, seed: int = 7) -> Planted:
    """Return SIZE structures; stresses are those of the model plus less than 0.07 eV/A^3, outliers more than 0.1."""
    rng = np.random.default_rng(seed)
    kinds = [rule for rule, n in COUNTS.items() if rule != "duplicates" for _ in range(n)]
    kinds += [""] * (SIZE - len(kinds) - COUNTS["duplicates"])
    kinds = list(rng.permutation(kinds))
    found = Planted()
    for kind in kinds:
        if kind == "plus-u":
            symbols = [str(rng.choice(U_METALS)), str(rng.choice(["O", "F"])), str(rng.choice(["Si", "Al", "Zr"]))]
        elif kind == "pseudopotential":
            symbols = [str(rng.choice(["Eu", "Gd", "Yb"])), str(rng.choice(["O", "Si", "Al"]))]
        else:
            symbols = list(INNOCENT[int(rng.integers(len(INNOCENT)))])
        atoms = _cell(rng, symbols)
        found.structures.append(_close_pair(atoms) if kind == "min-distance" else atoms)
        found.rules.append(str(kind))
    clean = [k for k, rule in enumerate(found.rules) if not rule]
    for k in rng.choice(clean, size=COUNTS["duplicates"], replace=False):
        found.structures.append(_copy(rng, found.structures[k]))
        found.rules.append("duplicates")
    _label(rng, found, calculator)
    return found


def _label(rng: np.random.Generator, found: Planted, calculator: GraceCalculator) -> None:
    known = set(calculator.model.elements)
    judged = [k for k, atoms in enumerate(found.structures) if set(atoms.get_chemical_symbols()) <= known]
    results = dict(zip(judged, calculator.evaluate([found.structures[k] for k in judged]), strict=True))
    for k, atoms in enumerate(found.structures):
        rule = found.rules[k]
        result = results.get(k)
        stress = rng.uniform(-0.1, 0.1, 6) if result is None else result["stress"] + rng.uniform(-0.07, 0.07, 6)
        if rule == "stress-outlier":
            sign = rng.choice([-1.0, 1.0])
            component = int(rng.integers(6))
            stress[component] = results[k]["stress"][component] + sign * rng.uniform(0.1, 1.0)
        forces = rng.standard_normal((len(atoms), 3))
        if rule == "max-force":
            forces[0] *= 1.5 * MAX_FORCE / np.linalg.norm(forces[0])
        atoms.info.update(sid=f"s{k}", config_type=rule or "clean")
        atoms.calc = SinglePointCalculator(atoms, energy=float(-5.0 * len(atoms)), forces=forces, stress=stress)
