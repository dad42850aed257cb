"""The command `grace-md data`."""

from __future__ import annotations

from pathlib import Path

import ase.io
import pytest

from grace_md import cli
from grace_md.commands.data import label_keys
from grace_md.training.data import ShardSet
from labelled_sets import mixed_set, volume_scan


def test_report_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ase.io.write(tmp_path / "set.extxyz", mixed_set())
    assert cli.main(["data", str(tmp_path / "set.extxyz"), "--cutoff", "4.5"]) == 0
    text = capsys.readouterr().out
    assert f"{len(mixed_set())} structures" in text
    assert "ok            Energies follow the stress" in text
    assert list(tmp_path.iterdir()) == [tmp_path / "set.extxyz"]


def test_shards_are_kept_and_labels_are_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "scan.extxyz", tmp_path / "shards"
    ase.io.write(path, volume_scan())
    words = ["data", str(path), "--out", str(out), "--cutoff", "table9"]
    assert cli.main([*words, "--units", "stress=-kbar", "--check", "error"]) == 1
    assert "they look like eV/A^3: set `stress_unit`" in capsys.readouterr().err
    assert cli.main([*words, "--units", "stress=eV/A^3"]) == 0
    assert (out / "report.txt").read_text() in capsys.readouterr().out
    assert len(ShardSet(out)) == 7
    assert cli.main([*words, "--keys", "stress=none"]) == 1
    assert "--force" in capsys.readouterr().err


def test_words_that_are_no_labels() -> None:
    keys = label_keys(["energy=REF_energy", "stress=none"], ["forces=Ha/Bohr"])
    assert (keys.energy, keys.stress, keys.forces_unit) == ("REF_energy", None, "Ha/Bohr")
    for word in ("energy", "charge=q", "stress="):
        with pytest.raises(ValueError, match=f"`--keys {word}` is not LABEL=VALUE"):
            label_keys([word], [])


def test_a_cutoff_that_is_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "none.extxyz", "--cutoff", "far"]) == 1
    assert "`--cutoff` = 'far' must be a number in A or table9" in capsys.readouterr().err
