"""Shards, frames, reading and exporting: exact numbers, damaged files, full disks."""

from __future__ import annotations

import errno
import gzip
import json
import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.db import connect

import smax_stand_in as stand_in
from grace_md import cli
from grace_md.smax import shards as shards_module
from grace_md.smax.export import export
from grace_md.smax.folder import read
from grace_md.smax.frames import format_frames, parse_frames
from grace_md.smax.shards import CorruptShardError, ShardWriter, read_shard, verify_shards
from grace_md.training.checkpoint import CheckpointError
from smax_runs import assert_same_run, assert_same_structures, short, state_of


def structures(n: int, seed: int = 0) -> list[Atoms]:
    rng = np.random.default_rng(seed)
    found = []
    for k in range(n):
        size = int(rng.integers(1, 6))
        atoms = Atoms(rng.choice([1, 8, 26, 88], size), rng.normal(size=(size, 3)) * 10.0 ** rng.integers(-9, 4),
                      cell=rng.normal(size=(3, 3)), pbc=True)  # fmt: skip
        atoms.info |= {"smax_index": k, "smax_gain": float(rng.normal()) * 1e-7, "smax_extreme": bool(k % 2)}
        atoms.info |= {"smax_mode": "atom"}
        atoms.set_array("effective_radius", rng.uniform(0.5, 2.0, size))
        found.append(atoms)
    return found


def test_frames_keep_every_digit() -> None:
    before = structures(20)
    before[0].positions[0] = [0.1 + 0.2, -1e-300, 1e22]
    after = list(parse_frames(format_frames(before)))
    assert_same_structures(before, after)
    assert list(parse_frames(format_frames([]))) == []


def test_ase_reads_shards(tmp_path: Path) -> None:
    before = structures(7)
    writer = ShardWriter(tmp_path, [], 100)
    writer.append(before[:3])
    writer.append([])
    writer.append(before[3:])
    assert_same_structures(before, ase.io.read(tmp_path / "shards/00000.extxyz.gz", ":"))


def test_shards_are_filled_one_after_the_other(tmp_path: Path) -> None:
    before = structures(23)
    writer = ShardWriter(tmp_path, [], 5)
    for begin, end in ((0, 3), (3, 14), (14, 14), (14, 23)):
        writer.append(before[begin:end])
    assert [card.n_structures for card in writer.cards] == [5, 5, 5, 5, 3]
    assert [card.n_atoms for card in writer.cards] == [sum(map(len, before[k : k + 5])) for k in range(0, 23, 5)]
    verify_shards(tmp_path, writer.cards)
    assert_same_structures(before, [atoms for card in writer.cards for atoms in read_shard(tmp_path, card)])


def test_tails_of_interrupted_commits_are_cut_off(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, [], 5)
    writer.append(structures(3))
    cards = list(writer.cards)
    writer.append(structures(6, seed=1))  # of which no state knows: a second shard, too
    assert (tmp_path / "shards/00001.extxyz.gz").exists()
    again = ShardWriter(tmp_path, cards, 5)
    assert not (tmp_path / "shards/00001.extxyz.gz").exists()
    again.append(structures(2, seed=2))
    verify_shards(tmp_path, again.cards)
    assert_same_structures(structures(3) + structures(2, seed=2), list(read_shard(tmp_path, again.cards[0])))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: p.unlink(), r"`.*00001\.extxyz\.gz` is missing"),
        (lambda p: os.truncate(p, p.stat().st_size - 1), r"`.*00001\.extxyz\.gz` has \d+ bytes instead of \d+"),
        (lambda p: p.write_bytes(p.read_bytes()[:-20] + b"x" * 20), r"checksum of `.*00001\.extxyz\.gz` is wrong"),
    ],
    ids=["missing", "truncated", "altered"],
)
def test_damaged_shards(tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Any, message: str) -> None:
    short(tmp_path / "run")
    damage(tmp_path / "run/shards/00001.extxyz.gz")
    for options in ({"resume": True}, {"resume": True, "n": 90}):
        with pytest.raises(CorruptShardError, match=message + ".*; restore it from a copy, or") as caught:
            short(tmp_path / "run", **options)
        assert "\n" not in str(caught.value)
    short(tmp_path / "other", 20, stand_in.settings(seed=2))
    capsys.readouterr()
    assert cli.main(["smax", "merge", str(tmp_path / "other"), str(tmp_path / "run"), "-o", str(tmp_path / "all")]) == 1
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "all").exists()
    with pytest.raises(CorruptShardError, match=r"00001\.extxyz\.gz` cannot be read"):
        list(read(tmp_path / "run"))
    assert short(tmp_path / "run", 5, force=True).status == "complete"


def test_damaged_state(tmp_path: Path) -> None:
    short(tmp_path / "run", 5)
    path = tmp_path / "run/state.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"state\.npz"):
        short(tmp_path / "run", resume=True)
    with pytest.raises(FileNotFoundError, match="is no folder of `grace-md smax`"):
        next(read(tmp_path))


FREE_BYTES = 6_000


def fsync(handle: int) -> None:
    """Say that the disk is full once a shard is larger than FREE_BYTES: some file systems notice it this late."""
    if os.fstat(handle).st_size > FREE_BYTES:
        raise OSError(errno.ENOSPC, "No space left on device")
    os.fsync(handle)


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short(tmp_path / "whole", deterministic=True)
    monkeypatch.setattr(shards_module, "os", SimpleNamespace(fsync=fsync, truncate=os.truncate))
    with pytest.raises(OSError, match=r"The disk of `.*full` is full; all accepted structures are kept: free some"):
        short(tmp_path / "full", deterministic=True)
    state = state_of(tmp_path / "full")
    assert 0 < state.accepted < 25
    assert (tmp_path / "full" / state.cards[0].file).stat().st_size == state.cards[0].bytes  # no half commit
    assert len(list(read(tmp_path / "full"))) == state.accepted
    monkeypatch.undo()
    short(tmp_path / "full", deterministic=True, resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "full")


def test_a_disk_that_is_full_for_the_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short(tmp_path / "whole", deterministic=True)
    import grace_md.smax.state as module

    original, count = module.save_checkpoint, 0

    def save(path: Path, checkpoint: Any) -> None:
        nonlocal count
        count += 1
        if count > 4:
            raise CheckpointError(f"the checkpoint {path} could not be written; free some space")
        original(path, checkpoint)

    monkeypatch.setattr(module, "save_checkpoint", save)
    with pytest.raises(CheckpointError, match="free some space"):
        short(tmp_path / "full", deterministic=True)
    monkeypatch.undo()
    short(tmp_path / "full", deterministic=True, resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "full")


@pytest.mark.parametrize("name", ["all.extxyz", "all.extxyz.gz", "all.db"])
def test_export(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    short(tmp_path / "run", 30)
    out = tmp_path / name
    words = ["smax", "export", str(tmp_path / "run"), "-o", str(out)]
    assert cli.main(words) == 0
    assert "wrote 30 structures" in capsys.readouterr().out
    kept = list(read(tmp_path / "run"))
    if name.endswith(".db"):
        with connect(out) as database:
            rows = list(database.select(sort="id"))
        assert len(rows) == 30
        for row, atoms in zip(rows, kept, strict=True):
            assert np.array_equal(row.positions, atoms.positions)
            assert row.smax_index == atoms.info["smax_index"]
            assert np.array_equal(row.data["effective_radius"], atoms.arrays["effective_radius"])
        assert connect(out).count(smax_mode="atom") == 30
    else:
        assert_same_structures(kept, ase.io.read(out, ":"))
    assert cli.main(words) == 1
    assert "add --force" in capsys.readouterr().err
    assert cli.main([*words, "--force"]) == 0
    assert not list(tmp_path.glob(".part*"))


def test_bad_export_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ends in '\.cif'; give a name"):
        export(structures(2), tmp_path / "all.cif")

    def broken() -> Any:
        yield from structures(2)
        raise CorruptShardError("shard 3 is damaged")

    with pytest.raises(CorruptShardError):
        export(broken(), tmp_path / "all.extxyz")
    assert list(tmp_path.iterdir()) == []


def test_a_run_under_way_can_be_read(tmp_path: Path) -> None:
    short(tmp_path / "run", 10)
    with gzip.open(tmp_path / "run/shards/00000.extxyz.gz", "ab") as stream:
        stream.write(b"3\nhalf of a comm")
    assert len(list(read(tmp_path / "run"))) == 10


def test_training_reads_the_shards_of_a_folder(tmp_path: Path) -> None:
    from grace_md.training.data.readers import Source, expand, read_part, scan

    short(tmp_path / "run", 30)
    sources = expand(Source(str(tmp_path / "run/shards")))
    frames = [frame for source in sources for part in scan(source, 1000) for frame in read_part(source, part)]
    assert len(frames) == 30
    assert json.loads((tmp_path / "run/manifest.json").read_text())["accepted"] == 30
