"""The C++ evaluator against the reference implementation and the oracle: exact, tabulated, in every precision."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from ase import Atoms

import systems
import tolerances as tol
from evaluator_tools import MODELS, SYMBOLS, TINY, CoreModel, elements_in, small_cell, tiny
from grace_md.reference import reference_evaluate
from reference_data import ReferenceSet, load_reference
from tolerances import assert_close


@lru_cache(maxsize=4)
def core(name: str, precision: str = "fp64", radial: str = "exact") -> CoreModel:
    """One evaluator per reference set and mode, for the elements of its structures."""
    model = load_reference(name)
    return CoreModel(model.arrays, elements_in(model.structures), precision=precision, radial=radial)


# ------------------------------------------------------------------------------ the reference implementation


def test_exact_mode_reproduces_the_reference_implementation(reference_set: ReferenceSet) -> None:
    model = core(reference_set.name)
    for structure in reference_set.structures:
        what = f"{reference_set.name} {structure['name']}"
        result = model.compute(reference_set.atoms(structure))
        n_atoms = len(structure["symbols"])
        assert_close(result["energy"], structure["energy"], n_atoms * tol.ENERGY_PER_ATOM, what=what)
        if reference_set.name.endswith("_uq"):  # these files have energies only
            continue
        assert_close(result["atomic_energies"], structure["atomic_energies"], tol.ENERGY_PER_ATOM, what=what)
        assert_close(result["forces"], structure["forces"], tol.FORCE, tol.FORCE_RELATIVE, what=what)
        assert_close(result["virial"], structure["virial"], tol.VIRIAL, what=what)


def test_tables_stay_within_their_reported_error(reference_set: ReferenceSet) -> None:
    exact, table = core(reference_set.name), core(reference_set.name, radial="table")
    report = table.evaluator.radial_report
    assert 0.0 < report["value_error"] < report["derivative_error"] < tol.TABLE_REPORT
    assert report["n_intervals"] > 10
    assert report["degree"] >= 3
    assert exact.evaluator.radial_report["value_error"] == exact.evaluator.radial_report["derivative_error"] == 0.0
    different = False
    for structure in reference_set.structures:
        what = f"{reference_set.name} {structure['name']}"
        a, b = (model.compute(reference_set.atoms(structure)) for model in (exact, table))
        assert_close(b["atomic_energies"], a["atomic_energies"], tol.TABLE_ENERGY, what=what)
        assert_close(b["forces"], a["forces"], tol.TABLE_FORCE, what=what)
        assert_close(b["virial"], a["virial"], tol.TABLE_VIRIAL, what=what)
        different |= bool(np.any(a["forces"] != b["forces"]))
    assert different, "both runs used the same radial functions"


@pytest.mark.parametrize("precision", ["mixed", "fp32"])
def test_single_precision_is_close_to_double(
    reference_set: ReferenceSet, precision: str, record_property: pytest.RecordProperty
) -> None:
    double, single = core(reference_set.name), core(reference_set.name, precision, "table")
    worst_energy = worst_force = 0.0
    for structure in reference_set.structures:
        what = f"{reference_set.name} {structure['name']}"
        a, b = (model.compute(reference_set.atoms(structure)) for model in (double, single))
        n_atoms, largest = len(structure["symbols"]), np.abs(a["forces"]).max()
        assert_close(b["energy"], a["energy"], n_atoms * tol.MIXED_ENERGY_PER_ATOM, what=what)
        assert_close(b["forces"], a["forces"], tol.MIXED_FORCE_RELATIVE * largest, what=what)
        assert_close(b["forces"].sum(axis=0), np.zeros(3), n_atoms * tol.SUMMATION, what=f"{what}: net force")
        worst_energy = max(worst_energy, abs(b["energy"] - a["energy"]) / n_atoms)
        if largest > 0.0:
            worst_force = max(worst_force, np.abs(b["forces"] - a["forces"]).max() / largest)
    assert worst_energy > 0.0, "nothing was computed in single precision"
    record_property("energy_error_per_atom", float(worst_energy))
    record_property("relative_force_error", float(worst_force))
    print(f"{reference_set.name} {precision}: {worst_energy:.1e} eV/atom, forces {worst_force:.1e} of the largest")


# ------------------------------------------------------------------------------------- oracle, small models


@pytest.mark.parametrize("name", TINY)
def test_tiny_models_agree_with_the_oracle(name: str) -> None:
    """Between them they have every feature of weight files: normaliser per element, shifts, scale, silu, tanh."""
    model = CoreModel(tiny(name), radial="exact")
    for atoms in (
        small_cell(name),
        systems.thin_slab(SYMBOLS[name], n_atoms=30),
        systems.cluster(SYMBOLS[name], n_atoms=9),
        systems.dimer((SYMBOLS[name][0], SYMBOLS[name][-1]), 2.1),  # one neighbour each
        systems.isolated(SYMBOLS[name][0]),  # no neighbour
    ):
        expected, result = reference_evaluate(tiny(name), atoms), model.compute(atoms, atom_virial=True)
        size = max(1.0, np.abs(expected["forces"]).max())  # random weights in dense cells: up to 100 eV/A
        assert_close(result["atomic_energies"], expected["atomic_energies"], tol.INVARIANCE_ENERGY * size)
        assert_close(result["forces"], expected["forces"], tol.INVARIANCE_ENERGY * size)
        assert_close(result["virial"], expected["virial"], tol.INVARIANCE_FORCE * size)
        for local in ("atom_virial", "centroid_virial"):
            total = result[local].sum(axis=0)
            assert_close(total[[0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]], expected["virial"], tol.INVARIANCE_FORCE * size)


def test_isolated_atom_has_its_shift() -> None:
    model = CoreModel(tiny("tiny_1l_pairs"))
    result = model.compute(systems.isolated("Fe"))
    assert_close(result["energy"], model.spec.shift[2], 0.0)
    assert_close(result["forces"], np.zeros((1, 3)), 0.0)
    assert result["closest_distance"] == np.inf


def test_all_94_elements_at_once() -> None:
    """A model with every element in use, and one sliced to the elements present, are the same function."""
    reference = load_reference("full/1L_large_allel")
    elements = CoreModel(reference.arrays, ["H"]).spec.file_elements
    rng = np.random.default_rng(94)
    symbols = rng.choice(elements, 24, replace=False).tolist()
    atoms = systems.pack(symbols, np.eye(3) * 9.0, contact=0.4, seed=94)
    whole = CoreModel(reference.arrays, radial="exact")
    assert len(whole.spec.elements) == 94
    sliced = CoreModel(reference.arrays, sorted(set(symbols)), radial="exact")
    expected = reference_evaluate(reference.arrays, atoms)
    for model in (whole, sliced):
        result = model.compute(atoms)
        assert_close(result["atomic_energies"], expected["atomic_energies"], tol.INVARIANCE_ENERGY)
        assert_close(result["forces"], expected["forces"], tol.INVARIANCE_FORCE)


# -------------------------------------------------------------------------------------------- derivatives


@pytest.mark.parametrize("name", ["lava9_1l", "2L_large_elemcut", "tiny_2l"])
def test_forces_are_the_exact_derivative_of_the_tabulated_energy(name: str) -> None:
    arrays = tiny(name) if name in TINY else load_reference(name).arrays
    atoms = small_cell(name)
    model = CoreModel(arrays, sorted(set(atoms.symbols)), radial="table")
    forces = model.compute(atoms)["forces"]
    rng = np.random.default_rng(3)
    directions = [forces / np.linalg.norm(forces)]  # tests all components at once
    directions += [np.eye(len(atoms) * 3)[k].reshape(-1, 3) for k in (0, 4, 8)]
    directions.append(rng.standard_normal(forces.shape) / np.sqrt(forces.size))

    def energy(displacement: np.ndarray) -> float:
        moved = atoms.copy()
        moved.positions += displacement
        return float(model.compute(moved, forces=False)["energy"])

    h = tol.STEP_FIVE
    for direction in directions:
        near = energy(h * direction) - energy(-h * direction)
        far = energy(2 * h * direction) - energy(-2 * h * direction)
        numerical = -(8.0 * near - far) / (12.0 * h)
        assert abs(numerical) > 1e-3, "the direction tests nothing"
        assert_close(np.sum(forces * direction), numerical, tol.DIFFERENCE_TABLE, tol.DIFFERENCE_TABLE)


# --------------------------------------------------------------------- one function, however it is computed

ISA_SCRIPT = """
import json, sys
import numpy as np
from ase import Atoms
from grace_md._core import Error, Evaluator, ModelSpec, build_neighbors
case = json.loads(sys.stdin.read())
spec = ModelSpec.from_file(case["model"])
out = {}
for precision in ("fp64", "mixed"):
    for radial in ("table", "exact"):
        try:
            evaluator = Evaluator(spec, precision=precision, radial=radial, n_threads=1)
        except Error as error:
            print(json.dumps({"error": str(error)}))
            sys.exit()
        species = np.array(case["species"], dtype=np.int32)
        cells, positions = np.array([case["cell"]]), np.array(case["positions"])
        periodic, first = np.ones((1, 3), dtype=bool), np.array([0, len(species)])
        pairs = build_neighbors(positions, species, cells, periodic, first, spec.pair_cutoffs)
        raw = evaluator.compute(pairs, positions, cells, species)
        out[precision + " " + radial] = {k: raw[k].tolist() for k in ("atomic_energies", "forces", "virial")}
print(json.dumps({"description": evaluator.description, "results": out}))
"""


@lru_cache(maxsize=12)
def in_subprocess(isa: str, name: str) -> dict[str, Any]:
    atoms = small_cell(name)
    elements = CoreModel(tiny(name)).spec.elements
    case = {
        "model": str(MODELS / f"{name}.npz"),
        "species": [elements.index(symbol) for symbol in atoms.symbols],
        "cell": atoms.cell.array.tolist(),
        "positions": atoms.positions.tolist(),
    }
    environment = {**os.environ, "GRACE_MD_ISA": isa, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run(
        [sys.executable, "-c", ISA_SCRIPT],
        input=json.dumps(case),
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    return dict(json.loads(run.stdout))


@pytest.mark.parametrize("name", ["tiny_1l_pairs", "tiny_2l"])
@pytest.mark.parametrize("isa", ["baseline", "v3", "v4"])
def test_every_instruction_set_gives_the_same_numbers(isa: str, name: str) -> None:
    answer = in_subprocess(isa, name)
    if "error" in answer:
        assert isa in answer["error"]
        assert isa != "baseline"
        pytest.skip(answer["error"])
    assert isa in answer["description"]
    expected = reference_evaluate(tiny(name), small_cell(name))
    size = np.abs(expected["forces"]).max()
    for mode, result in answer["results"].items():
        single, tabulated = mode.startswith("mixed"), mode.endswith("table")
        atol = tol.MIXED_FORCE_RELATIVE if single else tol.TABLE_FORCE if tabulated else tol.INVARIANCE_ENERGY
        assert_close(result["atomic_energies"], expected["atomic_energies"], atol * size, what=mode)
        assert_close(result["forces"], expected["forces"], atol * size, what=mode)


def test_unknown_instruction_set_is_named() -> None:
    assert "GRACE_MD_ISA=avx9" in in_subprocess("avx9", "tiny_1l_pairs")["error"]


def melt(name: str, repeat: int = 3) -> Atoms:
    return systems.bcc(SYMBOLS[name], repeat=repeat, lattice=3.3, rattle=0.15)


@pytest.mark.parametrize("precision", ["fp64", "mixed"])
@pytest.mark.parametrize("name", ["tiny_1l_pairs", "tiny_2l"])
def test_threads(name: str, precision: str) -> None:
    """The same thread count gives the same bits; another one only changes the order of sums."""
    atoms = melt(name)
    single = None
    for n_threads in (1, 2, 3):
        model = CoreModel(tiny(name), n_threads=n_threads, precision=precision)
        runs = [model.compute(atoms, atom_virial=True) for _ in range(5)]
        for key in ("atomic_energies", "forces", "virial", "atom_virial", "centroid_virial"):
            for again in runs[1:]:
                assert np.array_equal(again[key], runs[0][key]), f"{key} differs between runs of {n_threads} threads"
            single = single or runs[0]
            size = max(1.0, np.abs(single[key]).max())
            rounding = 50 * tol.SUMMATION if precision == "fp64" else tol.STAGE_RELATIVE_FLOAT
            assert_close(runs[0][key], single[key], rounding * size, what=f"{key}, {n_threads} threads")


@pytest.mark.parametrize("name", ["tiny_1l_pairs", "tiny_2l"])
def test_chunks_and_lists_with_a_skin(name: str) -> None:
    atoms = melt(name)
    expected = CoreModel(tiny(name)).compute(atoms)
    size = max(1.0, np.abs(expected["forces"]).max())
    for chunk, skin in ((1, 0.0), (5, 0.3), (20, 1.5), (10_000, 0.0)):
        result = CoreModel(tiny(name), chunk=chunk).compute(atoms, skin=skin)
        for key in ("atomic_energies", "forces"):
            assert_close(
                result[key], expected[key], 10 * tol.SUMMATION * size, what=f"{key}, chunk {chunk}, skin {skin}"
            )


@pytest.mark.parametrize("name", ["tiny_1l_pairs", "tiny_2l"])
def test_one_evaluator_serves_systems_of_any_size(name: str) -> None:
    """Buffers grow and are reused: nothing of an earlier system may remain."""
    model = CoreModel(tiny(name), n_threads=2)
    structures = [melt(name), small_cell(name), systems.isolated(SYMBOLS[name][0]), Atoms(), melt(name, repeat=2)]
    for atoms in [*structures, *structures[::-1]]:
        result, expected = model.compute(atoms), CoreModel(tiny(name), n_threads=2).compute(atoms)
        assert np.array_equal(result["atomic_energies"], expected["atomic_energies"])
        assert np.array_equal(result["forces"], expected["forces"])
        assert result["forces"].shape == (len(atoms), 3)
    held = model.evaluator.workspace_bytes
    model.compute(small_cell(name))
    assert model.evaluator.workspace_bytes == held > 0
