"""`run 0` against the reference implementation and against the NumPy oracle, on one and two ranks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from grace_md.reference import reference_evaluate
from grace_md.weights import read_npz
from lammps_tools import full, run, single_point, symmetric, write_data
from reference_data import ReferenceSet
from tolerances import ATOMIC_ENERGY, ENERGY_PER_ATOM, FORCE, FORCE_RELATIVE, VIRIAL, assert_close


@pytest.fixture(scope="module")
def stored_model(reference_set: ReferenceSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model as a file that C++ reads: some of the full set are compressed."""
    path = tmp_path_factory.mktemp("model") / "model.npz"
    np.savez(path, **reference_set.arrays)
    return path


@pytest.mark.parametrize("ranks", [1, 2])
def test_reference_results(reference_set: ReferenceSet, stored_model: Path, ranks: int, tmp_path: Path) -> None:
    structures = reference_set.structures
    atoms = [reference_set.atoms(structure) for structure in structures]
    jobs = [single_point(a, tmp_path, s["name"], stored_model) for a, s in zip(atoms, structures, strict=True)]
    for result, a, s in zip(run(jobs, tmp_path, ranks), atoms, structures, strict=True):
        what = f"{reference_set.name} {s['name']} on {ranks} ranks"
        back = write_data(a, sorted(set(a.symbols)), tmp_path / "unused.data").T
        assert_close(result["energy"] / len(a), s["energy"] / len(a), ENERGY_PER_ATOM, what=what)
        assert_close(result["energies"].sum() / len(a), s["energy"] / len(a), ENERGY_PER_ATOM, what=what)
        if "forces" not in s:  # sets about uncertainty state energies only
            continue
        assert_close(result["energies"], s["atomic_energies"], ATOMIC_ENERGY, what=what)
        assert_close(result["forces"] @ back, s["forces"], FORCE, FORCE_RELATIVE, what=what)
        virial = back.T @ symmetric(result["virial"]) @ back
        assert_close(virial, symmetric(s["virial"]), VIRIAL, what=what)


@pytest.mark.parametrize("ranks", [1, 2])
def test_oracle(case: tuple[Path, Atoms], ranks: int, tmp_path: Path) -> None:
    """Also how the virial is shared among the atoms, from the bonds of the oracle."""
    model, atoms = case
    [result] = run([single_point(atoms, tmp_path, "cell", model)], tmp_path, ranks)
    expected = reference_evaluate(read_npz(model), atoms)
    assert_close(result["energies"], expected["atomic_energies"], ENERGY_PER_ATOM)
    assert_close(result["forces"], expected["forces"], FORCE, FORCE_RELATIVE)

    i, j, vectors = expected["bonds"]
    bond_virials = vectors[:, :, None] * expected["bond_forces"][:, None, :]
    on_neighbor, halves = np.zeros((len(atoms), 3, 3)), np.zeros((len(atoms), 3, 3))
    np.add.at(on_neighbor, j, bond_virials)
    np.add.at(halves, j, 0.5 * bond_virials)
    np.add.at(halves, i, 0.5 * bond_virials)
    assert np.abs(on_neighbor - on_neighbor.transpose(0, 2, 1)).max() > 1e-3  # the order of the nine components matters
    assert_close(full(result["centroid_virials"]), on_neighbor, VIRIAL)
    a, b = np.triu_indices(3)
    assert_close(symmetric(result["virials"])[:, a, b], halves[:, a, b], VIRIAL)
    assert_close(symmetric(result["virial"]), bond_virials.sum(axis=0), VIRIAL)
