"""Random packing of atoms in a cubic box with a smallest allowed distance: the start of a quench."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from ase import Atoms
from ase.data import atomic_masses, atomic_numbers, covalent_radii
from numpy.typing import NDArray

from grace_md.analysis.pairs import pairs_within

__all__ = ["DEFAULT_MINIMUM_DISTANCE", "DEFAULT_PACKING_FRACTION", "box_volume", "random_packing"]

# Volume of the covalent spheres over volume of the box. For the lava of the paper it gives 2.5 g/cm3, between the
# densities of basaltic melt at high temperature and at ambient conditions; the barostat does the rest.
DEFAULT_PACKING_FRACTION = 0.36

# Smallest distance as a fraction of the sum of covalent radii.
DEFAULT_MINIMUM_DISTANCE = 0.8

_GROUPS = 8
_MAX_ROUNDS = 400
_AMU_PER_A3_IN_G_PER_CM3 = 1.66053906660


def box_volume(
    composition: Mapping[str, int],
    density: float | None = None,
    packing_fraction: float = DEFAULT_PACKING_FRACTION,
) -> float:
    """Volume in A^3 for a mass density in g/cm^3, or else for a packing fraction of the covalent spheres."""
    numbers = [atomic_numbers[element] for element in composition]
    counts = np.array(list(composition.values()))
    if density is not None:
        if not density > 0.0:
            raise ValueError(f"`density` = {density} must be a positive number of g/cm^3.")
        return float(counts @ atomic_masses[numbers]) * _AMU_PER_A3_IN_G_PER_CM3 / density
    if not 0.0 < packing_fraction < 1.0:
        raise ValueError(f"`packing_fraction` = {packing_fraction} must lie between 0 and 1.")
    return float(counts @ (4.0 / 3.0 * np.pi * covalent_radii[numbers] ** 3)) / packing_fraction


def random_packing(
    composition: Mapping[str, int],
    *,
    density: float | None = None,
    packing_fraction: float = DEFAULT_PACKING_FRACTION,
    minimum_distance: float = DEFAULT_MINIMUM_DISTANCE,
    seed: int = 1,
) -> Atoms:
    """Atoms at random positions in a periodic cube, none closer than a fraction of the covalent bond length.

    Atoms are inserted from large to small in a few groups. Each round proposes a position for every atom of the group
    that is still missing and keeps those without a conflict, so the cost is some ten pair searches per group.

    Parameters
    ----------
    composition : mapping of str to int
        Atoms of each element.
    density : float, optional
        Mass density in g/cm^3; overrides `packing_fraction`.
    packing_fraction : float
        Volume of the spheres with covalent radii over the volume of the box.
    minimum_distance : float
        Smallest allowed d_ij / (r_i + r_j) with covalent radii r.
    seed : int
        Seed of the random numbers; equal seeds give equal positions.

    Returns
    -------
    ase.Atoms
        Atoms sorted in the order of `composition`, fully periodic.

    Raises
    ------
    ValueError
        If the atoms do not fit, or an argument is out of range.
    """
    if not 0.0 <= minimum_distance < 1.5:
        raise ValueError(f"`minimum_distance` = {minimum_distance} is a fraction of a bond length; use about 0.8.")
    edge = box_volume(composition, density, packing_fraction) ** (1.0 / 3.0)
    cell = edge * np.eye(3)
    random = np.random.default_rng(seed)
    symbols = [element for element in composition for _ in range(composition[element])]
    radii = minimum_distance * covalent_radii[[atomic_numbers[symbol] for symbol in symbols]]

    positions = np.empty((len(symbols), 3))
    placed = np.empty(0, dtype=np.int64)
    for group in np.array_split(np.argsort(-radii, kind="stable"), _GROUPS):
        missing = group
        for _ in range(_MAX_ROUNDS):
            if len(missing) == 0:
                break
            positions[missing] = edge * random.random((len(missing), 3))
            good = _free(positions, radii, missing, placed, cell)
            placed = np.concatenate([placed, missing[good]])
            missing = missing[~good]
        if len(missing):
            raise ValueError(
                f"only {len(placed)} of {len(symbols)} atoms fit into a box of edge {edge:.2f} A with "
                f"`minimum_distance` = {minimum_distance} of the covalent bond length; lower `minimum_distance`, "
                "`density` or `packing_fraction`."
            )
    return Atoms(symbols, positions, cell=cell, pbc=True)


def _free(
    positions: NDArray[np.float64],
    radii: NDArray[np.float64],
    proposed: NDArray[np.int64],
    placed: NDArray[np.int64],
    cell: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """Mask of the proposed atoms that conflict neither with placed atoms nor with an earlier proposed one."""
    largest = float(radii[proposed].max())
    good: NDArray[np.bool_] = 2.0 * radii[proposed] < cell[0, 0]  # a larger atom would meet its own image
    if not largest > 0.0:
        return good
    if len(placed):
        reach = largest + float(radii[placed].max())
        i, j, distance = pairs_within(positions[placed], cell, reach, centres=positions[proposed])
        good[i[distance < radii[proposed[i]] + radii[placed[j]]]] = False
    i, j, distance = pairs_within(positions[proposed], cell, 2.0 * largest)
    # A conflict between two free proposals removes the later one only.
    conflict = (distance < radii[proposed[i]] + radii[proposed[j]]) & good[i] & good[j] & (i > j)
    good[i[conflict]] = False
    return good
