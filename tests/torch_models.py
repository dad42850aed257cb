"""Small models and cells that the tests of the torch layer share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from ase import Atoms

import systems
from grace_md.torch import AtomsBatch, GracePotential, batch_from_atoms

ELEMENTS = ["O", "Si", "Fe"]
CUTOFFS = np.array([[4.0, 4.3, 4.6], [4.3, 4.5, 4.9], [4.6, 4.9, 5.2]])  # A
TINY = {
    1: {"layers": 1, "n_rad": 4, "width": 6, "lmax": 2},
    2: {"layers": 2, "n_rad": (3, 2), "width": (3, 4), "lmax": (2, 1), "message_lmax": 1, "message_inner": 3},
}
COMMON: dict[str, Any] = {"n_basis": 4, "n_densities": 3, "embedding": 3, "envelope": 5, "hidden": 6, "readout": 5}


def tiny_model(layers: int, seed: int = 3, dtype: torch.dtype = torch.float64) -> GracePotential:
    """Return a model of a few hundred weights, all of which matter: norm scales, shifts and output scale are set."""
    model = GracePotential.from_preset(
        {**TINY[layers], **COMMON},
        elements=ELEMENTS,
        cutoffs=CUTOFFS,
        seed=seed,
        dtype=dtype,
        average_neighbors=2.0,
        output_scale=1.7,
        shifts=[-1.0, 0.5, 2.0],
    )
    with torch.no_grad():
        for key, weight in model.weights.items():
            if key.endswith("_scale"):
                weight.copy_(torch.linspace(0.5, 1.5, len(weight)))
    return model


def five_atoms() -> Atoms:
    """Return a skewed periodic cell of five atoms and three elements, smaller than the cutoffs."""
    atoms = systems.triclinic(["O", "Si", "Fe"], n_atoms=5)
    atoms.symbols = ["O", "Si", "Fe", "O", "Fe"]
    return atoms


def three_structures() -> list[Atoms]:
    """Return the cell of five atoms, a free cluster and a slab: one structure with a volume, two without."""
    cluster = systems.cluster(("O", "Si", "Fe"), n_atoms=4)
    slab = systems.thin_slab(("O", "Si", "Fe"), n_atoms=6)
    return [five_atoms(), cluster, slab]


def batch_of(model: GracePotential, structures: list[Atoms]) -> AtomsBatch:
    return batch_from_atoms(structures, model.elements, model.pair_cutoffs)
