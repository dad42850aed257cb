"""The NumPy oracle against the reference implementation, finite differences, scipy, and the symmetries of space."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.neighborlist import neighbor_list
from scipy.special import factorial, lpmv

import systems
import tolerances as tol
from grace_md.reference import (
    build_stages,
    find_bonds,
    pair_cutoffs,
    reference_energies,
    reference_evaluate,
    reference_gradients,
)
from grace_md.reference_formulas import chebyshev_basis, real_spherical_harmonics, silu, tanh
from grace_md.reference_stages import Geometry, System
from grace_md.weights import element_names
from reference_data import ReferenceSet, load_reference
from tolerances import assert_close

SYMBOLS = {"lava9_1l": ("O", "Si", "K", "Fe"), "2L_large_elemcut": ("O", "C", "Fe", "Cr")}


def small_cell(model: ReferenceSet) -> Atoms:
    return systems.triclinic(SYMBOLS[model.name], n_atoms=5)


def species_and_bonds(
    model: ReferenceSet, atoms: Atoms
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    names = element_names(model.arrays)
    species = np.array([names.index(symbol) for symbol in atoms.symbols])
    return species, find_bonds(atoms, species, pair_cutoffs(model.arrays))


# ------------------------------------------------------------------------ the reference implementation


def test_energies_forces_and_virials_of_the_reference_implementation(reference_set: ReferenceSet) -> None:
    for structure in reference_set.structures:
        what = f"{reference_set.name} {structure['name']}"
        result = reference_evaluate(reference_set.arrays, reference_set.atoms(structure))
        n_atoms = len(structure["symbols"])
        assert_close(result["energy"], structure["energy"], n_atoms * tol.ENERGY_PER_ATOM, what=what)
        if reference_set.name.endswith("_uq"):  # these files have energies only
            continue
        assert_close(result["atomic_energies"], structure["atomic_energies"], tol.ENERGY_PER_ATOM, what=what)
        assert_close(result["forces"], structure["forces"], tol.FORCE, tol.FORCE_RELATIVE, what=what)
        assert_close(result["virial"], structure["virial"], tol.VIRIAL, what=what)
        assert ("stress" in result) == ("stress" in structure) == all(structure["pbc"]), what
        if "stress" in structure:
            assert_close(result["stress"], structure["stress"], tol.STRESS, what=what)


def test_the_reference_results_are_not_trivial(bundled_set: ReferenceSet) -> None:
    largest = [np.abs(structure["forces"]).max() for structure in bundled_set.structures]
    assert np.count_nonzero(np.array(largest) > 0.1) >= 6


# ------------------------------------------------------------------------------------------- derivatives


def test_every_tensor_gradient_is_the_derivative_of_the_energy(bundled_set: ReferenceSet) -> None:
    """Perturb each tensor along a random direction and rerun only the stages behind it."""
    atoms = small_cell(bundled_set)
    species, (i, j, vectors) = species_and_bonds(bundled_set, atoms)
    arrays, rng = bundled_set.arrays, np.random.default_rng(1)
    system = System(species, i, j, pair_cutoffs(arrays)[species[i], species[j]])
    _, tensors, gradients = reference_gradients(arrays, species, (i, j, vectors))
    scale = float(np.squeeze(arrays.get("output_scale", 1.0)))

    stages, filled = build_stages(arrays), {"r": vectors}
    produced: dict[str, int] = {}
    for position, stage in enumerate(stages):
        stage.forward(filled, system)
        produced.update({name: position for name in filled if name not in produced and name != "r"})
    del produced["u"]  # Geometry makes Y of it within one stage; both are checked through r below
    assert len(produced) >= 11

    for name, position in produced.items():
        direction = rng.standard_normal(tensors[name].shape) * np.abs(tensors[name]).max()

        def energy(step: float, name: str = name, position: int = position, direction: np.ndarray = direction) -> float:
            perturbed = {**tensors, name: tensors[name] + step * direction}
            for stage in stages[position + 1 :]:
                stage.forward(perturbed, system)
            return scale * float(perturbed["e"].sum())

        # Fourth order, because the energy is a polynomial of up to the 16th degree of the basis and steep in it.
        h = 1e-4
        numerical = (8 * (energy(h) - energy(-h)) - (energy(2 * h) - energy(-2 * h))) / (12 * h)
        assert_close(np.sum(gradients[name] * direction), numerical, 0.0, tol.DIFFERENCE_FOURTH_ORDER, what=name)
        assert np.abs(numerical) > 1e-3, f"{name}: the direction tests nothing"


def test_bond_forces_are_derivatives_for_single_bonds(bundled_set: ReferenceSet) -> None:
    species, (i, j, vectors) = species_and_bonds(bundled_set, small_cell(bundled_set))
    gradient = reference_gradients(bundled_set.arrays, species, (i, j, vectors))[2]["r"]
    rng = np.random.default_rng(5)
    for bond in np.argsort(np.linalg.norm(vectors, axis=1))[[0, 3, 7, 20, 40]]:
        direction = np.zeros_like(vectors)
        direction[bond] = rng.standard_normal(3)
        plus, minus = (
            reference_energies(bundled_set.arrays, species, (i, j, vectors + h * direction)).sum()
            for h in (tol.STEP, -tol.STEP)
        )
        numerical, analytic = (plus - minus) / (2 * tol.STEP), gradient[bond] @ direction[bond]
        assert_close(analytic, numerical, tol.DIFFERENCE_FORCE, tol.DIFFERENCE_RELATIVE, what=f"bond {bond}")


def test_forces_are_derivatives_with_respect_to_positions(bundled_set: ReferenceSet) -> None:
    atoms = small_cell(bundled_set)
    forces = reference_evaluate(bundled_set.arrays, atoms)["forces"]
    assert np.abs(forces).max() > 0.1

    def energy(displacement: np.ndarray) -> float:
        moved = atoms.copy()
        moved.positions += displacement
        return reference_evaluate(bundled_set.arrays, moved)["energy"]

    along = forces / np.linalg.norm(forces)  # one difference tests all components
    numerical = -(energy(tol.STEP * along) - energy(-tol.STEP * along)) / (2 * tol.STEP)
    assert_close(numerical, np.linalg.norm(forces), tol.DIFFERENCE_FORCE, tol.DIFFERENCE_RELATIVE)
    for atom in (0, 3):
        for axis in range(3):
            step = np.zeros((len(atoms), 3))
            step[atom, axis] = tol.STEP
            numerical = -(energy(step) - energy(-step)) / (2 * tol.STEP)
            assert_close(forces[atom, axis], numerical, tol.DIFFERENCE_FORCE, tol.DIFFERENCE_RELATIVE)


def test_virial_is_the_derivative_with_respect_to_strain(bundled_set: ReferenceSet) -> None:
    atoms = small_cell(bundled_set)
    result = reference_evaluate(bundled_set.arrays, atoms)
    for k, (a, b) in enumerate([(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)]):
        energies = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[a, b] += sign * tol.STRAIN_STEP
            strained = atoms.copy()
            strained.set_cell(atoms.cell.array @ strain.T, scale_atoms=False)
            strained.positions = atoms.positions @ strain.T
            energies.append(reference_evaluate(bundled_set.arrays, strained)["energy"])
        numerical = -(energies[0] - energies[1]) / (2 * tol.STRAIN_STEP)
        assert_close(result["virial"][k], numerical, tol.DIFFERENCE_VIRIAL, tol.DIFFERENCE_RELATIVE, what=f"{a}{b}")
    assert_close(result["stress"], -result["virial"][[0, 1, 2, 5, 4, 3]] / atoms.get_volume(), 1e-14)


def test_gradients_of_single_atoms_add_up(bundled_set: ReferenceSet) -> None:
    species, bonds = species_and_bonds(bundled_set, small_cell(bundled_set))
    parts = [reference_gradients(bundled_set.arrays, species, bonds, one)[2]["r"] for one in np.eye(len(species))]
    total = reference_gradients(bundled_set.arrays, species, bonds)[2]["r"]
    assert_close(np.sum(parts, axis=0), total, tol.INVARIANCE_FORCE)
    if len(bundled_set.arrays["element_names"]) == 9:  # one layer: an atom's energy depends on its own bonds only
        assert not np.any(parts[0][bonds[0] != 0])


# ---------------------------------------------------------------------------------------------- formulas


def test_harmonics_agree_with_scipy() -> None:
    rng = np.random.default_rng(2)
    u = rng.standard_normal((40, 3))
    u /= np.linalg.norm(u, axis=1)[:, None]
    value, _ = real_spherical_harmonics(u, 6)
    phi = np.arctan2(u[:, 1], u[:, 0])
    for degree in range(7):
        for m in range(-degree, degree + 1):
            k = abs(m)
            size = np.sqrt((2 * degree + 1) * factorial(degree - k) / factorial(degree + k)) * (-1.0) ** k
            angular = 1.0 if m == 0 else np.sqrt(2) * (np.cos(k * phi) if m > 0 else np.sin(k * phi))
            expected = size * lpmv(k, degree, u[:, 2]) * angular
            assert_close(value[:, degree**2 + degree + m], expected, tol.HARMONICS, what=f"l={degree} m={m}")


def test_harmonics_of_degree_one_and_two_as_written() -> None:
    x, y, z = u = np.array([0.3, -0.5, 0.7])  # not a unit vector: polynomials as they are
    value, _ = real_spherical_harmonics(u[None], 2)
    expected = [np.sqrt(3) * y, np.sqrt(3) * z, np.sqrt(3) * x, np.sqrt(15) * x * y, np.sqrt(15) * y * z]
    assert_close(value[0, 1:6], expected, tol.HARMONICS)
    assert_close(value[0, 7:9], [np.sqrt(15) * x * z, np.sqrt(15) / 2 * (x * x - y * y)], tol.HARMONICS)
    assert_close(value[0, [0, 6]], [1.0, np.sqrt(5) / 2 * (3 * z * z - 1)], tol.HARMONICS)


def test_harmonics_gradient() -> None:
    u = np.random.default_rng(3).standard_normal((10, 3))
    _, gradient = real_spherical_harmonics(u, 5)
    for axis in range(3):
        step = np.eye(3)[axis] * 1e-5
        numerical = (real_spherical_harmonics(u + step, 5)[0] - real_spherical_harmonics(u - step, 5)[0]) / 2e-5
        assert_close(gradient[:, :, axis], numerical, 1e-6, 1e-7)


@pytest.mark.parametrize("order", [5, 16])
def test_radial_basis_is_chebyshev_times_envelope(order: int) -> None:
    rc = 6.0
    d = np.linspace(0.4, 5.99, 60)
    keep = d < rc
    value, slope = chebyshev_basis(d, np.full_like(d, rc), 8, order, keep)
    s, p = d / rc, order
    envelope = 1 - (p + 1) * (p + 2) / 2 * s**p + p * (p + 2) * s ** (p + 1) - p * (p + 1) / 2 * s ** (p + 2)
    for k in range(1, 9):
        expected = np.polynomial.chebyshev.chebval(2 * s - 1, np.eye(9)[k]) * envelope
        assert_close(value[:, k - 1], expected, 1e-13, what=f"T_{k}")
    plus, minus = (chebyshev_basis(d + h, np.full_like(d, rc), 8, order, keep)[0] for h in (1e-6, -1e-6))
    assert_close(slope, (plus - minus) / 2e-6, 1e-7)
    outside, flat = chebyshev_basis(np.array([6.5]), np.array([rc]), 8, order, np.array([False]))
    assert not outside.any()
    assert not flat.any()


@pytest.mark.parametrize("function", [silu, tanh])
def test_activations(function: Any) -> None:
    x = np.array([-800.0, -3.0, -0.1, 0.0, 0.7, 4.0, 800.0])
    value, slope = function(x)
    exact = np.tanh(x) if function is tanh else x * np.exp(-np.logaddexp(0.0, -x))
    assert_close(value, exact, 1e-14)
    assert_close(slope, (function(x + 1e-5)[0] - function(x - 1e-5)[0]) / 2e-5, 1e-9, 1e-7)


def test_coinciding_atoms_stay_finite() -> None:
    """The constant under the root keeps d = 1e-5 A for a vanishing bond."""
    system = System(np.array([0, 0]), np.array([0]), np.array([1]), np.array([6.0]))
    tensors = {"r": np.zeros((1, 3))}
    Geometry(2).forward(tensors, system)
    assert_close(tensors["d"], [1e-5], 1e-18)
    assert_close(tensors["Y"][0, :4], [1.0, 0.0, 0.0, 0.0], 0.0)


# -------------------------------------------------------------------------------------------------- bonds


@pytest.mark.parametrize(
    "atoms",
    [
        systems.primitive(),
        systems.triclinic(),
        systems.thin_slab(),
        systems.cluster(),
        systems.dimer(),
        systems.isolated(),
    ],
    ids=["primitive", "triclinic", "slab", "cluster", "dimer", "isolated"],
)
def test_bonds_agree_with_ase(atoms: Atoms) -> None:
    model = load_reference("lava9_1l")
    species, (i, j, vectors) = species_and_bonds(model, atoms)
    cutoffs = pair_cutoffs(model.arrays)
    ai, aj, av = neighbor_list("ijD", atoms, float(cutoffs.max()))
    inside = np.linalg.norm(av, axis=1) < cutoffs[species[ai], species[aj]]
    ours = np.column_stack([i, j, np.round(vectors, 6) + 0.0])  # + 0.0: no negative zeros
    theirs = np.column_stack([ai, aj, np.round(av, 6) + 0.0])[inside]
    assert ours.shape == theirs.shape
    assert_close(ours[np.lexsort(ours.T[::-1])], theirs[np.lexsort(theirs.T[::-1])], 2e-6)
    assert np.all(i != j) or np.linalg.norm(vectors[i == j], axis=1).min() > 1.0  # no atom is its own neighbour


# --------------------------------------------------------------------------------------------- symmetries


def random_orthogonal(seed: int, determinant: int) -> np.ndarray:
    q, r = np.linalg.qr(np.random.default_rng(seed).standard_normal((3, 3)))
    q *= np.sign(np.diag(r))
    return q if np.sign(np.linalg.det(q)) == determinant else -q


@pytest.mark.parametrize("determinant", [1, -1], ids=["rotation", "improper"])
def test_rotation(bundled_set: ReferenceSet, determinant: int) -> None:
    atoms = small_cell(bundled_set)
    before = reference_evaluate(bundled_set.arrays, atoms)
    q = random_orthogonal(4, determinant)
    turned = atoms.copy()
    turned.set_cell(atoms.cell.array @ q.T, scale_atoms=False)
    turned.positions = atoms.positions @ q.T
    after = reference_evaluate(bundled_set.arrays, turned)
    assert np.abs(after["forces"] - before["forces"]).max() > 0.1, "the rotation did nothing"
    assert_close(after["atomic_energies"], before["atomic_energies"], tol.INVARIANCE_ENERGY)
    assert_close(after["forces"], before["forces"] @ q.T, tol.INVARIANCE_FORCE)


def test_translation_and_wrapping(bundled_set: ReferenceSet) -> None:
    atoms = small_cell(bundled_set)
    before = reference_evaluate(bundled_set.arrays, atoms)
    moved = atoms.copy()
    moved.positions += [0.37, -1.21, 2.9]
    moved.wrap()
    assert np.abs(moved.positions - atoms.positions).max() > 3.0, "nothing was wrapped"
    after = reference_evaluate(bundled_set.arrays, moved)
    assert_close(after["atomic_energies"], before["atomic_energies"], tol.INVARIANCE_ENERGY)
    assert_close(after["forces"], before["forces"], tol.INVARIANCE_FORCE)
    assert_close(before["forces"].sum(axis=0), np.zeros(3), tol.INVARIANCE_FORCE)


def test_permutation(bundled_set: ReferenceSet) -> None:
    atoms = small_cell(bundled_set)
    order = np.random.default_rng(6).permutation(len(atoms))
    assert list(order) != list(range(len(atoms)))
    assert list(atoms.symbols[order]) != list(atoms.symbols)
    before, after = (reference_evaluate(bundled_set.arrays, a) for a in (atoms, atoms[order]))
    assert_close(after["atomic_energies"], before["atomic_energies"][order], tol.INVARIANCE_ENERGY)
    assert_close(after["forces"], before["forces"][order], tol.INVARIANCE_FORCE)


def test_supercell_is_additive(bundled_set: ReferenceSet) -> None:
    atoms = small_cell(bundled_set)
    single, double = (reference_evaluate(bundled_set.arrays, a) for a in (atoms, atoms.repeat((2, 1, 1))))
    assert_close(double["atomic_energies"], np.tile(single["atomic_energies"], 2), tol.INVARIANCE_ENERGY)
    assert_close(double["stress"], single["stress"], tol.STRESS)


def test_isolated_atom_has_its_shift(bundled_set: ReferenceSet) -> None:
    symbol = SYMBOLS[bundled_set.name][0]
    result = reference_evaluate(bundled_set.arrays, systems.isolated(symbol))
    index = element_names(bundled_set.arrays).index(symbol)
    shift = bundled_set.arrays["shift_values"][index] if "shift_values" in bundled_set.arrays else 0.0
    assert_close(result["energy"], shift, 0.0)
    assert_close(result["forces"], np.zeros((1, 3)), 0.0)


# ------------------------------------------------------------------------------------------------- errors


def test_unknown_element_is_named() -> None:
    with pytest.raises(ValueError, match="does not know Xe; it knows Al, Ca, Fe"):
        reference_evaluate(load_reference("lava9_1l").arrays, Atoms("Xe"))


def test_three_layers_are_refused() -> None:
    arrays = {**load_reference("lava9_1l").arrays, "spbf_names": np.array([b"A1"])}
    with pytest.raises(ValueError, match="three-layer"):
        build_stages(arrays)
