"""What users get wrong: one sentence on stderr, exit code 1, nothing overwritten."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms

from fit_tools import settings, write_config
from grace_md import cli
from labelled_sets import lone_atom, volume_scan


def message(capsys: pytest.CaptureFixture[str], path: Path, *arguments: str) -> str:
    """Run `grace-md train`, which must fail, and return its one line."""
    assert cli.main(["train", str(path), *arguments]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("grace-md train:")]
    assert len(lines) == 1
    return lines[0]


def change(folder: Path, edit: Callable[[list[Atoms]], list[Atoms] | None], name: str = "train") -> Path:
    """Write a run file whose training structures were edited."""
    settings(folder)
    path = folder / f"{name}.extxyz"
    structures = ase.io.read(path, index=":")
    ase.io.write(path, edit(structures) or structures)
    return write_config(folder)


def test_an_unknown_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mapping = settings(tmp_path)
    mapping["fit"]["minimal_learning_rate"] = 1e-4
    path = tmp_path / "run.json"
    path.write_text(json.dumps(mapping))
    assert "unknown key `minimal_learning_rate` in `fit`" in message(capsys, path)
    assert "did you mean `epochs`" in message(capsys, write_config(tmp_path, "b"), "--set", "fit.epoch=3")
    assert not (tmp_path / "run").exists()


def test_overrides_reach_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_config(tmp_path)
    assert cli.main(["train", str(path), "--set", "fit.epochs=1", "--set", f"output.dir={tmp_path}/x"]) == 0
    assert (tmp_path / "x/model.npz").is_file()
    assert "complete" in capsys.readouterr().out


@pytest.mark.parametrize("sign", [-1.0, 160.2])
def test_stress_of_the_wrong_sign_or_unit(tmp_path: Path, capsys: pytest.CaptureFixture[str], sign: float) -> None:
    settings(tmp_path)
    structures = [atoms for symbol in ("Cu", "Ag", "Au") for atoms in volume_scan(9, symbol)]
    for atoms in structures:
        atoms.calc.results["stress"] = sign * atoms.calc.results["stress"]
    ase.io.write(tmp_path / "train.extxyz", structures)
    text = message(capsys, write_config(tmp_path, data={"check": "error"}))
    assert "stress" in text
    assert "train.extxyz" in text


def test_labels_that_are_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def strip(structures: list[Atoms]) -> None:
        for atoms in structures:
            atoms.calc = None

    assert "neither energies nor forces" in message(capsys, change(tmp_path, strip))


def test_an_element_outside_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings(tmp_path)
    path = write_config(tmp_path, model={"elements": ["Ag", "Cu"]})
    text = message(capsys, path)
    assert "Au" in text
    assert "outside the elements of the model" in text
    path = write_config(tmp_path, model={"elements": "auto", "cutoffs": {"Ag": 4.0, "Cu": 4.0}})
    assert "Au" in message(capsys, path)


def test_structures_without_neighbours_are_trained_on(tmp_path: Path) -> None:
    def only_lone(structures: list[Atoms]) -> list[Atoms]:
        return [*structures[:8], *[lone_atom(s) for s in ("Ag", "Au", "Cu") for _ in range(3)]]

    path = change(tmp_path, only_lone)
    assert cli.main(["train", str(path), "--set", "fit.batch=1", "--set", "fit.epochs=1"]) == 0
    last = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[-1])
    assert np.isfinite(last["train_loss"])


def test_a_full_disk_while_saving(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from grace_md.training import checkpoint

    path = write_config(tmp_path)
    assert cli.main(["train", str(path), "--until", "1"]) == 75
    before = (tmp_path / "run/checkpoints/last.npz").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "_write_archive", full)
    capsys.readouterr()
    assert "could not be written (No space left on device); the earlier one is kept" in message(capsys, path)
    assert (tmp_path / "run/checkpoints/last.npz").read_bytes() == before
    monkeypatch.undo()
    assert cli.main(["train", str(path)]) == 0


def test_files_that_do_not_exist(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no run file" in message(capsys, tmp_path / "absent.yaml")
    assert "There is no data file" in message(capsys, write_config(tmp_path, data={"train": "absent.extxyz"}))
    assert "no weight file" in message(
        capsys, write_config(tmp_path, "tune", model={"start": "absent.npz", **_without_sizes()})
    )


def _without_sizes() -> dict[str, None]:
    from fit_tools import ONE_LAYER

    return {**dict.fromkeys(ONE_LAYER), "cutoffs": None}


def test_mistakes_show_before_torch_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom grace_md import cli\n"
        f"code = cli.main(['train', {str(write_config(tmp_path))!r}, '--set', 'fit.epoch=1'])\n"
        "print(code, 'torch' in sys.modules)\n"
        "cli.build_parser('train')\nprint('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "False", "False"]
