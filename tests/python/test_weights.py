"""Weight files: exact round trips, clear errors for damaged ones, and fewer elements."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

import systems
import tolerances as tol
from grace_md.reference import pair_cutoffs, reference_evaluate
from grace_md.weights import WeightFileError, element_names, file_sha256, pack_npz, read_npz, select_elements, write_npz
from reference_data import LAVA, ReferenceSet, load_reference
from tolerances import assert_close

SUBSET = {"lava9_1l": ["Si", "O", "Ca"], "2L_large_elemcut": ["O", "Fe"]}


def assert_same_arrays(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert list(actual) == list(expected)
    for key, values in expected.items():
        assert actual[key].dtype == values.dtype, key
        assert actual[key].shape == values.shape, key
        assert np.array_equal(actual[key], values), key


# --------------------------------------------------------------------------------------- reading, writing


def test_round_trip_keeps_everything(bundled_set: ReferenceSet, tmp_path: Path) -> None:
    digest = write_npz(tmp_path / "copy.npz", bundled_set.arrays)
    assert_same_arrays(read_npz(tmp_path / "copy.npz"), bundled_set.arrays)
    assert digest == file_sha256(tmp_path / "copy.npz")
    assert pack_npz(bundled_set.arrays) == (tmp_path / "copy.npz").read_bytes(), "equal arrays give equal files"


def test_agrees_with_numpy_both_ways(tmp_path: Path) -> None:
    arrays = {
        "scalar": np.array(0.25),
        "one": np.array([3]),
        "narrow": np.arange(6, dtype=np.float32).reshape(2, 3),
        "table": np.arange(4, dtype=np.int32),
        "empty": np.zeros((0, 3)),
        "names": np.array([b"Al", b"O"]),
        "unicode": np.array(["Al", "O"]),
        "flag": np.array([True, False]),
    }
    write_npz(tmp_path / "ours.npz", arrays)
    with np.load(tmp_path / "ours.npz") as loaded:
        assert_same_arrays({key: loaded[key] for key in loaded.files}, arrays)
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "theirs.npz", **arrays)
        assert_same_arrays(read_npz(tmp_path / "theirs.npz"), arrays)


def test_writes_what_the_core_reads(tmp_path: Path) -> None:
    arrays = {"fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "big": np.arange(3, dtype=">f8")}
    write_npz(tmp_path / "plain.npz", arrays)
    with zipfile.ZipFile(tmp_path / "plain.npz") as archive:
        assert all(member.compress_type == zipfile.ZIP_STORED for member in archive.infolist())
        assert all(b"'fortran_order': False" in archive.read(member) for member in archive.infolist())
    back = read_npz(tmp_path / "plain.npz")
    assert back["big"].dtype == np.dtype("<f8")
    assert all(np.array_equal(back[key], arrays[key]) for key in arrays)


def test_read_fortran_order(tmp_path: Path) -> None:
    values = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    np.savez(tmp_path / "fortran.npz", values=values)
    assert np.array_equal(read_npz(tmp_path / "fortran.npz")["values"], values)


def test_refuses_to_overwrite(tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    write_npz(path, {"a": np.zeros(2)})
    with pytest.raises(FileExistsError, match="force=True"):
        write_npz(path, {"a": np.ones(2)})
    assert not read_npz(path)["a"].any()
    write_npz(path, {"a": np.ones(2)}, force=True)
    assert read_npz(path)["a"].all()
    assert [p.name for p in tmp_path.iterdir()] == ["model.npz"], "no temporary files are left"


def test_objects_are_not_written() -> None:
    with pytest.raises(ValueError, match="`bad` holds Python objects"):
        pack_npz({"bad": np.array([{}])})


# ------------------------------------------------------------------------------------------------ errors


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.npz"):
        read_npz(tmp_path / "nowhere.npz")


def test_yaml_models_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "model_fs.yaml"
    path.write_text("elements: [W]\n")
    with pytest.raises(WeightFileError, match="GRACE/FS models are not supported"):
        read_npz(path)


@pytest.mark.parametrize("part", [0.0, 0.001, 0.3, 0.9, 0.9999])
def test_truncated_file(part: float, tmp_path: Path) -> None:
    content = LAVA.read_bytes()
    (tmp_path / "short.npz").write_bytes(content[: int(part * len(content))])
    with pytest.raises(WeightFileError, match=r"short\.npz.*(complete|arrays)"):
        read_npz(tmp_path / "short.npz")


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "pickle.npz", good=np.zeros(2), bad=np.array([{"a": 1}], dtype=object))
    with pytest.raises(WeightFileError, match="`bad` holds pickled objects"):
        read_npz(tmp_path / "pickle.npz")


def write_member(path: Path, name: str, content: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, content)


def test_member_that_is_no_array(tmp_path: Path) -> None:
    write_member(tmp_path / "text.npz", "README.txt", b"hello")
    with pytest.raises(WeightFileError, match=r"`README.txt` is not a numpy array"):
        read_npz(tmp_path / "text.npz")


def test_header_that_asks_for_more_than_there_is(tmp_path: Path) -> None:
    with zipfile.ZipFile(LAVA) as archive:
        content = archive.read("rcut.npy")
    assert b"(1,)" in content
    damaged = content.replace(b"(1,),             ", b"(900000000000000,),")
    damaged = damaged if len(damaged) != len(content) else content.replace(b"(1,)", b"(9,)")
    write_member(tmp_path / "large.npz", "rcut.npy", damaged)
    with pytest.raises(WeightFileError, match="`rcut`"):
        read_npz(tmp_path / "large.npz")


def test_damaged_bytes_are_noticed(tmp_path: Path) -> None:
    """Any change gives an error or the same arrays (bytes between members are free), never different weights."""
    rng = np.random.default_rng(7)
    arrays = {"W": rng.standard_normal((3, 4)), "names": np.array([b"Si", b"O"])}
    content, noticed = pack_npz(arrays), 0
    for _ in range(400):
        mutated = bytearray(content)
        mutated[rng.integers(len(content))] ^= 1 << rng.integers(8)
        (tmp_path / "mutated.npz").write_bytes(mutated)
        try:
            read = read_npz(tmp_path / "mutated.npz")
        except WeightFileError:
            noticed += 1
            continue
        for values, expected in zip(read.values(), arrays.values(), strict=False):
            assert np.array_equal(values, expected)
    assert noticed > 200


# ---------------------------------------------------------------------------------------- fewer elements


def test_energies_do_not_depend_on_absent_elements(bundled_set: ReferenceSet) -> None:
    subset = SUBSET[bundled_set.name]
    smaller = select_elements(bundled_set.arrays, subset)
    assert element_names(smaller) == subset
    assert len(pack_npz(smaller)) < 0.75 * len(pack_npz(bundled_set.arrays))
    atoms = systems.triclinic(subset, n_atoms=5)
    assert set(atoms.symbols) == set(subset)
    before, after = (reference_evaluate(arrays, atoms) for arrays in (bundled_set.arrays, smaller))
    assert_close(after["atomic_energies"], before["atomic_energies"], tol.INVARIANCE_ENERGY)
    assert_close(after["forces"], before["forces"], tol.INVARIANCE_FORCE)


def test_every_per_element_array_is_sliced(bundled_set: ReferenceSet) -> None:
    names = element_names(bundled_set.arrays)
    subset = SUBSET[bundled_set.name]
    keep = [names.index(symbol) for symbol in subset]
    smaller = select_elements(bundled_set.arrays, subset)
    assert list(smaller) == list(bundled_set.arrays)
    assert int(smaller["n_elements"][0]) == int(smaller["rho_number_of_atom_types"][0]) == len(subset)
    assert_close(pair_cutoffs(smaller), pair_cutoffs(bundled_set.arrays)[np.ix_(keep, keep)], 0.0)
    assert float(smaller["rcut"][0]) == pair_cutoffs(smaller).max()
    assert smaller["rho_reduce_AAAA_W"].shape[0] == len(subset)
    assert np.array_equal(smaller["rho_reduce_A_W"], bundled_set.arrays["rho_reduce_A_W"][keep])
    for key in ("fc_A1_w_left", "energy_mlp_W0", "A_inv_avg_n_neigh", "prod_AA_cg_coeff"):
        assert np.array_equal(smaller[key], bundled_set.arrays[key])


def test_global_cutoff_normaliser_per_element_and_uncertainty() -> None:
    arrays = dict(load_reference("lava9_1l").arrays)
    names = element_names(arrays)
    arrays["A_inv_avg_n_neigh"] = np.linspace(0.01, 0.02, 9)[:, None]
    arrays["has_bond_specific_cutoff"] = np.array([0])
    del arrays["bond_cutoff_map"]
    arrays["uq_n_elements"], arrays["uq_centroids"] = np.array([9]), np.arange(27.0).reshape(9, 3, 1)
    smaller = select_elements(arrays, ["Ti", "Al"])
    keep = [names.index("Ti"), names.index("Al")]
    assert float(smaller["rcut"][0]) == 7.0
    for key in ("A_inv_avg_n_neigh", "uq_centroids"):
        assert np.array_equal(smaller[key], arrays[key][keep])
    assert int(smaller["uq_n_elements"][0]) == 2
    atoms = systems.triclinic(("Ti", "Al"), n_atoms=4)
    energies = [reference_evaluate(a, atoms)["energy"] for a in (arrays, smaller)]
    assert_close(energies[0], energies[1], tol.INVARIANCE_ENERGY)


def test_aliased_reductions_are_sliced_alike() -> None:
    arrays = load_reference("full/2L_small").arrays
    smaller = select_elements(arrays, ["W", "Mo"])
    for alias, own in (("rho", "I_out_0"), ("I2", "I_out_1")):
        blocks = [key for key in arrays if key.startswith(f"{alias}_reduce_") and key.endswith("_W")]
        assert len(blocks) == 4
        for key in blocks:
            assert smaller[key].shape[0] == 2
            assert np.array_equal(smaller[key], smaller[key.replace(alias, own, 1)])
    assert smaller["I_reduce_I1_W"].shape == arrays["I_reduce_I1_W"].shape, "not element-dependent"


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        (["O", "Xe"], r"Xe, unknown to the model; it knows Al, Ca"),
        ([], "at least one"),
        (["O", "O"], "each one once"),
    ],
)
def test_bad_selection(elements: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        select_elements(load_reference("lava9_1l").arrays, elements)


def test_not_a_weight_file() -> None:
    with pytest.raises(WeightFileError, match="`element_names` is missing"):
        select_elements({"a": np.zeros(2)}, ["O"])
