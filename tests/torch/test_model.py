"""Energies, forces and stresses of torch models: reference results, the C++ core, differences, precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms

import tolerances as tol
from grace_md import GraceCalculator, GraceModel
from grace_md.torch import AtomsBatch, GracePotential, batch_from_atoms
from reference_data import ReferenceSet
from tolerances import assert_close
from torch_models import batch_of, five_atoms, three_structures, tiny_model

BACKENDS = ("torch", "core")
LARGEST_FOR_TORCH = 16  # atoms: the plain formulas are slow


@pytest.mark.parametrize("backend", BACKENDS)
def test_reference_results(reference_set: ReferenceSet, backend: str) -> None:
    model = GracePotential.from_arrays(reference_set.arrays)
    model.backend = backend
    structures = [
        structure
        for structure in reference_set.structures
        if backend == "core" or len(structure["symbols"]) <= LARGEST_FOR_TORCH
    ]
    batch = batch_of(model, [reference_set.atoms(structure) for structure in structures])
    with_forces = "forces" in structures[0]
    output = model(batch, forces=with_forces, stress=with_forces)
    first = 0
    for k, structure in enumerate(structures):
        what, n = f"{reference_set.name} {structure['name']}", len(structure["symbols"])
        atoms, first = slice(first, first + n), first + n
        assert_close(output.energy[k].detach(), structure["energy"], n * tol.ENERGY_PER_ATOM, what=what)
        if with_forces:
            assert_close(output.atomic_energies[atoms], structure["atomic_energies"], tol.ATOMIC_ENERGY, what=what)
            assert_close(output.forces[atoms], structure["forces"], tol.FORCE, tol.FORCE_RELATIVE, what=what)
            if "stress" in structure:
                assert_close(output.stress[k], structure["stress"], tol.STRESS, what=what)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layers", [1, 2])
def test_the_core_gives_the_same(layers: int, backend: str) -> None:
    model = tiny_model(layers)
    model.backend = backend
    structures = three_structures()
    output = model(batch_of(model, structures))
    calculator = GraceCalculator(GraceModel(model.arrays(), "tiny"), radial="exact", threads=1)
    first = 0
    for k, (atoms, result) in enumerate(zip(structures, calculator.evaluate(structures), strict=True)):
        rows, first = slice(first, first + len(atoms)), first + len(atoms)
        assert_close(output.energy[k], result["energy"], len(atoms) * tol.ENERGY_PER_ATOM)
        assert_close(output.forces[rows], result["forces"], tol.TORCH_FORCE)
        if atoms.pbc.all():
            assert_close(output.stress[k], result["stress"], tol.STRESS)
            assert np.abs(result["stress"]).max() > 1e-3
        else:
            assert torch.isnan(output.stress[k]).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layers", [1, 2])
def test_forces_and_stress_are_differences_of_energies(layers: int, backend: str) -> None:
    model, atoms = tiny_model(layers), five_atoms()
    model.backend = backend

    def energy(moved: Atoms) -> float:
        return float(model(batch_of(model, [moved]), forces=False, stress=False).energy.detach())

    output = model(batch_of(model, [atoms]))
    for atom in (0, 3):
        for axis in range(3):
            step = np.zeros((len(atoms), 3))
            step[atom, axis] = tol.STEP
            plus, minus = (energy(Atoms(atoms, positions=atoms.positions + sign * step)) for sign in (1, -1))
            numerical = -(plus - minus) / (2 * tol.STEP)
            assert_close(output.forces[atom, axis], numerical, tol.DIFFERENCE_FORCE, tol.DIFFERENCE_RELATIVE)
    volume = atoms.get_volume()
    for k, (a, b) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):
        energies = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[a, b] += sign * tol.STRAIN_STEP
            strained = atoms.copy()
            strained.set_cell(atoms.cell.array @ strain.T)
            strained.positions = atoms.positions @ strain.T
            energies.append(energy(strained))
        numerical = (energies[0] - energies[1]) / (2 * tol.STRAIN_STEP)
        assert_close(output.stress[0, k] * volume, numerical, tol.DIFFERENCE_VIRIAL, tol.DIFFERENCE_RELATIVE)


@pytest.mark.parametrize("layers", [1, 2])
def test_batches_are_sums_of_their_structures(layers: int) -> None:
    model, structures = tiny_model(layers), three_structures()
    together = model(batch_of(model, structures))
    alone = [model(batch_of(model, [atoms])) for atoms in structures]
    assert_close(together.energy, torch.cat([output.energy for output in alone]), tol.INVARIANCE_ENERGY)
    assert_close(together.forces, torch.cat([output.forces for output in alone]), tol.INVARIANCE_FORCE)
    assert_close(together.energy[0], together.atomic_energies[:5].sum(), tol.INVARIANCE_ENERGY)
    assert_close(together.forces.sum(0), np.zeros(3), tol.INVARIANCE_FORCE)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_isolated_atom_has_the_energy_of_its_shift(backend: str) -> None:
    for layers in (1, 2):
        model = tiny_model(layers)
        model.backend = backend
        output = model(batch_of(model, [Atoms("Fe")]))
        assert_close(output.energy, [2.0], 0.0)
        assert_close(output.forces, np.zeros((1, 3)), 0.0)


def test_lists_that_are_not_symmetric_are_evaluated_bond_by_bond() -> None:
    """A list with one bond less than pairs need, as from cutoffs that depend on the centre."""
    model = tiny_model(2)
    batch = batch_of(model, [five_atoms()])
    rows = torch.arange(batch.n_bonds) != 7
    first = batch.first_bond.clone()
    first[int(batch.center[7]) + 1 :] -= 1
    shorter = AtomsBatch(
        batch.positions,
        batch.species,
        batch.cells,
        batch.structure,
        batch.center[rows],
        batch.neighbor[rows],
        batch.shift[rows],
        first,
    )
    outputs = []
    for backend in BACKENDS:
        model.backend = backend
        outputs.append(model(shorter))
    assert_close(outputs[0].forces, outputs[1].forces, tol.TORCH_FORCE)
    assert_close(outputs[0].stress, outputs[1].stress, tol.STRESS)
    assert (outputs[0].forces - model(batch).forces).abs().max() > 1e-3


@pytest.mark.parametrize("backend", BACKENDS)
def test_single_precision_weights(bundled_set: ReferenceSet, backend: str) -> None:
    """Geometry, sums and results stay double; errors are those of a float network."""
    structures = [s for s in bundled_set.structures if len(s["symbols"]) <= LARGEST_FOR_TORCH]
    model = GracePotential.from_arrays(bundled_set.arrays, dtype=torch.float32)
    model.backend = backend
    output = model(batch_of(model, [bundled_set.atoms(s) for s in structures]))
    assert output.energy.dtype == output.forces.dtype == output.stress.dtype == torch.float64
    forces = np.concatenate([s["forces"] for s in structures])
    energies = np.array([s["energy"] for s in structures])
    n_atoms = np.array([len(s["symbols"]) for s in structures])
    assert_close(output.energy.numpy() / n_atoms, energies / n_atoms, tol.MIXED_ENERGY_PER_ATOM)
    assert_close(output.forces, forces, tol.MIXED_FORCE_RELATIVE * np.abs(forces).max())
    assert np.abs(output.forces.numpy() - forces).max() > 1e-9, "the network was not in single precision"


def test_gradients_are_kept_only_when_asked_for() -> None:
    model = tiny_model(1)
    batch = batch_of(model, [five_atoms()])
    assert not model(batch).forces.requires_grad
    assert not model(batch).energy.requires_grad
    assert model(batch, create_graph=True).forces.requires_grad
    assert model(batch, forces=False, stress=False).energy.requires_grad
    with torch.no_grad():
        assert model(batch).forces is not None
        assert not model(batch, forces=False, stress=False).energy.requires_grad
    assert model(batch, forces=True, stress=False).stress is None
    assert model(batch, forces=False, stress=True).forces is None


def test_errors_name_what_is_wrong() -> None:
    model = tiny_model(1)
    with pytest.raises(ValueError, match=r"has Xe, unknown to the model; it knows O, Si, Fe"):
        batch_from_atoms([Atoms("Xe")], model.elements, model.pair_cutoffs)
    with pytest.raises(ValueError, match="`structures` is empty"):
        batch_from_atoms([], model.elements, model.pair_cutoffs)
    model.backend = "fast"
    with pytest.raises(ValueError, match="`backend` = 'fast' is unknown"):
        model(batch_of(model, [five_atoms()]))
    with pytest.raises(ValueError, match=r"`dtype` = torch.float16"):
        GracePotential.from_arrays(model.arrays(), dtype=torch.float16)
    arrays = model.arrays()
    del arrays["rho_reduce_A_norm"]
    with pytest.raises(ValueError, match="array `rho_reduce_A_norm` is missing"):
        GracePotential.from_arrays(arrays)
    with pytest.raises(ValueError, match="three-layer"):
        GracePotential.from_arrays({**model.arrays(), "spbf_names": np.array([b"A1"])})
