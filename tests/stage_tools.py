"""Compares stored tensors of an evaluator, and the gradients with respect to them, with the NumPy oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms

from evaluator_tools import CoreModel, tiny
from grace_md.reference import find_bonds, pair_cutoffs, reference_gradients
from grace_md.weights import element_names
from reference_data import load_reference
from tolerances import assert_close

MODELS = ("tiny_1l_order2", "tiny_1l", "tiny_1l_pairs", "tiny_2l", "lava9_1l", "2L_large_elemcut")


def arrays_of(name: str) -> dict[str, Any]:
    return tiny(name) if name.startswith("tiny") else load_reference(name).arrays


def oracle(name: str, atoms: Atoms) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    arrays = arrays_of(name)
    names = element_names(arrays)
    species = np.array([names.index(symbol) for symbol in atoms.symbols])
    _, values, gradients = reference_gradients(arrays, species, find_bonds(atoms, species, pair_cutoffs(arrays)))
    return values, gradients


def compare_stages(name: str, atoms: Atoms, relative: float, **options: Any) -> dict[str, tuple[Any, Any, Any]]:
    model = CoreModel(arrays_of(name), sorted(set(atoms.symbols)), radial="exact", **options)
    stages: dict[str, tuple[Any, Any, Any]] = model.compute(atoms, stages=True)["stages"]
    values, gradients = oracle(name, atoms)
    for tensor, (rows, value, gradient) in stages.items():
        for kind, actual, expected in (("value", value, values), ("gradient", gradient, gradients)):
            wanted = expected[tensor]
            assert len(rows) > 0
            largest = np.abs(wanted).max()
            assert largest > 0.0, f"{tensor}: the {kind} tests nothing"
            assert_close(actual, wanted[:, rows], relative * largest, what=f"{name} {tensor} {kind}")
    return stages
