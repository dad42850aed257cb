"""GraceModel: what it says about a file, saving, and one clear sentence for every bad input."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import numpy as np
import pytest

from grace_md import GraceModel
from grace_md.model import _reported
from grace_md.reference import pair_cutoffs
from grace_md.weights import WeightFileError, element_names, read_npz
from reference_data import LAVA, ReferenceSet, load_reference
from tolerances import assert_close

LAYERS = {"lava9_1l": 1, "2L_large_elemcut": 2}
PARAMETERS = {"lava9_1l": 121_017, "2L_large_elemcut": 1_850_789}  # as the reference implementation counts
LMAX = {"lava9_1l": 3, "2L_large_elemcut": 4}


def test_card(bundled_set: ReferenceSet) -> None:
    model = GraceModel.load(bundled_set.model)
    assert model.n_layers == LAYERS[bundled_set.name]
    assert model.lmax == LMAX[bundled_set.name]
    assert model.elements == element_names(bundled_set.arrays)
    assert_close(model.pair_cutoffs, pair_cutoffs(bundled_set.arrays), 0.0)
    assert model.cutoff == pair_cutoffs(bundled_set.arrays).max()
    assert model.sha256 == hashlib.sha256(bundled_set.model.read_bytes()).hexdigest()
    assert list(model.arrays) == list(bundled_set.arrays)
    text = model.summary()
    for part in (model.sha256, f"{model.n_parameters:,}", " ".join(model.elements), str(bundled_set.model)):
        assert part in text
    assert repr(model).startswith("GraceModel(")


def test_number_of_parameters(bundled_set: ReferenceSet) -> None:
    """The reference counts trainable numbers: all weights without constants (norms, couplings, cutoffs)."""
    assert GraceModel.load(bundled_set.model).n_parameters == PARAMETERS[bundled_set.name]


def test_every_model_of_the_full_set_loads(reference_set: ReferenceSet) -> None:
    model = GraceModel(reference_set.arrays, name=reference_set.name)
    assert_close(model.pair_cutoffs, pair_cutoffs(reference_set.arrays), 0.0)
    assert model.n_layers == (2 if "2L" in reference_set.name else 1)


def test_save_and_load(bundled_set: ReferenceSet, tmp_path: Path) -> None:
    model = GraceModel.load(bundled_set.model)
    digest = model.save(tmp_path / "copy.npz", metadata={"grace_md_origin": "a test", "grace_md_epoch": 7})
    copy = GraceModel.load(tmp_path / "copy.npz")
    assert copy.sha256 == digest
    assert copy.metadata == {"grace_md_origin": "a test", "grace_md_epoch": 7}
    assert model.metadata == {}
    for key, values in model.arrays.items():
        assert copy.arrays[key].dtype == values.dtype
        assert np.array_equal(copy.arrays[key], values)
    assert copy.n_parameters == model.n_parameters


def test_hash_of_arrays_is_that_of_the_saved_file(tmp_path: Path) -> None:
    model = GraceModel(load_reference("lava9_1l").arrays)
    assert model.sha256 == model.save(tmp_path / "model.npz")


def test_core_reads_the_saved_file(bundled_set: ReferenceSet, tmp_path: Path) -> None:
    from grace_md._core import ModelSpec

    model = GraceModel.load(bundled_set.model)
    model.save(tmp_path / "model.npz")
    spec = ModelSpec.from_file(str(tmp_path / "model.npz"))
    assert spec.elements == model.elements
    assert spec.n_parameters == model.n_parameters


def test_save_refuses_to_overwrite(tmp_path: Path) -> None:
    model = GraceModel.load(LAVA)
    (tmp_path / "taken.npz").write_text("precious")
    with pytest.raises(FileExistsError, match=r"taken\.npz.*force=True"):
        model.save(tmp_path / "taken.npz")
    assert (tmp_path / "taken.npz").read_text() == "precious"
    model.save(tmp_path / "taken.npz", force=True)
    assert GraceModel.load(tmp_path / "taken.npz").elements == model.elements


def test_metadata_keys_have_our_prefix(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`origin` must start with `grace_md_`"):
        GraceModel.load(LAVA).save(tmp_path / "model.npz", metadata={"origin": "x"})
    assert not (tmp_path / "model.npz").exists()


def test_fewer_elements(bundled_set: ReferenceSet) -> None:
    model = GraceModel.load(bundled_set.model)
    smaller = model.select(["O", "Fe"])
    assert smaller.elements == ["O", "Fe"]
    keep = [model.elements.index("O"), model.elements.index("Fe")]
    assert_close(smaller.pair_cutoffs, model.pair_cutoffs[np.ix_(keep, keep)], 0.0)
    assert smaller.n_parameters < model.n_parameters
    assert smaller.sha256 != model.sha256


def test_uncertainty_arrays_are_kept_and_reported_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    arrays = {**load_reference("lava9_1l").arrays, "uq_schema_version": np.array([6]), "uq_max_clusters": np.array([3])}
    _reported.clear()
    with caplog.at_level(logging.WARNING, logger="grace_md"):
        model = GraceModel(arrays)
        model.save(tmp_path / "uq.npz")
        GraceModel.load(tmp_path / "uq.npz")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "2 uncertainty arrays" in caplog.text
    assert "2 uncertainty arrays" in model.summary()
    assert int(read_npz(tmp_path / "uq.npz")["uq_schema_version"][0]) == 6


# ------------------------------------------------------------------------------------------------ errors


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.npz"):
        GraceModel.load(tmp_path / "nowhere.npz")


def test_truncated_file(tmp_path: Path) -> None:
    (tmp_path / "short.npz").write_bytes(LAVA.read_bytes()[:500_000])
    with pytest.raises(WeightFileError, match=r"short\.npz. is not a complete"):
        GraceModel.load(tmp_path / "short.npz")


def test_pickled_array(tmp_path: Path) -> None:
    np.savez(tmp_path / "pickle.npz", lmax=np.array([{}], dtype=object))
    with pytest.raises(WeightFileError, match="`lmax` holds pickled objects"):
        GraceModel.load(tmp_path / "pickle.npz")


def damaged(name: str, key: str, change: object) -> dict[str, np.ndarray]:
    arrays = dict(load_reference(name).arrays)
    values = np.array(arrays[key])
    arrays[key] = change(values)
    assert not (arrays[key].shape == values.shape and np.array_equal(arrays[key], values))
    return arrays


def first_set_to(value: float) -> object:
    def change(values: np.ndarray) -> np.ndarray:
        out = values.copy()
        out.reshape(-1)[0] = value
        return out

    return change


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("lava9_1l", "rho_reduce_AAA_W"),
        ("lava9_1l", "mlp_rad_W1"),
        ("lava9_1l", "shift_values"),
        ("2L_large_elemcut", "fc_BB1_w_right"),
        ("2L_large_elemcut", "I_nl_LN_scale"),
        ("2L_large_elemcut", "YI_cg_coeff"),
    ],
)
@pytest.mark.parametrize("value", [np.nan, np.inf], ids=["nan", "inf"])
def test_weight_that_is_not_finite(name: str, key: str, value: float) -> None:
    with pytest.raises(ValueError, match=key):
        GraceModel(damaged(name, key, first_set_to(value)))


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("lava9_1l", "fc_A1_norm_left"),
        ("lava9_1l", "rho_reduce_AA_norm"),
        ("lava9_1l", "mlp_rad_norm0"),
        ("2L_large_elemcut", "energy_mlp_norm1"),
    ],
)
def test_zero_norm(name: str, key: str) -> None:
    with pytest.raises(ValueError, match=key):
        GraceModel(damaged(name, key, np.zeros_like))


def test_zero_norm_scale_of_the_densities() -> None:
    """A freshly built two-layer model has scales of zero: it would silently be flat."""
    with pytest.raises(ValueError, match="I_0_LN_scale"):
        GraceModel(damaged("2L_large_elemcut", "I_0_LN_scale", np.zeros_like))


REQUIRED = [
    ("lava9_1l", "chem_embedding"),
    ("lava9_1l", "element_names"),
    ("lava9_1l", "radial_basis_p"),
    ("lava9_1l", "bond_cutoff_map"),
    ("lava9_1l", "mlp_rad_W2"),
    ("lava9_1l", "fc_AA2_w_tile_right"),
    ("lava9_1l", "prod_AAAA_right_ind"),
    ("lava9_1l", "rho_collect_ind_AAAA"),
    ("lava9_1l", "energy_mlp_activation"),
    ("2L_large_elemcut", "I2_reduce_BBBB_W"),
    ("2L_large_elemcut", "I_nl_LN_type"),
    ("2L_large_elemcut", "I_0_LN_scale"),
    ("2L_large_elemcut", "YI_inv_avg_n_neigh"),
    ("2L_large_elemcut", "mlp_rad_R1_norm1"),
    ("2L_large_elemcut", "B_instruction_names"),
]


@pytest.mark.parametrize(("name", "key"), REQUIRED)
def test_missing_key(name: str, key: str) -> None:
    arrays = dict(load_reference(name).arrays)
    del arrays[key]
    with pytest.raises(ValueError, match=key):
        GraceModel(arrays)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("lava9_1l", "fc_A1_w_left"),
        ("lava9_1l", "rho_reduce_AAAA_W"),
        ("lava9_1l", "chem_embedding"),
        ("lava9_1l", "bond_cutoff_map"),
        ("2L_large_elemcut", "prod_BBB_cg_coeff"),
    ],
)
def test_wrong_shape(name: str, key: str) -> None:
    with pytest.raises(ValueError, match=key):
        GraceModel(damaged(name, key, lambda values: values[:-1]))


def test_global_cutoff_needs_rcut() -> None:
    arrays = {**load_reference("lava9_1l").arrays, "has_bond_specific_cutoff": np.array([0])}
    del arrays["bond_cutoff_map"]
    assert_close(GraceModel(arrays).pair_cutoffs, np.full((9, 9), 7.0), 0.0)
    del arrays["rcut"]
    with pytest.raises(ValueError, match="rcut"):
        GraceModel(arrays)


def test_table_of_pairs_without_its_second_column() -> None:
    with pytest.raises(ValueError, match="YI_lr_inds"):
        GraceModel(damaged("2L_large_elemcut", "YI_lr_inds", lambda values: values[:, :1]))


def test_index_out_of_range() -> None:
    with pytest.raises(ValueError, match="prod_AA_left_ind"):
        GraceModel(damaged("lava9_1l", "prod_AA_left_ind", first_set_to(10_000)))


def test_three_layers_are_refused_by_name() -> None:
    arrays = {**load_reference("lava9_1l").arrays, "spbf_names": np.array([b"A1"])}
    with pytest.raises(ValueError, match="three-layer"):
        GraceModel(arrays)


def test_unknown_element() -> None:
    with pytest.raises(ValueError, match="Xe, unknown to the model; it knows Al, Ca"):
        GraceModel.load(LAVA).select(["Xe"])


def test_message_names_the_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", a=np.zeros(2))
    with pytest.raises(ValueError, match=r"other\.npz"):
        GraceModel.load(tmp_path / "other.npz")
