"""Weight files and torch models: loaded and exported arrays are equal, changed ones are read by the core."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from ase.build import bulk

import tolerances as tol
from grace_md import GraceCalculator, GraceModel
from grace_md.torch import GracePotential
from reference_data import ReferenceSet, load_reference
from tolerances import assert_close
from torch_models import batch_of, five_atoms, tiny_model


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_export_is_what_was_loaded(reference_set: ReferenceSet, dtype: torch.dtype) -> None:
    exported = GracePotential.from_arrays(reference_set.arrays, dtype).arrays()
    assert list(exported) == list(reference_set.arrays)
    for key, array in reference_set.arrays.items():
        assert (exported[key].dtype, exported[key].shape) == (array.dtype, array.shape), key
        assert exported[key].tobytes() == array.tobytes(), key


def test_every_weight_and_every_copy_of_it_is_written() -> None:
    arrays = load_reference("full/2L_small").arrays
    model = GracePotential.from_arrays(arrays)
    with torch.no_grad():
        for weight in model.weights.values():
            weight.add_(0.25)
    exported = model.arrays()
    changed = [key for key in arrays if not np.array_equal(exported[key], arrays[key])]
    copies = [key for key in changed if key not in model.weights]
    assert len(changed) - len(copies) == len(model.weights)
    assert {key.partition("_reduce_")[0] for key in copies} >= {"I_out_0", "I_out_1", "I_1_LN_scale", "rho_LN_scale"}
    assert np.array_equal(exported["I_out_0_reduce_AA_W"], exported["rho_reduce_AA_W"])
    assert np.array_equal(exported["rho_LN_scale"], exported["I_nl_LN_scale"])
    for key in changed:
        assert_close(exported[key], arrays[key] + 0.25, 1e-14, what=key)


def test_uncertainty_arrays_are_dropped_once_weights_change(caplog: pytest.LogCaptureFixture) -> None:
    arrays = {**tiny_model(1).arrays(), "uq_schema_version": np.array([6])}
    model = GracePotential.from_arrays(arrays)
    with caplog.at_level(logging.WARNING, logger="grace_md"):
        assert "uq_schema_version" in model.arrays()
        assert not caplog.records
        with torch.no_grad():
            model.weights["energy_mlp_W0"][0, 0] += 1.0
        assert "uq_schema_version" not in model.arrays()
    assert "1 uncertainty arrays" in caplog.text


@pytest.mark.parametrize("layers", [1, 2])
def test_a_saved_model_is_read_by_everyone(layers: int, tmp_path) -> None:
    model = tiny_model(layers)
    with torch.no_grad():
        model.weights["chem_embedding"].mul_(1.1)
    path = tmp_path / "model.npz"
    sha256 = model.save(path)
    assert GraceModel.load(path).sha256 == sha256
    assert GraceModel.load(path).n_parameters == model.n_parameters
    with pytest.raises(FileExistsError):
        model.save(path)
    atoms = five_atoms()
    atoms.calc = GraceCalculator(path, radial="exact", threads=1)
    again = GracePotential.from_file(path)
    for evaluated in (model, again):
        assert_close(evaluated(batch_of(evaluated, [atoms])).forces, atoms.get_forces(), tol.TORCH_FORCE)


def test_trained_single_precision_weights_survive_the_file(tmp_path) -> None:
    model = tiny_model(1, dtype=torch.float32)
    with torch.no_grad():
        for weight in model.weights.values():
            weight.mul_(1.01)
    model.save(tmp_path / "model.npz")
    again = GracePotential.from_file(tmp_path / "model.npz", dtype=torch.float32)
    for key, weight in model.weights.items():
        assert torch.equal(weight, again.weights[key]), key


def test_metadata_and_unknown_keys_are_kept() -> None:
    arrays = {**tiny_model(1).arrays(), "grace_md_note": np.array(b"mine")}
    model = GracePotential.from_arrays(arrays)
    with torch.no_grad():
        model.weights["chem_embedding"].mul_(2.0)
    assert model.arrays()["grace_md_note"] == np.array(b"mine")


def test_a_weight_that_is_not_finite_is_refused() -> None:
    arrays = tiny_model(1).arrays()
    arrays["fc_A1_w_left"] = np.full_like(arrays["fc_A1_w_left"], np.nan)
    with pytest.raises(ValueError, match="`fc_A1_w_left` has values that are not finite"):
        GracePotential.from_arrays(arrays)


def test_shifts_stay_in_double_precision() -> None:
    model = tiny_model(1, dtype=torch.float32)
    assert model.weights["shift_values"].dtype == torch.float64
    assert model.weights["chem_embedding"].dtype == torch.float32
    atoms = bulk("Fe", "bcc", a=2.83)
    assert model(batch_of(model, [atoms])).energy.dtype == torch.float64
