"""Readers: every format gives the same structures, ranges, and errors in one sentence for damaged files."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import pickle
from pathlib import Path
from typing import Any

import ase.db
import ase.io
import numpy as np
import pytest
from ase import Atoms

from aselmdb_tools import write_aselmdb
from grace_md.training.data.labels import Frame, LabelError
from grace_md.training.data.readers import Source, expand, frame_from_atoms, read_part, sample_frames, scan
from labelled_sets import alloys, mixed_set
from tolerances import EXTXYZ_DIGITS, assert_close


def frames_of(source: Source | str, target_atoms: int = 20) -> list[Frame]:
    source = Source(source) if isinstance(source, str) else source
    return [frame for part in scan(source, target_atoms) for frame in read_part(source, part)]


def assert_same(frames: list[Frame], structures: list[Atoms], tolerance: float = 1e-12) -> None:
    assert len(frames) == len(structures)
    for frame, atoms in zip(frames, structures, strict=True):
        np.testing.assert_array_equal(frame.numbers, atoms.numbers)
        np.testing.assert_array_equal(frame.pbc, atoms.pbc)
        assert_close(frame.positions, atoms.positions, tolerance)
        assert_close(frame.cell, atoms.cell[:], tolerance)
        assert_close(frame.values["energy"], atoms.calc.results["energy"], tolerance)
        assert_close(frame.values["forces"], atoms.calc.results["forces"], tolerance)
        assert ("stress" in frame.values) == ("stress" in atoms.calc.results)


@pytest.fixture(scope="module")
def structures() -> list[Atoms]:
    return mixed_set()


@pytest.fixture
def xyz(structures: list[Atoms], tmp_path: Path) -> str:
    ase.io.write(tmp_path / "set.extxyz", structures)
    return str(tmp_path / "set.extxyz")


def test_extxyz_in_parts(xyz: str, structures: list[Atoms]) -> None:
    parts = scan(Source(xyz), 20)
    assert len(parts) > 5
    assert [row for part in parts for row in part.rows] == list(range(len(structures)))
    assert sum(part.n_atoms for part in parts) == sum(map(len, structures))
    frames = frames_of(xyz)
    assert_same(frames, structures, EXTXYZ_DIGITS)
    assert [frame.row for frame in frames] == list(range(len(structures)))
    assert frames[0].values["family"] == structures[0].info["family"]


@pytest.mark.parametrize("index", ["0:10", ":5", "3:", "-4:", "2:20:3", "7", "-1", "::-2"])
def test_ranges(xyz: str, structures: list[Atoms], index: str) -> None:
    words = [int(word) if word else None for word in index.split(":")]
    chosen = structures[slice(*words)] if ":" in index else [structures[int(index)]]
    assert_same(frames_of(f"{xyz}@{index}"), chosen[::-1] if index == "::-2" else chosen, EXTXYZ_DIGITS)


def test_an_empty_range_is_refused(xyz: str) -> None:
    with pytest.raises(ValueError, match="selects no structure"):
        scan(Source(f"{xyz}@500:600"), 20)


@pytest.mark.parametrize(("ending", "opener"), [("gz", gzip.open), ("bz2", bz2.open), ("xz", lzma.open)])
def test_compressed(xyz: str, structures: list[Atoms], ending: str, opener: Any) -> None:
    path = f"{xyz}.{ending}"
    with opener(path, "wb") as stream:
        stream.write(Path(xyz).read_bytes())
    assert_same(frames_of(path), structures, EXTXYZ_DIGITS)


def test_damaged_text(xyz: str) -> None:
    path = Path(xyz)
    text = path.read_text()
    path.write_text(text[: len(text) // 2])
    with pytest.raises(ValueError, match=r"ends within structure \d+; it is truncated|does not begin with its number"):
        scan(Source(xyz), 20)
    path.write_text("O 0 0 0\n")
    with pytest.raises(ValueError, match="structure 0 does not begin with its number of atoms but with 'O 0 0 0'"):
        scan(Source(xyz), 20)
    lines = text.splitlines(keepends=True)
    lines[2] = "Cu 0.0 zero 0.0 0 0 0\n"
    path.write_text("".join(lines))
    with pytest.raises(ValueError, match=r"one of the structures 0 to \d+ cannot be read"):
        frames_of(xyz)


def test_missing_file_and_bad_options(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no data file `.*none.extxyz`"):
        scan(Source(str(tmp_path / "none.extxyz")), 20)
    with pytest.raises(FileNotFoundError):
        expand(Source(str(tmp_path / "*.extxyz")))
    with pytest.raises(ValueError, match="`format` = 'csv' is unknown"):
        Source("a.csv", format="csv")
    with pytest.raises(ValueError, match="`weight` = -1"):
        Source("a.xyz", weight=-1)


def test_folders_and_patterns(xyz: str, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    other = tmp_path / "sub" / "more.extxyz"
    other.write_bytes(Path(xyz).read_bytes())
    (tmp_path / "notes.txt").write_text("no data")
    assert [s.path for s in expand(Source(str(tmp_path)))] == [xyz, str(other)]
    assert [s.path for s in expand(Source(str(tmp_path / "*" / "*.extxyz") + "@0:3"))] == [f"{other}@0:3"]


def test_ase_database(structures: list[Atoms], tmp_path: Path) -> None:
    path = str(tmp_path / "set.db")
    with ase.db.connect(path) as database:
        for atoms in structures:
            database.write(atoms, key_value_pairs={"config_type": atoms.info["config_type"]}, data={"extra": [1, 2]})
        database.delete([2, 5])
    kept = [atoms for k, atoms in enumerate(structures, 1) if k not in (2, 5)]
    frames = frames_of(path)
    assert_same(frames, kept)
    assert frames[0].values["config_type"] == "alloy"
    assert_same(frames_of(f"{path}@1:9:2"), kept[1:9:2])


def test_whatever_ase_reads(structures: list[Atoms], tmp_path: Path) -> None:
    path = str(tmp_path / "set.traj")
    ase.io.write(path, structures)
    assert_same(frames_of(path), structures)
    assert_same(frames_of(f"{path}@2:8"), structures[2:8])


def test_aselmdb(structures: list[Atoms], tmp_path: Path) -> None:
    path = tmp_path / "data.0000.aselmdb"
    write_aselmdb(path, structures, deleted=(3, 4))
    kept = [atoms for k, atoms in enumerate(structures, 1) if k not in (3, 4)]
    frames = frames_of(str(path))
    assert_same(frames, kept)
    assert frames[0].values["config_type"] == "alloy"
    assert frames[2].values["sid"] == "s5"
    assert_same(frames_of(f"{path}@1:12:3"), kept[1:12:3])


def test_aselmdb_as_others_write_it(structures: list[Atoms], tmp_path: Path) -> None:
    backends = pytest.importorskip("ase_db_backends.aselmdb")
    path = tmp_path / "other.aselmdb"
    with backends.LMDBDatabase(str(path)) as database:
        for atoms in structures:
            database.write(atoms, data={"sid": "x"})
    assert_same(frames_of(str(path)), structures)


def test_damaged_aselmdb(structures: list[Atoms], tmp_path: Path) -> None:
    lmdb = pytest.importorskip("lmdb")
    path = tmp_path / "data.aselmdb"
    write_aselmdb(path, structures)
    environment = lmdb.open(str(path), map_size=2**28, subdir=False)
    with environment.begin(write=True) as transaction:
        transaction.put(b"7", b"not compressed")
        transaction.delete(b"9")
    environment.close()
    with pytest.raises(ValueError, match="row 7 cannot be decoded"):
        frames_of(str(path))
    with pytest.raises(ValueError, match="lacks the row 9"):
        frames_of(f"{path}@8:9")
    text = tmp_path / "text.aselmdb"
    text.write_bytes(b"x" * 10000)
    with pytest.raises(ValueError, match="not an aselmdb file"):
        scan(Source(str(text)), 20)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("ending", ["pkl", "pkl.gz", "pckl.gzip"])
def test_pickled_table(structures: list[Atoms], tmp_path: Path, ending: str) -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(
        {
            "ase_atoms": structures,
            "energy": [atoms.calc.results["energy"] for atoms in structures],
            "forces": [atoms.calc.results["forces"] for atoms in structures],
            "stress": [atoms.calc.results.get("stress") for atoms in structures],
            "energy_corrected": [1.5] * len(structures),
            "name": [f"s{k}" for k in range(len(structures))],
        }
    )
    path = tmp_path / f"set.{ending}"
    table.to_pickle(path, compression="gzip" if "gz" in ending else None)
    frames = frames_of(str(path))
    assert_same(frames, structures)
    assert frames[3].values["energy_corrected"] == 1.5
    assert frames[3].values["name"] == "s3"


class Trap:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch trapped",)


def test_pickles_do_not_run_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    Path("bad.pkl").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ValueError, match=r"was not opened: it uses (posix|nt|os).system.*trust_pickle"):
        scan(Source("bad.pkl"), 20)
    assert not Path("trapped").exists()
    Path("attribute.pkl").write_bytes(pickle.dumps([].append))
    with pytest.raises(ValueError, match="looks up the attribute 'append' of list"):
        scan(Source("attribute.pkl"), 20)
    Path("cut.pkl").write_bytes(pickle.dumps([1, 2, 3])[:-4])
    with pytest.raises(ValueError, match=r"cut.pkl"):
        scan(Source("cut.pkl"), 20)
    Path("list.pkl").write_bytes(pickle.dumps([1, 2, 3]))
    with pytest.raises(ValueError, match="not a table with a column `ase_atoms`"):
        scan(Source("list.pkl"), 20)
    with pytest.raises(ValueError, match="not a table"):
        scan(Source("list.pkl", trust_pickle=True), 20)


def test_contradicting_values_are_refused() -> None:
    atoms = alloys(1)[0]
    atoms.info["energy"] = atoms.calc.results["energy"]
    assert frame_from_atoms(atoms, 0).values["energy"] == atoms.calc.results["energy"]
    atoms.info["energy"] += 1.0
    with pytest.raises(LabelError, match="two values of `energy`"):
        frame_from_atoms(atoms, 0, "memory")


def test_samples_are_runs(xyz: str) -> None:
    source = Source(xyz)
    rows = [frame.row for frame in sample_frames(source, scan(source, 40), n_places=3, n_each=2)]
    assert len(rows) == 6
    assert rows[1] == rows[0] + 1
    assert rows == sorted(rows)
