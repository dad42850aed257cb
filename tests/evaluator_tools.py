"""Runs the C++ evaluator on ASE structures, without the caches of the ASE calculator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from numpy.typing import NDArray

import systems
from grace_md._core import Evaluator, ModelSpec, NeighborList, build_neighbors
from grace_md.weights import read_npz

MODELS = Path(__file__).resolve().parent / "data" / "models"
TINY = ("tiny_1l_order2", "tiny_1l", "tiny_1l_pairs", "tiny_2l")
SYMBOLS = {
    "tiny_1l_order2": ("Al",),
    "tiny_1l": ("Mo", "Nb"),
    "tiny_1l_pairs": ("O", "Si", "Fe"),
    "tiny_2l": ("O", "Fe"),
    "lava9_1l": ("O", "Si", "K", "Fe"),
    "2L_large_elemcut": ("O", "C", "Fe", "Cr"),
}
VIRIAL_6 = ([0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2])  # xx, yy, zz, xy, xz, yz of [3, 3]


@lru_cache(maxsize=len(TINY))
def tiny(name: str) -> dict[str, NDArray[Any]]:
    """Arrays of one of the random models of tests/data/models."""
    return read_npz(MODELS / f"{name}.npz")


class CoreModel:
    """An evaluator for some elements of a model, and calls with ASE structures."""

    def __init__(
        self, arrays: Mapping[str, NDArray[Any]], elements: Sequence[str] = (), *, n_threads: int = 1, **options: Any
    ) -> None:
        self.spec = ModelSpec(dict(arrays), "model of a test", list(elements))
        self.evaluator = Evaluator(self.spec, n_threads=n_threads, **options)

    def species(self, atoms: Atoms) -> NDArray[np.int32]:
        return np.array([self.spec.elements.index(symbol) for symbol in atoms.symbols], dtype=np.int32)

    def neighbors(self, atoms: Atoms, skin: float = 0.0) -> NeighborList:
        return build_neighbors(
            atoms.positions,
            self.species(atoms),
            atoms.cell.array[None],
            atoms.pbc[None],
            np.array([0, len(atoms)]),
            self.spec.pair_cutoffs,
            skin,
            1,
        )

    def compute(self, atoms: Atoms, skin: float = 0.0, **options: Any) -> dict[str, Any]:
        """Return the raw results, with `energy` in eV and `virial` [6] (xx,yy,zz,xy,xz,yz) in eV."""
        raw = self.evaluator.compute(
            self.neighbors(atoms, skin), atoms.positions, atoms.cell.array[None], self.species(atoms), **options
        )
        raw["energy"] = float(raw["atomic_energies"].sum())
        if "virial" in raw:
            raw["virial"] = raw["virial"][0][VIRIAL_6]
        return raw


def elements_in(structures: Sequence[Mapping[str, Any]]) -> list[str]:
    """Elements that occur in structures of a reference set, sorted."""
    return sorted({symbol for structure in structures for symbol in structure["symbols"]})


def small_cell(name: str, n_atoms: int = 9) -> Atoms:
    """Skewed periodic cell, smaller than the cutoff, of elements of a model."""
    return systems.triclinic(SYMBOLS[name], n_atoms=n_atoms)


def thermal_momenta(atoms: Atoms, temperature: float, seed: int = 4) -> NDArray[np.float64]:
    """Maxwell-Boltzmann momenta [n_atoms, 3] (ASE units) at a temperature in K, centre of mass at rest."""
    masses = atoms.get_masses()[:, None]
    normal = np.random.default_rng(seed).standard_normal((len(atoms), 3))
    momenta = np.sqrt(masses * units.kB * temperature) * normal
    return np.asarray(momenta - masses * momenta.sum(axis=0) / masses.sum())
