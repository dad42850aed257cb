"""The same bits in every run: sums in fixed point for any chunks, everything but forces without them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ase import Atoms

import systems
from device_tools import DEVICE, IS_EMULATED
from evaluator_tools import SYMBOLS, CoreModel, tiny
from grace_md._core import SnapKernel
from snap_tools import random_structures

MODELS = ("tiny_1l_pairs", "tiny_2l")
RUNS = 20
CHUNKS = (7, 16)
ALL = ("atomic_energies", "forces", "virial", "atom_virial", "centroid_virial")


def cell(name: str) -> Atoms:
    return systems.triclinic(SYMBOLS[name], n_atoms=9) * ((1, 1, 2) if IS_EMULATED else (3, 3, 4))


def device(run: int) -> str:
    """Every run of the emulated device has another order of blocks and threads."""
    return f"emulated:{run}" if IS_EMULATED else DEVICE


def compute(model: CoreModel, atoms: Atoms) -> dict[str, Any]:
    return model.compute(atoms, atom_virial=True)


def assert_same_bits(result: dict[str, Any], first: dict[str, Any], what: str, names: tuple[str, ...] = ALL) -> None:
    for name in names:
        assert np.array_equal(result[name], first[name]), f"{what}: {name}"


@pytest.mark.parametrize("precision", ["fp64", "mixed"])
@pytest.mark.parametrize("name", MODELS)
def test_fixed_point_sums(name: str, precision: str) -> None:
    """Chunks in turn, and evaluators that live on, so that recorded work is replayed on a GPU."""
    atoms = cell(name)

    def model(run: int) -> CoreModel:
        options = {"precision": precision, "chunk": CHUNKS[run % len(CHUNKS)], "deterministic": True}
        return CoreModel(tiny(name), device=device(run), **options)

    kept = [model(run) for run in range(len(CHUNKS))]
    first = compute(kept[0], atoms)
    assert np.abs(first["forces"]).max() > 0.0
    for run in range(RUNS):
        what = f"run {run}, chunks of {CHUNKS[run % len(CHUNKS)]}"
        assert_same_bits(compute(model(run) if run % 4 > 1 else kept[run % len(CHUNKS)], atoms), first, what)


@pytest.mark.parametrize("name", MODELS)
def test_energies_are_always_deterministic(name: str) -> None:
    """No sum of the forward pass is left to the order of atomic operations."""
    atoms = cell(name)
    first = compute(CoreModel(tiny(name), device=device(0)), atoms)
    for run in range(1, RUNS):
        result = compute(CoreModel(tiny(name), device=device(run)), atoms)
        assert_same_bits(result, first, f"run {run}", ("atomic_energies",))


def test_descriptors_and_their_gradients() -> None:
    """The same bits in every run, for new and used kernels, alone and in company."""
    structures = random_structures(8 if IS_EMULATED else 200, seed=11)

    def compute(kernel: SnapKernel, count: int) -> tuple[Any, Any, Any]:
        chosen = structures[:count]
        first = np.concatenate([[0], np.cumsum([len(x) for x, _, _ in chosen])])
        cells = np.array([cell for _, cell, _ in chosen])
        positions, cutoffs = (np.concatenate([s[k] for s in chosen]) for k in (0, 2))
        values = kernel.descriptors(positions, cells, np.ones((count, 3), bool), first, cutoffs)
        return (values, *kernel.gradients(np.sin(np.arange(values.size)).reshape(values.shape)))

    count = len(structures)
    kept = SnapKernel(device=device(0))
    first = compute(kept, count)
    assert all(np.abs(result).max() > 0.0 for result in first)
    for run in range(1, RUNS):
        kernel = SnapKernel(device=device(run)) if run % 4 > 1 else kept
        part = compute(kernel, 1 + run % count)
        assert all(np.array_equal(result, whole[: len(result)]) for result, whole in zip(part, first, strict=True))
        assert all(np.array_equal(a, b) for a, b in zip(compute(kernel, count), first, strict=True)), f"run {run}"
