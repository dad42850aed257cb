"""`GraceCalculator` as an ASE calculator: properties, derivatives, batches, cached lists, relaxation, additivity."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import PropertyNotImplementedError
from ase.filters import FrechetCellFilter
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS, FIRE

import systems
import tolerances as tol
from evaluator_tools import SYMBOLS, small_cell, thermal_momenta, tiny
from grace_md import GraceCalculator, GraceModel
from reference_data import LAVA, load_reference
from tolerances import assert_close

MODELS = ("lava9_1l", "2L_large_elemcut", "tiny_2l")


def calculator(name: str = "lava9_1l", **options: Any) -> GraceCalculator:
    model: Any = LAVA
    if name != "lava9_1l":
        model = GraceModel(tiny(name) if name.startswith("tiny") else load_reference(name).arrays)
    return GraceCalculator(model, **{"threads": 1, **options})


def with_calculator(atoms: Atoms, calc: GraceCalculator) -> Atoms:
    out = atoms.copy()
    out.calc = calc
    return out


# -------------------------------------------------------------------------------------------- properties


@pytest.mark.parametrize("name", MODELS)
def test_properties_are_consistent(name: str) -> None:
    atoms = with_calculator(small_cell(name), calculator(name))
    n_atoms, size = len(atoms), max(1.0, np.abs(atoms.get_forces()).max())
    energies, stresses = atoms.get_potential_energies(), atoms.get_stresses()
    assert energies.shape == (n_atoms,)
    assert stresses.shape == (n_atoms, 6)
    assert_close(energies.sum(), atoms.get_potential_energy(), tol.INVARIANCE_ENERGY * size)
    assert_close(atoms.get_potential_energy(force_consistent=True), atoms.get_potential_energy(), 0.0)
    assert_close(stresses.sum(axis=0), atoms.get_stress(), tol.SUMMATION * size)
    assert_close(atoms.get_forces().sum(axis=0), np.zeros(3), tol.INVARIANCE_ENERGY * size)
    assert np.abs(atoms.get_forces()).max() > 0.1
    # the order of requests must not matter
    fresh = with_calculator(small_cell(name), calculator(name))
    assert np.array_equal(fresh.get_stresses(), stresses)
    assert np.array_equal(fresh.get_forces(), atoms.get_forces())


@pytest.mark.parametrize("name", MODELS)
def test_stress_is_the_derivative_with_respect_to_strain(name: str) -> None:
    atoms = with_calculator(small_cell(name), calculator(name))
    stress, volume, h = atoms.get_stress(), atoms.get_volume(), tol.STRAIN_FIVE

    def energy(a: int, b: int, step: float) -> float:
        strain = np.eye(3)
        strain[a, b] += 0.5 * step
        strain[b, a] += 0.5 * step
        strained = with_calculator(atoms, atoms.calc)
        strained.set_cell(atoms.cell.array @ strain, scale_atoms=True)
        return float(strained.get_potential_energy())

    for k, (a, b) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):
        near, far = energy(a, b, h) - energy(a, b, -h), energy(a, b, 2 * h) - energy(a, b, -2 * h)
        numerical = (8.0 * near - far) / (12.0 * h) / volume
        assert_close(stress[k], numerical, tol.DIFFERENCE_STRESS, 10 * tol.DIFFERENCE_STRESS, what=f"{a}{b}")


def test_structures_without_volume_have_no_stress() -> None:
    atoms = with_calculator(systems.cluster(), calculator())
    assert np.isfinite(atoms.get_potential_energy())
    with pytest.raises(PropertyNotImplementedError, match="volume"):
        atoms.get_stress()
    with pytest.raises(PropertyNotImplementedError, match="volume"):
        atoms.get_stresses()
    assert "stress" not in calculator().evaluate([systems.cluster()])[0]
    boxed = systems.cluster()
    boxed.set_cell(np.eye(3) * 20.0)  # a cell with a volume has a stress even without periodic images
    assert np.all(np.isfinite(with_calculator(boxed, calculator()).get_stress()))


def test_empty_structure() -> None:
    atoms = with_calculator(Atoms(), calculator())
    assert atoms.get_potential_energy() == 0.0
    assert atoms.get_forces().shape == (0, 3)


# ------------------------------------------------------------------------------------ batches and caches


@pytest.mark.parametrize("name", ["lava9_1l", "tiny_2l"])
def test_a_batch_equals_single_calls(name: str) -> None:
    symbols = SYMBOLS[name]
    structures = [
        small_cell(name),
        Atoms(),
        systems.thin_slab(symbols, n_atoms=30),
        systems.isolated(symbols[0]),
        systems.cluster(symbols, n_atoms=8),
        systems.primitive("Fe"),
        Atoms(symbols[:1], positions=[[9.0, 0.0, 0.0]], cell=[3.0, 0.0, 0.0], pbc=[True, False, False]),
    ]
    calc = calculator(name)
    batch = calc.evaluate(structures)
    assert calc.evaluate([]) == []
    assert len(batch) == len(structures)
    for atoms, results in zip(structures, batch, strict=True):
        single = calculator(name)
        single.calculate(atoms, ["energy", "forces"])
        size = max(1.0, np.abs(single.results["forces"]).max(initial=0.0))
        for key in ("energy", "free_energy", "energies", "forces"):
            assert_close(results[key], single.results[key], 10 * tol.SUMMATION * size, what=key)
        assert ("stress" in results) == (atoms.cell.rank == 3)
        if "stress" in results:
            single.calculate(atoms, ["stress", "stresses"])
            assert_close(results["stress"], single.results["stress"], 10 * tol.SUMMATION * size)
            assert_close(results["stresses"], single.results["stresses"], 10 * tol.SUMMATION * size)


@pytest.mark.parametrize(("name", "temperature"), [("lava9_1l", 3000.0), ("tiny_2l", 300.0)])
def test_the_cached_list_gives_the_results_of_a_new_one(name: str, temperature: float) -> None:
    """Along a trajectory that crosses the boundaries of the cell and uses up the skin several times."""
    atoms = systems.lava(40) if name == "lava9_1l" else systems.bcc(SYMBOLS[name], repeat=2, lattice=3.3, rattle=0.1)
    atoms.calc = calculator(name, skin=0.3)
    atoms.set_momenta(thermal_momenta(atoms, temperature))
    md = VelocityVerlet(atoms, timestep=1.0 * units.fs)
    for _ in range(12):
        md.run(3)
        fresh = with_calculator(atoms, calculator(name, skin=0.0))
        size = max(1.0, np.abs(fresh.get_forces()).max())
        assert_close(atoms.get_potential_energies(), fresh.get_potential_energies(), 10 * tol.SUMMATION * size)
        assert_close(atoms.get_forces(), fresh.get_forces(), 10 * tol.SUMMATION * size)
    lists = atoms.calc._lists
    assert lists is not None
    assert 1 < lists.n_builds < lists.n_updates, "the skin was not put to the test"


def test_wrapping_and_new_cells_between_calls() -> None:
    atoms = with_calculator(systems.triclinic(), calculator())
    before = atoms.get_forces().copy()
    atoms.wrap()
    assert_close(atoms.get_forces(), before, 10 * tol.SUMMATION * np.abs(before).max())
    atoms.set_cell(atoms.cell.array * 1.05, scale_atoms=True)
    assert_close(atoms.get_forces(), with_calculator(atoms, calculator()).get_forces(), tol.INVARIANCE_FORCE)


def test_elements_that_appear_later() -> None:
    calc = calculator()
    first = with_calculator(systems.dimer(("Si", "O")), calc)
    before = first.get_forces().copy()
    assert "energy" in calc.evaluate([systems.triclinic(("K", "Ti", "Fe"), n_atoms=8)])[0]
    first.positions[1] += 0.01
    first.get_forces()
    first.positions[1] -= 0.01
    assert_close(first.get_forces(), before, 10 * tol.SUMMATION * np.abs(before).max())
    mixed = systems.triclinic(("O", "Mg", "Na", "K"), n_atoms=10)
    expected = with_calculator(mixed, calculator()).get_forces()
    assert_close(with_calculator(mixed, calc).get_forces(), expected, 10 * tol.SUMMATION * np.abs(expected).max())


def test_a_calculator_shared_by_two_structures() -> None:
    calc = calculator()
    one, two = with_calculator(systems.triclinic(), calc), with_calculator(systems.thin_slab(), calc)
    expected = [with_calculator(a, calculator()).get_forces() for a in (one, two)]
    for _ in range(2):
        for atoms, forces in zip((one, two), expected, strict=True):
            assert_close(atoms.get_forces(), forces, 10 * tol.SUMMATION * np.abs(forces).max())
    copied = with_calculator(one, calc)
    copied.positions[0] += 0.1
    assert np.abs(copied.get_forces() - one.get_forces()).max() > 1e-3


# --------------------------------------------------------------------------------------- relaxations


@pytest.mark.parametrize("optimizer", [BFGS, FIRE])
def test_relaxation_of_a_crystal(optimizer: Any) -> None:
    atoms = with_calculator(bulk("MgO", "rocksalt", a=4.35, cubic=True), calculator())
    atoms.rattle(0.03, seed=2)
    start = atoms.get_potential_energy()
    assert optimizer(FrechetCellFilter(atoms), logfile=None).run(fmax=0.001, steps=400)
    assert atoms.get_potential_energy() < start - 0.01
    assert np.abs(atoms.get_stress()).max() < 1.5e-4  # fmax times the number of atoms over the volume
    lengths = atoms.cell.lengths()
    assert np.all(np.abs(lengths - lengths.mean()) < 0.02)
    assert 4.0 < lengths.mean() < 4.5


# ----------------------------------------------------------------------------- additivity and smoothness


@pytest.mark.parametrize("name", MODELS)
def test_supercells_are_additive(name: str) -> None:
    atoms = small_cell(name)
    calc = calculator(name)
    small, large = calc.evaluate([atoms, atoms.repeat((2, 1, 3))])
    size = max(1.0, np.abs(small["forces"]).max())
    assert_close(large["energies"], np.tile(small["energies"], 6), tol.INVARIANCE_ENERGY * size)
    assert_close(large["forces"], np.tile(small["forces"], (6, 1)), tol.INVARIANCE_FORCE * size)
    assert_close(large["stress"], small["stress"], tol.STRESS * size)


@pytest.mark.parametrize("name", MODELS)
def test_distant_parts_do_not_see_each_other(name: str) -> None:
    part = systems.cluster(SYMBOLS[name], n_atoms=8)
    other = part.copy()
    other.rotate(40.0, (1.0, 2.0, 3.0))
    calc = calculator(name)
    reach = 2.0 * calc.model.n_layers * calc.model.spec.max_cutoff
    other.positions += [reach + 20.0, 0.0, 0.0]
    alone, turned, both = calc.evaluate([part, other, part + other])
    size = max(1.0, np.abs(alone["forces"]).max())
    for key in ("energies", "forces"):
        assert_close(both[key], np.concatenate([alone[key], turned[key]]), 10 * tol.SUMMATION * size)


@pytest.mark.parametrize("pair", [("Si", "Si"), ("Si", "K"), ("K", "K")], ids="-".join)
@pytest.mark.parametrize("radial", ["table", "exact"])
def test_energy_and_forces_are_smooth_across_each_pair_cutoff(pair: tuple[str, str], radial: str) -> None:
    """An atom crosses the cutoff of its partner inside a cluster, other cutoffs being elsewhere (5.5 to 7 A).

    The envelope vanishes like (1 - x)^3, so the force of the crossing bond grows like the square of the depth.
    """
    calc = calculator(radial=radial)
    elements = calc.model.elements
    a, b = pair
    cutoff = float(calc.model.pair_cutoffs[elements.index(a), elements.index(b)])
    direction = np.array([0.48, 0.6, 0.64])

    def at(depth: float) -> dict[str, Any]:
        center = [[0.0, 0.0, 0.0], [-1.5, 0.3, 0.2], [0.2, -1.6, 0.4]]
        atoms = Atoms([a, "O", "O", b], positions=[*center, (cutoff - depth) * direction])
        atoms.positions[1:3] -= 3.0 * direction  # the oxygens stay beyond every cutoff of the crossing atom
        return calc.evaluate([atoms])[0]

    just_inside, rim = at(1e-3), at(-1e-3)
    assert_close(just_inside["energies"][3], rim["energies"][3], tol.RIM_ENERGY)
    depths = np.array([0.0, 1e-6, 1e-4, 1e-2])
    results = [at(depth) for depth in depths]
    forces = np.array([np.abs(result["forces"][3]).max() for result in results])
    energies = np.array([abs(result["energy"] - rim["energy"]) for result in results])
    assert forces[-1] > 1e-6, "the two atoms do not interact at all"
    assert not np.any(rim["forces"][3])
    share = depths / depths[-1]
    assert np.all(forces <= 1.2 * share**2 * forces[-1] + tol.SUMMATION)
    assert np.all(energies <= 1.2 * share**3 * energies[-1] + 10 * tol.SUMMATION)
