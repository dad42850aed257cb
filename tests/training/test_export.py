"""A trained file: the same energies in torch, ASE and LAMMPS, and the layout that other programs read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import torch

import lammps_tools
from fit_tools import ONE_LAYER, TWO_LAYERS, quiet, tiny
from grace_md import GraceCalculator, GraceModel
from grace_md.torch import GracePotential, batch_from_atoms
from grace_md.training import export
from grace_md.training.export import ExportError, check_against_ase, peer_limits
from grace_md.training.run import Outcome, train
from grace_md.weights import read_npz
from reference_data import BUNDLED
from tolerances import ENERGY_PER_ATOM, FORCE, STRESS, assert_close

# Files that the reference implementation wrote.
PUBLISHED = {"1L": BUNDLED["lava9_1l"][0], "2L": BUNDLED["2L_large_elemcut"][0]}


@pytest.fixture(scope="module", params=["1L", "2L"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Outcome]:
    sizes: dict[str, Any] = {"1L": {**ONE_LAYER, "max_order": 4}, "2L": {**TWO_LAYERS, "max_order": 4}}[request.param]
    folder = tmp_path_factory.mktemp(f"trained{request.param}")
    return request.param, train(
        tiny(folder, model={**sizes, "cutoffs": {"Cu": 3.8, "default": 4.2}}, fit={"epochs": 2}), say=quiet
    )


def structures(outcome: Outcome) -> list[Any]:
    return ase.io.read(outcome.folder.parent / "valid.extxyz", index=":")


def test_torch_and_ase_agree(trained: tuple[str, Outcome]) -> None:
    _, outcome = trained
    model = GracePotential.from_file(outcome.model)
    batch = batch_from_atoms(structures(outcome), model.elements, model.pair_cutoffs.numpy())
    output = model(batch)
    results = GraceCalculator(outcome.model, radial="exact", precision="fp64").evaluate(structures(outcome))
    assert_close(output.atomic_energies.detach(), np.concatenate([r["energies"] for r in results]), ENERGY_PER_ATOM)
    assert_close(output.forces.detach(), np.concatenate([r["forces"] for r in results]), FORCE)
    assert_close(output.stress.detach(), [r["stress"] for r in results], STRESS)


@pytest.mark.lammps
def test_lammps_agrees(trained: tuple[str, Outcome], tmp_path: Path) -> None:
    if reason := lammps_tools.missing():
        pytest.skip(reason)
    _, outcome = trained
    atoms = structures(outcome)[0].repeat((2, 2, 2))
    (found,) = lammps_tools.run([lammps_tools.single_point(atoms, tmp_path, "alloy", outcome.model)], tmp_path)
    atoms.calc = GraceCalculator(outcome.model, radial="exact", precision="fp64")
    assert_close(found["energy"] / len(atoms), atoms.get_potential_energy() / len(atoms), 1e-9)


def test_layout_is_that_of_published_files(trained: tuple[str, Outcome]) -> None:
    """Keys, dtypes and ranks of arrays; only the sizes are the model's own (docs/weight_file.md)."""
    name, outcome = trained
    arrays = {k: v for k, v in read_npz(outcome.model).items() if not k.startswith("grace_md_")}
    published = {k: v for k, v in read_npz(PUBLISHED[name]).items() if not k.startswith("grace_md_")}
    # The bundled file of two layers is stored without the second names of its readout.
    extra = {key for key in arrays if key not in published and not key.startswith(("I_out_", "I_1_LN", "rho_LN_"))}
    assert extra <= {"output_scale"}
    assert set(published) <= set(arrays)
    for key, values in published.items():
        # The bundled file of two layers holds its weights in single precision; published files never do.
        assert arrays[key].dtype == (np.float64 if values.dtype.kind == "f" else values.dtype), key
        assert arrays[key].ndim == values.ndim, key
        if arrays[key].dtype.kind == "f":
            assert np.isfinite(arrays[key]).all(), key
    with np.load(outcome.model) as file:  # plain `savez` files, without pickled objects
        assert set(file.files) >= set(arrays)
    assert GraceModel.load(outcome.model).n_layers == int(name[0])


def test_sizes_beyond_the_published_kernels_are_reported(trained: tuple[str, Outcome]) -> None:
    name, outcome = trained
    arrays = read_npz(outcome.model)
    assert peer_limits(arrays) == []
    if name == "1L":
        wide = GracePotential.from_preset({"preset": "1L-small", "lmax": 1, "n_rad": 40, "width": 4}, elements=["H"])
        assert peer_limits(wide.arrays()) == ["radial channels of 40 exceeds the 32 of the published 1L kernels"]
        hidden = GracePotential.from_preset({"preset": "1L-small", "lmax": 1, "width": 4, "hidden": 80}, elements=["H"])
        assert peer_limits(hidden.arrays()) == ["radial hidden layer of 80 exceeds the 64 of the published 1L kernels"]


def test_a_difference_is_found(trained: tuple[str, Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    _, outcome = trained
    few = structures(outcome)[:2]
    assert check_against_ase(outcome.model, few) < 1e-9
    energies = np.array([r["energy"] for r in GraceCalculator(outcome.model, radial="exact").evaluate(few)])
    check_against_ase(outcome.model, few, energies + 1e-6)
    with pytest.raises(ExportError, match=r"differ by .* from those in training; use `fit.precision: fp64`"):
        check_against_ase(outcome.model, few, energies + 1.0)
    with pytest.raises(ExportError, match="from those in training"):
        check_against_ase(outcome.model, few, np.full(2, np.nan))
    monkeypatch.setattr(export, "ENERGY_TOLERANCE", -1.0)
    with pytest.raises(ExportError, match="ASE and torch differ"):
        check_against_ase(outcome.model, few)


def test_single_precision_in_training_is_close(trained: tuple[str, Outcome]) -> None:
    _, outcome = trained
    energies = []
    for dtype in (torch.float32, torch.float64):
        model = GracePotential.from_file(outcome.model, dtype)
        batch = batch_from_atoms(structures(outcome), model.elements, model.pair_cutoffs.numpy())
        energies.append(model(batch, forces=False, stress=False).energy.detach().numpy())
    assert np.abs(energies[0] - energies[1]).max() < 1e-3
    assert not np.array_equal(energies[0], energies[1])


def test_references_come_back_in_the_shifts(trained: tuple[str, Outcome]) -> None:
    _, outcome = trained
    record = json.loads((outcome.folder / "run.json").read_text())
    shifts = read_npz(outcome.model)["shift_values"]
    assert np.abs(shifts - [record["references"][e] for e in record["elements"]]).max() < 0.2
