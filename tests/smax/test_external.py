"""Structures of others: files of exactly the public layouts, small ones, give molecules in boxes and crystals."""

from __future__ import annotations

import argparse
import io
import tarfile
from pathlib import Path
from typing import Any

import ase.io
import ase.units
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from aselmdb_tools import write_aselmdb
from grace_md.commands import smax_import
from grace_md.smax.external import boxed, read_external
from labelled_sets import alloys, cluster
from tolerances import EXTXYZ_DIGITS, assert_close

STATES = ("reactant", "transition_state", "product")
ENERGY, FORCES = "wB97x_6-31G(d).energy", "wB97x_6-31G(d).forces"
# A file of QM9 as published: methane, with its tabulators and one exponent in the style of Mathematica.
METHANE = """5
gdb 1\t157.7118\t157.70997\t157.70699\t0.\t13.21\t-0.3877\t0.1171\t0.5048\t35.3641\t0.044749\t-40.47893\t-40.476062\t-40.475117\t-40.498597\t6.469\t
C\t-0.0126981359\t 1.0858041578\t 0.0080009958\t-0.535689
H\t 0.002150416\t-0.0060313176\t 0.0019761204\t 0.133921
H\t 1.0117308433\t 1.4637511618\t 2.7657*^-4\t 0.133922
H\t-0.540815069\t 1.4475266138\t-0.8766437152\t 0.133923
H\t-0.5238136345\t 1.4379326443\t 0.9063972942\t 0.133923
1341.307\t1341.3284\t1341.365\t1562.6731\t1562.7453\t3038.3205\t3151.6034\t3151.6788\t3151.7078
C\tC\t
InChI=1S/CH4/h1H4\tInChI=1S/CH4/h1H4
"""  # noqa: E501


def in_a_box(atoms: Atoms, padding: float) -> None:
    assert atoms.pbc.all()
    low, high = atoms.positions.min(axis=0), atoms.positions.max(axis=0)
    assert_close(low, np.full(3, padding), 1e-9)
    assert_close(np.diag(atoms.cell.array) - high, np.full(3, padding), 1e-9)
    assert np.count_nonzero(atoms.cell.array) == 3


def same_shape(atoms: Atoms, positions: Any, tolerance: float = 1e-9) -> None:
    other = Atoms(atoms.numbers, positions=positions)
    assert_close(atoms.get_all_distances(), other.get_all_distances(), tolerance)


@pytest.fixture
def transition1x(tmp_path: Path) -> tuple[str, np.ndarray]:
    """The groups of a file of Transition1x: one formula, two reactions, paths of seven frames."""
    h5py = pytest.importorskip("h5py")
    rng = np.random.default_rng(1)
    frames = molecule("CH3OH").positions + 0.1 * rng.standard_normal((2, 7, 6, 3))
    with h5py.File(tmp_path / "t1x.h5", "w") as file:
        for r in range(2):
            group = file.create_group(f"data/CH4O/rxn{r:04d}")
            parts = {"": frames[r], **{state: frames[r][k : k + 1] for k, state in zip((0, 3, 6), STATES, strict=True)}}
            for name, positions in parts.items():
                target = group.create_group(name) if name else group
                target["atomic_numbers"] = molecule("CH3OH").numbers.astype("uint8")
                target["positions"] = positions
                target[ENERGY] = np.arange(len(positions)) - 3000.0 - r
                target[FORCES] = np.zeros_like(positions)
        file["train"] = h5py.Group(file["data"].id)
    return str(tmp_path / "t1x.h5"), frames


def test_transition1x(transition1x: tuple[str, np.ndarray]) -> None:
    path, frames = transition1x
    found = list(read_external(path))
    assert [atoms.info["external_id"] for atoms in found] == [
        f"CH4O/rxn{r:04d}/{state}/0" for r in range(2) for state in STATES
    ]
    for atoms, (r, k) in zip(found, [(r, k) for r in range(2) for k in (0, 3, 6)], strict=True):
        same_shape(atoms, frames[r, k])
        in_a_box(atoms, 10.0)
        assert atoms.calc is None
        assert atoms.info["external_energy"] == -3000.0 - r
    assert len(list(read_external(path, split="train", final_only=False))) == 14
    assert len(list(read_external(path, final_only=False, stride=3))) == 5
    with pytest.raises(ValueError, match="has no split `val`; it has data, train"):
        list(read_external(path, split="val"))


def test_damaged_hdf5(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    (tmp_path / "a.h5").write_bytes(b"no hdf5")
    with pytest.raises(ValueError, match=r"a.h5` is not an HDF5 file"):
        list(read_external(tmp_path / "a.h5"))
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["data/CH4/rxn0001/energies"] = [1.0]
    with pytest.raises(ValueError, match="CH4/rxn0001 lacks atomic_numbers or positions"):
        list(read_external(tmp_path / "b.h5", final_only=False))


def methane(atoms: Atoms, padding: float = 10.0) -> None:
    assert atoms.get_chemical_formula() == "CH4"
    assert_close(atoms.get_distances(0, [1, 2, 3, 4]), np.full(4, 1.09195), 1e-4)
    assert_close(atoms.info["external_energy"], -40.47893 * ase.units.Hartree, 1e-9)
    assert atoms.info["external_id"] == "gdb 1"
    in_a_box(atoms, padding)


def test_qm9_xyz_as_directory_archive_and_one_file(tmp_path: Path) -> None:
    folder = tmp_path / "qm9"
    folder.mkdir()
    for k in (1, 2):
        (folder / f"dsgdb9nsd_{k:06d}.xyz").write_text(METHANE)
    (tmp_path / "all.xyz").write_text(METHANE * 3)
    with tarfile.open(tmp_path / "dsgdb9nsd.xyz.tar.bz2", "w:bz2") as archive:
        for k in (1, 2):
            member = tarfile.TarInfo(f"dsgdb9nsd_{k:06d}.xyz")
            member.size = len(METHANE.encode())
            archive.addfile(member, io.BytesIO(METHANE.encode()))
    for path, n in ((folder, 2), (tmp_path / "all.xyz", 3), (tmp_path / "dsgdb9nsd.xyz.tar.bz2", 2)):
        found = list(read_external(path, padding=12.0))
        assert len(found) == n
        for atoms in found:
            methane(atoms, 12.0)


@pytest.mark.parametrize(
    "text",
    [METHANE.replace("gdb", "xyz", 1), METHANE[:200],
     METHANE.replace("2.7657*^-4", "x"), "\n".join(METHANE.split("\n")[:8])]
)  # fmt: skip
def test_damaged_qm9(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_text(text)
    with pytest.raises(ValueError, match=r"a.xyz` is not a file of QM9"):
        list(read_external(tmp_path / "a.xyz", "qm9-xyz"))


@pytest.mark.parametrize("names", [("R", "Z", "N"), ("positions", "charges", "num_atoms"), ("R", "Z", None)])
def test_qm9_npz(names: tuple[str, str, str | None], tmp_path: Path) -> None:
    molecules = [molecule(name) for name in ("CH4", "H2O", "C6H6")]
    positions, numbers = np.zeros((3, 12, 3)), np.zeros((3, 12), dtype=np.int64)
    for k, atoms in enumerate(molecules):
        positions[k, : len(atoms)], numbers[k, : len(atoms)] = atoms.positions, atoms.numbers
    arrays = {names[0]: positions, names[1]: numbers}
    if names[2] is not None:
        arrays[names[2]] = np.array([len(atoms) for atoms in molecules])
    np.savez(tmp_path / "qm9.npz", **arrays)
    found = list(read_external(tmp_path / "qm9.npz"))
    assert [atoms.get_chemical_formula() for atoms in found] == ["CH4", "H2O", "C6H6"]
    for atoms, original in zip(found, molecules, strict=True):
        same_shape(atoms, original.positions)
        in_a_box(atoms, 10.0)


def test_npz_of_another_layout(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", coordinates=np.zeros(3))
    with pytest.raises(ValueError, match="has neither R and Z nor positions and charges, but coordinates"):
        list(read_external(tmp_path / "a.npz"))
    np.savez(tmp_path / "b.npz", R=np.zeros((2, 3)), Z=np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"R has shape \[2, 3\] and Z \[2, 3\]; they must be"):
        list(read_external(tmp_path / "b.npz"))
    np.savez(tmp_path / "c.npz", R=np.zeros((1, 3, 3)), Z=np.array([[1, 0, 0]]), N=np.array([2]))
    with pytest.raises(ValueError, match="molecule 0 has 2 atoms by N, but fewer by Z"):
        list(read_external(tmp_path / "c.npz"))


@pytest.mark.parametrize("ending", ["extxyz", "aselmdb", "db"])
def test_crystals_stay_and_clusters_are_boxed_without_labels(ending: str, tmp_path: Path) -> None:
    structures = [*alloys(3), cluster()]
    structures[1].info["REF_energy"] = -3.0
    path = tmp_path / f"a.{ending}"
    if ending == "aselmdb":
        write_aselmdb(path, structures)
    else:
        ase.io.write(path, structures)
    found = list(read_external(path))
    for atoms, original in zip(found[:3], structures[:3], strict=True):
        assert_close(atoms.positions, original.positions, EXTXYZ_DIGITS)
        assert_close(atoms.cell.array, original.cell.array, EXTXYZ_DIGITS)
        assert atoms.calc is None
        assert "REF_energy" not in atoms.info
        assert_close(atoms.info["external_energy"], original.calc.results["energy"], EXTXYZ_DIGITS)
    in_a_box(found[3], 10.0)
    same_shape(found[3], structures[3].positions, EXTXYZ_DIGITS)


def test_bad_arguments(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`padding` = 0"):
        boxed(molecule("H2O"), 0.0)
    with pytest.raises(ValueError, match="`format` = 'cif' is unknown"):
        read_external("a.xyz", "cif")
    with pytest.raises(ValueError, match="`stride` = 0"):
        read_external("a.xyz", stride=0)
    with pytest.raises(FileNotFoundError, match=r"no file `.*a.h5`"):
        read_external(tmp_path / "a.h5")


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "all.xyz").write_text(METHANE * 3)
    parser = argparse.ArgumentParser()
    smax_import.add_arguments(parser)
    args = parser.parse_args([str(tmp_path / "all.xyz"), "-o", str(tmp_path / "out.extxyz"), "--padding", "11"])
    assert smax_import.run(args) == 0
    assert "3 structures, 15 atoms" in capsys.readouterr().out
    assert len(ase.io.read(tmp_path / "out.extxyz", ":")) == 3
    with pytest.raises(FileExistsError, match="add --force"):
        smax_import.run(args)
