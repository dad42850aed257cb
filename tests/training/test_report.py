"""`grace-md report fit`: numbers against a plain computation, tables, pictures and one HTML page. Needs no torch."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator

from grace_md import GraceCalculator, cli
from grace_md.analysis.fit_errors import FitErrors, error_tables
from grace_md.data import model_path

GPA = 160.21766208


@pytest.fixture(scope="module")
def labelled_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Oxides of which the shipped model is off by known amounts: 10 meV/atom times the Mg share, 0.2 eV/A, 1 GPa."""
    rng = np.random.default_rng(3)
    structures = []
    for k, (compound, kind) in enumerate([("MgO", "crystal_a"), ("CaO", "crystal_b"), ("MgO", "hot"), ("CaO", "hot")]):
        atoms = bulk(compound, "rocksalt", a=4.3 if compound == "MgO" else 4.8, cubic=True)
        atoms.positions += 0.05 * rng.standard_normal((8, 3))
        atoms.info["config_type"] = kind
        result = GraceCalculator(model_path()).evaluate([atoms])[0]
        share = np.mean([symbol == "Mg" for symbol in atoms.symbols])
        forces = result["forces"].copy()
        forces[:, 0] += np.where(atoms.symbols == "O", 0.2, 0.0)
        labels = {"energy": result["energy"] + 8 * 0.010 * share, "forces": forces}
        if k < 2:
            labels["stress"] = result["stress"] + 1.0 / GPA
        atoms.calc = SinglePointCalculator(atoms, **labels)
        structures.append(atoms)
    path = tmp_path_factory.mktemp("report") / "oxides.extxyz"
    ase.io.write(path, structures)
    return path


@pytest.fixture(scope="module")
def written(labelled_file: Path) -> Path:
    out = labelled_file.parent / "out"
    words = ["report", "fit", "lava9_1l", "same=lava9_1l", "--data", f"first={labelled_file}"]
    assert cli.main([*words, "--data", f"crystals={labelled_file}@:2", "-o", str(out), "--precision", "fp64"]) == 0
    return out


def test_errors_are_those_that_were_put_in(written: Path) -> None:
    report = json.loads((written / "report.json").read_text())
    table = report["tables"][0]
    assert (table["model"], table["data"], table["skipped"]) == ("lava9_1l", "first", 0)
    everything = table["all"]
    assert everything["structures"] == 4
    assert everything["energy_mae"] == pytest.approx(2.5, rel=1e-4)  # 5 meV/atom in every second structure
    assert everything["energy_rmse"] == pytest.approx(5 / 2**0.5, rel=1e-4)
    assert everything["energy_bias"] == pytest.approx(-2.5, rel=1e-4)
    assert everything["energy_mae_aligned"] == pytest.approx(0.0, abs=1e-3)  # a shift of Mg explains it
    assert everything["forces_mae"] == pytest.approx(200 / 6, rel=1e-4)  # one of three components of every second atom
    assert everything["stress_mae"] == pytest.approx(1.0, rel=1e-4)
    assert table["element"]["O"]["forces_mae"] == pytest.approx(200 / 3, rel=1e-4)
    assert table["element"]["Mg"]["forces_mae"] == pytest.approx(0.0, abs=1e-4)
    assert table["element"]["Mg"]["energy_mae"] == pytest.approx(5.0, rel=1e-4)
    assert table["element"]["Ca"]["energy_mae"] == pytest.approx(0.0, abs=1e-4)
    assert table["element"]["Mg"]["atoms"] == 8
    assert set(table["config_type"]) == {"crystal_a", "crystal_b", "hot"}
    assert set(table["group"]) == {"crystal", "hot"}
    assert table["config_type"]["hot"]["stress_mae"] is None  # these have no stress
    assert table["config_type"]["crystal_a"]["energy_mae"] == pytest.approx(5.0, rel=1e-4)
    worst = table["worst"]["energy"]
    assert worst[0]["error"] == pytest.approx(5.0, rel=1e-4)
    assert "Mg4O4" in worst[0]["where"]


def test_every_model_meets_every_set(written: Path) -> None:
    rows = json.loads((written / "report.json").read_text())["cross"]
    assert [(row["model"], row["data"]) for row in rows] == [
        ("lava9_1l", "first"), ("lava9_1l", "crystals"), ("same", "first"), ("same", "crystals")
    ]  # fmt: skip
    assert rows[0]["forces_eV_per_A"] == pytest.approx(0.2 / 6, rel=1e-4)
    assert rows[0]["energy_eV_per_atom"] == pytest.approx(0.0025, rel=1e-4)
    assert rows[0] == {**rows[2], "model": "lava9_1l"}
    text = (written / "report.txt").read_text()
    assert "energy MAE (eV/atom)" in text
    assert "crystal_b" in text


def test_pictures_and_page(written: Path) -> None:
    pytest.importorskip("matplotlib")
    for name in ("parity_lava9_1l_on_first", "errors_lava9_1l_on_first", "parity_same_on_crystals"):
        assert (written / f"{name}.png").stat().st_size > 5000
    page = (written / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 8
    assert "lava9_1l on crystals" in page
    assert 'src="http' not in page


def test_reports_are_not_overwritten(written: Path, labelled_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["report", "fit", "lava9_1l", "--data", str(labelled_file), "-o", str(written)]
    assert cli.main(words) == 1
    assert "--force" in capsys.readouterr().err
    assert cli.main(["report", "fit", "lava9_1l", "-o", str(written / "x")]) == 1
    assert "`--data` is missing" in capsys.readouterr().err


def test_structures_that_a_model_cannot_see(
    labelled_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = tmp_path / "small.npz"
    assert cli.main(["convert", "lava9_1l", str(small), "--elements", "Mg", "O"]) == 0
    assert cli.main(["report", "fit", str(small), "--data", str(labelled_file), "-o", str(tmp_path / "a")]) == 0
    (table,) = json.loads((tmp_path / "a/report.json").read_text())["tables"]
    assert (table["skipped"], table["all"]["structures"]) == (2, 2)
    assert "2 structures left out" in capsys.readouterr().out
    assert cli.main(["convert", "lava9_1l", str(tmp_path / "k.npz"), "--elements", "K"]) == 0
    words = ["report", "fit", str(tmp_path / "k.npz"), "--data", str(labelled_file), "-o", str(tmp_path / "b")]
    assert cli.main(words) == 1
    assert "it lacks Ca, Mg, O" in capsys.readouterr().err


def test_without_matplotlib_there_is_text(
    labelled_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    words = ["report", "fit", "lava9_1l", "--data", str(labelled_file), "-o", str(tmp_path / "a")]
    assert cli.main(words) == 0
    assert "no pictures" in capsys.readouterr().out
    assert (tmp_path / "a/report.txt").is_file()


def test_missing_labels_count_nowhere() -> None:
    nan = np.nan
    errors = FitErrors(
        "m", "d",
        energy=np.array([[nan, 1.0], [1.0, 1.5]]),
        forces=np.full((3, 3, 2), [nan, 1.0]),
        stress=np.full((2, 6, 2), nan),
        numbers=np.array([8, 8, 12]),
        structure=np.array([0, 0, 1]),
        config_type=np.array(["", "a"]),
        where=["first", "second"],
    )  # fmt: skip
    table = error_tables(errors)
    assert table["all"]["energy_mae"] == pytest.approx(500.0)
    assert table["all"]["forces_mae"] is None
    assert table["worst"]["forces"] == []
    assert [row["where"] for row in table["worst"]["energy"]] == ["second"]
    assert "(none)" in table["config_type"]
    assert json.dumps(table, allow_nan=False)


def test_a_run_folder_reports_on_its_validation_set(tmp_path: Path, labelled_file: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "model.npz").write_bytes(model_path().read_bytes())
    config = {"data": {"train": "absent.extxyz", "valid": [{"path": str(labelled_file)}]}}
    (run / "run.json").write_text(json.dumps({"config": config}))
    lines = [{"step": 3, "epoch": 1, "train_loss": 1.0, "valid_loss": 0.9, "best": True}]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert cli.main(["report", "fit", str(run)]) == 0
    (table,) = json.loads((run / "report/report.json").read_text())["tables"]
    assert (table["model"], table["data"]) == ("run", "oxides")
    pytest.importorskip("matplotlib")
    assert (run / "report/learning_curve_run.png").is_file()
    assert cli.main(["report", "fit", str(run), str(tmp_path), "--data", str(labelled_file)]) == 1
