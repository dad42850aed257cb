"""Screened nuclear repulsion (ZBL), switched off inside bonding distances: the core that CHGNet lacks.

Per pair of atoms, with d in A and energies in eV (Ziegler, Biersack, Littmark, "The Stopping and Range of Ions in
Solids", 1985):

    E(d) = S(d) 14.399645 Z_i Z_j / d phi(d / a),   a = 0.46850 / (Z_i^0.23 + Z_j^0.23)
    phi(x) = 0.18175 e^(-3.19980 x) + 0.50986 e^(-0.94229 x) + 0.28022 e^(-0.40290 x) + 0.02817 e^(-0.20162 x)
    S = 1 - 10 t^3 + 15 t^4 - 6 t^5,   t = (d - r_in) / (r_out - r_in) between 0 and 1

with r_out a fraction (0.75) of the sum of the covalent radii and r_in half of it. S has two continuous derivatives.
"""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii
from ase.stress import full_3x3_to_voigt_6_stress
from numpy.typing import NDArray

__all__ = ["OUTER_FACTOR", "check_radii", "pair_energy", "zbl"]

COULOMB = 14.399645  # e^2 / (4 pi eps_0), eV A
SCREENING_LENGTH = 0.46850  # A
COEFFICIENTS = np.array([0.18175, 0.50986, 0.28022, 0.02817])
EXPONENTS = np.array([3.19980, 0.94229, 0.40290, 0.20162])
OUTER_FACTOR = 0.75  # r_out over the sum of covalent radii
INNER_RATIO = 0.5  # r_in over r_out
LAST_RADIUS = atomic_numbers["Cm"]  # ASE has no covalent radii beyond

Array = NDArray[np.float64]


def check_radii(numbers: NDArray[np.int64]) -> None:
    """Raise ValueError for elements without a covalent radius."""
    if numbers.min(initial=1) < 1 or numbers.max(initial=1) > LAST_RADIUS:
        raise ValueError(f"there are covalent radii for Z = 1 to {LAST_RADIUS} only, not for Z = {numbers.max()}.")


def pair_energy(distance: Array, z_i: Array, z_j: Array, outer: Array) -> tuple[Array, Array]:
    """Return E and dE/dd of pairs, each [n_pairs], in eV and eV/A.

    Parameters
    ----------
    distance : [n_pairs], A
    z_i, z_j : [n_pairs], atomic numbers
    outer : [n_pairs], r_out in A
    """
    length = SCREENING_LENGTH / (z_i**0.23 + z_j**0.23)
    terms = COEFFICIENTS * np.exp(-(distance / length)[:, None] * EXPONENTS)
    phi, phi_slope = terms.sum(axis=1), -(terms * EXPONENTS).sum(axis=1) / length
    coulomb = COULOMB * z_i * z_j / distance
    width = outer * (1.0 - INNER_RATIO)
    t = np.clip((distance - INNER_RATIO * outer) / width, 0.0, 1.0)
    switch = 1.0 + t**3 * (-10.0 + t * (15.0 - 6.0 * t))
    switch_slope = -30.0 * t**2 * (1.0 - t) ** 2 / width
    energy = switch * coulomb * phi
    slope = coulomb * (switch_slope * phi + switch * (phi_slope - phi / distance))
    return energy, slope


def zbl(atoms: Atoms, outer_factor: float = OUTER_FACTOR) -> tuple[float, Array, Array | None]:
    """Return energy (eV), forces [n_atoms, 3] (eV/A) and stress [6] (eV/A^3, ASE's sign and order).

    The stress is None unless all three directions are periodic. Raises ValueError for elements without a covalent
    radius.
    """
    from ase.neighborlist import neighbor_list  # noqa: PLC0415 - slow to import

    check_radii(atoms.numbers)
    radii = outer_factor * covalent_radii[atoms.numbers]
    i, j, distance, vector = neighbor_list("ijdD", atoms, list(radii))  # every pair twice, i->j and j->i
    z = atoms.numbers.astype(np.float64)
    energy, slope = pair_energy(distance, z[i], z[j], radii[i] + radii[j])
    pull = (slope / np.maximum(distance, 1e-300))[:, None] * vector  # dE/dr_j of one pair
    forces = np.zeros((len(atoms), 3))
    np.add.at(forces, i, pull)
    if not atoms.pbc.all():
        return 0.5 * float(energy.sum()), forces, None
    strain = 0.5 * (pull.T @ vector) / atoms.get_volume()
    return 0.5 * float(energy.sum()), forces, np.array(full_3x3_to_voigt_6_stress(strain))
