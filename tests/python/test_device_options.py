"""Options of a device evaluator that change how it works and not what it computes: chunks, order, energies only."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ase import Atoms

import systems
import tolerances as tol
from device_tools import DEVICE, IS_EMULATED
from evaluator_tools import SYMBOLS, CoreModel, tiny
from tolerances import assert_close

MODELS = ("tiny_1l_pairs", "tiny_2l")
KEYS = ("atomic_energies", "forces", "virial", "atom_virial", "centroid_virial")
N_ATOMS = 21
ORDERS = [f"emulated:{seed}" for seed in range(5)] if IS_EMULATED else [DEVICE]


def structure(name: str) -> Atoms:
    return systems.pack([SYMBOLS[name][k % 2] for k in range(N_ATOMS)], np.diag([6.0, 6.5, 7.0]), contact=0.5, seed=8)


def evaluator(name: str, **options: Any) -> CoreModel:
    return CoreModel(tiny(name), **{"device": DEVICE, **options})


@pytest.mark.parametrize("precision", ["fp64", "mixed"])
@pytest.mark.parametrize("name", MODELS)
def test_deterministic_sums_are_the_same_bits_for_every_chunk_and_order(name: str, precision: str) -> None:
    """One chunk keeps layer 1 of two, several evaluate it again: the bits are the same."""
    atoms = structure(name)
    runs = [
        evaluator(name, device=device, precision=precision, deterministic=True, chunk=chunk).compute(
            atoms, atom_virial=True
        )
        for device in ORDERS
        for chunk in (0, 1, 7, N_ATOMS)
    ]
    for run in runs[1:]:
        for key in KEYS:
            assert np.array_equal(run[key], runs[0][key]), key
    plain = evaluator(name, precision=precision).compute(atoms, atom_virial=True)
    size = np.abs(plain["forces"]).max()
    for key in KEYS:
        assert_close(runs[0][key], plain[key], (1e-9 if precision == "fp64" else tol.MIXED_FORCE_RELATIVE) * size)


@pytest.mark.parametrize("name", MODELS)
def test_chunks_change_the_order_of_sums_only(name: str) -> None:
    atoms = structure(name)
    expected = evaluator(name, device="cpu").compute(atoms, atom_virial=True)
    for chunk in (1, 2, 5, 13, N_ATOMS, 1000):
        found = evaluator(name, chunk=chunk).compute(atoms, atom_virial=True)
        for key in KEYS:
            assert_close(found[key], expected[key], 1e2 * tol.SUMMATION, what=f"chunks of {chunk} atoms, {key}")


@pytest.mark.parametrize("name", MODELS)
def test_energies_alone_launch_no_adjoint(name: str) -> None:
    atoms = structure(name)
    model = evaluator(name)

    def launched(**options: Any) -> tuple[dict[str, int], dict[str, Any]]:
        model.evaluator.start_profile()
        result = model.compute(atoms, **options)
        return {kernel: launches for kernel, launches, _ in model.evaluator.profile()}, result

    energies, alone = launched(forces=False)
    everything, full = launched()
    of_the_adjoint = set(everything) - set(energies)
    assert {"basis_adjoint", "product_adjoint", "scatter_forces"} <= of_the_adjoint
    assert ("message_adjoint" in of_the_adjoint) == (name == "tiny_2l")
    assert sum(energies.values()) < 0.7 * sum(everything.values())
    assert "forces" not in alone
    assert np.array_equal(alone["atomic_energies"], full["atomic_energies"])
    again, _ = launched(forces=False)
    assert again == energies


@pytest.mark.parametrize("name", MODELS)
def test_one_evaluator_for_energies_and_forces_in_turn(name: str) -> None:
    atoms = structure(name)
    expected = evaluator(name, device="cpu").compute(atoms)
    model = evaluator(name, chunk=8)
    for forces in (False, True, False, False, True):
        found = model.compute(atoms, forces=forces)
        for key in ("atomic_energies", "forces", "virial")[: 3 if forces else 1]:
            assert_close(found[key], expected[key], 1e2 * tol.SUMMATION, what=key)
