"""The kernels of the GPU evaluator, run on the CPU in shuffled order, against oracle and reference implementation.

`emulated:N` visits blocks and threads of every phase in an order drawn from the seed N: results that depend on it are
wrong. GRACE_TEST_DEVICE=cuda runs the same tests on a GPU.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import systems
import tolerances as tol
from device_tools import DEVICE, ORDERS
from evaluator_tools import SYMBOLS, TINY, CoreModel, elements_in, small_cell, tiny
from reference_data import ReferenceSet, load_reference
from stage_tools import MODELS, compare_stages
from tolerances import assert_close


@pytest.mark.parametrize("device", ORDERS)
@pytest.mark.parametrize("name", MODELS)
def test_stages_agree_with_the_oracle_in_every_order(name: str, device: str) -> None:
    compare_stages(name, small_cell(name), tol.STAGE_RELATIVE, device=device, chunk=4 + ORDERS.index(device))


@pytest.mark.parametrize("name", MODELS)
def test_stages_in_single_precision(name: str) -> None:
    compare_stages(name, small_cell(name), tol.STAGE_RELATIVE_FLOAT, device=DEVICE, precision="mixed")


@pytest.mark.slow
def test_the_reference_implementation_is_reproduced(reference_set: ReferenceSet) -> None:
    elements = elements_in(reference_set.structures)
    for radial in ("exact", "table"):
        model = CoreModel(reference_set.arrays, elements, radial=radial, device=DEVICE)
        for structure in reference_set.structures:
            what = f"{reference_set.name} {structure['name']} {radial}"
            result = model.compute(reference_set.atoms(structure))
            n_atoms = len(structure["symbols"])
            assert_close(result["energy"], structure["energy"], n_atoms * tol.ENERGY_PER_ATOM, what=what)
            if reference_set.name.endswith("_uq"):  # these files have energies only
                continue
            force = tol.FORCE if radial == "exact" else tol.TABLE_FORCE
            assert_close(result["forces"], structure["forces"], force, tol.FORCE_RELATIVE, what=what)
            virial = tol.VIRIAL if radial == "exact" else tol.TABLE_VIRIAL
            assert_close(result["virial"], structure["virial"], virial, what=what)


@pytest.mark.parametrize("name", TINY)
def test_degenerate_structures(name: str) -> None:
    gpu, cpu = (CoreModel(tiny(name), device=device) for device in (DEVICE, "cpu"))
    for atoms in (
        systems.thin_slab(SYMBOLS[name], n_atoms=30),
        systems.cluster(SYMBOLS[name], n_atoms=9),
        systems.dimer((SYMBOLS[name][0], SYMBOLS[name][-1]), 2.1),
        systems.isolated(SYMBOLS[name][0]),
    ):
        a, b = (model.compute(atoms, atom_virial=True) for model in (cpu, gpu))
        size = max(1.0, np.abs(a["forces"]).max())
        for key in ("atomic_energies", "forces", "virial", "atom_virial", "centroid_virial"):
            assert_close(b[key], a[key], 10 * tol.SUMMATION * size, what=f"{name} {key}")


def test_many_elements_fill_few_atoms_per_tile() -> None:
    """Every element of a 94-element model once or never: tiles of one atom, weights of each element."""
    reference = load_reference("full/1L_large_allel")
    elements = CoreModel(reference.arrays, ["H"]).spec.file_elements
    symbols = np.random.default_rng(7).choice(elements, 12, replace=False).tolist()
    atoms = systems.pack(symbols, np.eye(3) * 7.5, contact=0.4, seed=7)
    gpu, cpu = (CoreModel(reference.arrays, device=device) for device in (DEVICE, "cpu"))
    results: list[dict[str, Any]] = [model.compute(atoms) for model in (cpu, gpu)]
    for key in ("atomic_energies", "forces"):
        assert_close(results[1][key], results[0][key], tol.INVARIANCE_FORCE, what=key)
