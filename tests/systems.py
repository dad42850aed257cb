"""Structures that tests and benchmarks share. All are seeded: the same call gives the same atoms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.data import atomic_numbers, covalent_radii

# Atoms of the lava cell (Table 8 of "Exploring the extremes"): 4,983 in all.
LAVA_COUNTS = {"O": 2305, "Si": 1410, "Al": 412, "Fe": 282, "Ca": 208, "Na": 118, "Mg": 116, "K": 104, "Ti": 28}


def bcc(symbols: Sequence[str] = ("W",), repeat: int = 6, lattice: float = 3.165, rattle: float = 0.05) -> Atoms:
    """Random alloy on a rattled bcc lattice: 2 repeat^3 atoms (432), about 58 neighbours within 6 A."""
    rng = np.random.default_rng(432)
    atoms = bulk("W", "bcc", a=lattice, cubic=True).repeat(repeat)
    atoms.symbols = rng.choice(list(symbols), size=len(atoms))
    atoms.positions += rattle * rng.standard_normal((len(atoms), 3))
    return atoms


def lava_symbols(n_atoms: int) -> list[str]:
    """Symbols of n atoms in the shares of Table 8; every element occurs at least once if n >= 9."""
    total = sum(LAVA_COUNTS.values())
    counts = {symbol: max(1, round(n_atoms * count / total)) for symbol, count in LAVA_COUNTS.items()}
    counts["O"] += n_atoms - sum(counts.values())
    return [symbol for symbol, count in counts.items() for _ in range(count)]


def pack(symbols: Sequence[str], cell: np.ndarray, contact: float, seed: int) -> Atoms:
    """Place atoms at random in a periodic cell, none closer than `contact` times the sum of the covalent radii."""
    rng = np.random.default_rng(seed)
    radii = np.array([covalent_radii[atomic_numbers[symbol]] for symbol in symbols])
    inverse, placed = np.linalg.inv(cell), np.zeros((0, 3))
    for n, radius in enumerate(radii):
        for _ in range(20_000):
            trial = rng.random(3) @ cell
            fractional = (placed - trial) @ inverse
            vectors = (fractional - np.round(fractional)) @ cell
            if np.all(np.linalg.norm(vectors, axis=1) >= contact * (radius + radii[:n])):
                placed = np.vstack([placed, trial])
                break
        else:
            raise ValueError(f"`contact` = {contact} leaves no room for atom {n} of {len(symbols)}; lower it.")
    return Atoms(symbols, positions=placed, cell=cell, pbc=True)


def lava(n_atoms: int = 500, volume_per_atom: float = 15.0) -> Atoms:
    """Random lava: the nine elements at the shares of Table 8, closest contacts 0.65 of the covalent sum."""
    rng = np.random.default_rng(500)
    symbols = list(rng.permutation(lava_symbols(n_atoms)))
    return pack(symbols, np.eye(3) * (n_atoms * volume_per_atom) ** (1 / 3), contact=0.65, seed=8)


def thin_slab(symbols: Sequence[str] = ("O", "Si", "Fe"), n_atoms: int = 60) -> Atoms:
    """Periodic in x and y, free in z; one periodic edge (5.2 A) is shorter than every cutoff."""
    rng = np.random.default_rng(52)
    atoms = pack(rng.choice(list(symbols), n_atoms).tolist(), np.diag([18.0, 5.2, 12.0]), contact=0.6, seed=52)
    atoms.set_pbc([True, True, False])
    atoms.cell[2] = 0.0
    return atoms


def triclinic(symbols: Sequence[str] = ("O", "Si", "Al", "Fe"), n_atoms: int = 14) -> Atoms:
    """Strongly skewed cell, smaller than the cutoff, with atoms outside of it."""
    rng = np.random.default_rng(14)
    cell = np.array([[6.4, 0.0, 0.0], [2.9, 5.7, 0.0], [-2.3, 1.8, 6.1]])
    atoms = pack(rng.choice(list(symbols), n_atoms).tolist(), cell, contact=0.6, seed=14)
    atoms.positions += rng.integers(-2, 3, size=(n_atoms, 3)) @ cell
    return atoms


def primitive(symbol: str = "Fe", lattice: float = 2.83) -> Atoms:
    """One atom that has only its own images as neighbours."""
    return bulk(symbol, "bcc", a=lattice)


def cluster(symbols: Sequence[str] = ("O", "Si", "K", "Ti"), n_atoms: int = 12) -> Atoms:
    """Free cluster without a cell."""
    rng = np.random.default_rng(12)
    atoms = pack(rng.choice(list(symbols), n_atoms).tolist(), np.eye(3) * 7.0, contact=0.7, seed=12)
    return Atoms(atoms.symbols, positions=atoms.positions)


def dimer(symbols: tuple[str, str] = ("Si", "O"), distance: float = 1.7) -> Atoms:
    """Two free atoms along an oblique direction."""
    return Atoms(list(symbols), positions=[np.zeros(3), distance * np.array([2.0, -1.0, 2.0]) / 3.0])


def isolated(symbol: str = "Si") -> Atoms:
    """One free atom without neighbours."""
    return Atoms([symbol], positions=[[0.3, -0.2, 0.1]])
