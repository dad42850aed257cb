"""VASP: inputs against files written by hand, results against known numbers, and a farm from one to the other."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import read, write

from grace_md.cli import main
from grace_md.labels import Farm, LabelFailedError, create_farm
from grace_md.labels.recipes import load_config
from grace_md.labels.vasp.cost import estimate, valence_electrons
from grace_md.labels.vasp.inputs import incar, kpoint_mesh, magmom, potcar_symbols, species_order, write_inputs
from grace_md.labels.vasp.parse import read_run
from label_tools import work
from tolerances import assert_close
from vasp_tools import Run, calculated, outcar, vasprun

TESTS = Path(__file__).resolve().parents[1]
GOLDEN = TESTS / "data/vasp/FeOGdH"
PRINTED = 1e-7  # eV, eV/A: files have 8 decimals
PRINTED_STRESS = 1e-9  # eV/A^3: 8 decimals of kbar


@pytest.fixture(autouse=True)
def _no_potentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VASP_PP_PATH", raising=False)
    monkeypatch.delenv("PMG_VASP_PSP_DIR", raising=False)


def mixed_cell() -> Atoms:
    """Fe, O, Gd, H in an order that VASP does not keep."""
    fractional = [[0, 0, 0], [0.25] * 3, [0.5] * 3, [0.5, 0.5, 0], [0.1, 0.7, 0.3], [0.75, 0.75, 0.25]]
    cell = [[4.1, 0, 0], [0.3, 5.2, 0], [0, -0.4, 6.7]]
    return Atoms("FeOGdFeHO", scaled_positions=fractional, cell=cell, pbc=True)


def results(atoms: Atoms, **changes: Any) -> Run:
    _, order = species_order(atoms)
    return calculated(atoms[order], **changes)


def test_inputs_equal_the_golden_files(tmp_path: Path) -> None:
    write_inputs(mixed_cell(), tmp_path)
    names = sorted(path.name for path in GOLDEN.iterdir())
    assert names == ["INCAR", "POSCAR", "POTCAR.spec"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names  # no POTCAR without PAW data, no KPOINTS
    for name in names:
        assert (tmp_path / name).read_text() == (GOLDEN / name).read_text(), name


def test_the_mesh_follows_kspacing() -> None:
    """n_i = ceil(|b_i| / KSPACING) with b_i = 2 pi a_j x a_k / V."""
    atoms = mixed_cell()
    a = atoms.cell.array
    volume = a[0] @ np.cross(a[1], a[2])
    expected = [
        math.ceil(2 * math.pi * np.linalg.norm(np.cross(a[(i + 1) % 3], a[(i + 2) % 3])) / volume / 0.125)
        for i in range(3)
    ]
    assert list(kpoint_mesh(atoms)) == expected == [13, 10, 8]
    assert kpoint_mesh(Atoms("H", cell=[60, 60, 10], pbc=True)) == (1, 1, 6)


def test_moments_are_run_length_encoded() -> None:
    assert magmom(["Fe", "Fe", "O", "H", "Gd", "Sm", "Sm", "C"]) == "2*2.5 2*1 7.94 2*0.85 1"
    assert magmom(["O"]) == "1"


def test_tags_can_be_changed_and_removed() -> None:
    text = incar(bulk("Fe"), {"encut": 520, "ADDGRID": None, "LASPH": True})
    assert "ENCUT = 520\n" in text
    assert "LASPH = .TRUE.\n" in text
    assert "ADDGRID" not in text
    assert "MAGMOM = 2.5\n" in text


def test_molecules_get_the_gamma_point(tmp_path: Path) -> None:
    atoms = molecule("H2O")
    atoms.center(vacuum=5.0)
    write_inputs(atoms, tmp_path)
    assert (tmp_path / "KPOINTS").read_text().splitlines()[-1] == "1 1 1"
    assert estimate(atoms).mesh == (1, 1, 1)
    with pytest.raises(ValueError, match="three vectors"):
        write_inputs(molecule("H2O"), tmp_path)


@pytest.mark.parametrize("layout", ["ase", "pymatgen"])
def test_potcar_is_assembled_in_the_order_of_poscar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    for symbol in ("Fe", "O", "Gd_3", "H"):
        path = tmp_path / "potpaw_PBE" / symbol / "POTCAR"
        if layout == "pymatgen":
            path = tmp_path / "POT_GGA_PAW_PBE" / f"POTCAR.{symbol}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"PAW of {symbol}\n")
    monkeypatch.setenv("VASP_PP_PATH" if layout == "ase" else "PMG_VASP_PSP_DIR", str(tmp_path))
    write_inputs(mixed_cell(), tmp_path / "job")
    assert (tmp_path / "job/POTCAR").read_text() == "PAW of Fe\nPAW of O\nPAW of Gd_3\nPAW of H\n"
    with pytest.raises(FileNotFoundError, match="no POTCAR of `W"):
        write_inputs(bulk("W"), tmp_path / "other")


def test_recommended_potentials() -> None:
    assert potcar_symbols(["Fe", "Na", "Ca", "Eu", "Yb"]) == ["Fe", "Na_pv", "Ca_sv", "Eu_2", "Yb_2"]


def test_cost_grows_with_electrons_and_points() -> None:
    assert [valence_electrons(z) for z in (1, 8, 13, 14, 26, 19, 50, 74, 82)] == [1, 6, 3, 4, 8, 1, 4, 6, 4]
    small, large = estimate(bulk("Al", cubic=True)), estimate(bulk("Al", cubic=True).repeat((2, 1, 1)))
    assert large.electrons == 2 * small.electrons == 24
    assert large.points < small.points
    assert large.relative > 2.5 * small.relative


@pytest.mark.parametrize("source", ["vasprun", "outcar"])
def test_results_come_back_in_the_order_of_the_structure(tmp_path: Path, source: str) -> None:
    atoms = mixed_cell()
    run = results(atoms)
    if source == "vasprun":
        (tmp_path / "vasprun.xml").write_text(vasprun(run))
    (tmp_path / "OUTCAR").write_text(outcar(run))
    label = read_run(tmp_path, atoms)
    direct = calculated(atoms)  # the same potential without any reordering
    assert_close(label.energy, direct.energy, PRINTED)
    assert_close(label.free_energy, direct.energy - 0.02, PRINTED)
    assert_close(label.forces, direct.forces, PRINTED)
    stress = direct.stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    assert np.abs(stress).min() > 0.0
    assert_close(label.stress, stress, PRINTED_STRESS)
    assert label.extra["kpoints"] == [13, 10, 8]
    _, order = species_order(atoms)
    assert_close(np.array(label.extra["magmoms"])[order], run.moments, 1e-3)  # printed with 3 decimals


@pytest.mark.parametrize("source", ["vasprun", "outcar"])
def test_what_did_not_converge_or_end_is_no_label(tmp_path: Path, source: str) -> None:
    atoms = mixed_cell()
    path = tmp_path / ("vasprun.xml" if source == "vasprun" else "OUTCAR")
    text = vasprun if source == "vasprun" else outcar
    path.write_text(text(results(atoms, steps=119)))
    assert read_run(tmp_path, atoms).energy
    path.write_text(text(results(atoms, steps=120)))
    with pytest.raises(LabelFailedError, match=r"did not converge in 120 steps \(NELM\)"):
        read_run(tmp_path, atoms)
    complete = text(results(atoms))
    path.write_text(complete[: len(complete) - 60])
    with pytest.raises(LabelFailedError, match="interrupted"):
        read_run(tmp_path, atoms)
    path.write_text(text(results(atoms)))
    other = mixed_cell()
    other.positions[2, 0] += 0.01
    with pytest.raises(LabelFailedError, match="other positions"):
        read_run(tmp_path, other)
    with pytest.raises(LabelFailedError, match="not of this structure"):
        read_run(tmp_path, bulk("Cu"))
    with pytest.raises(LabelFailedError, match="has not run"):
        read_run(tmp_path / "nowhere", atoms)


def test_a_farm_whose_runs_are_started_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = [mixed_cell() for _ in range(3)]
    for k, atoms in enumerate(images):
        atoms.rattle(0.05, seed=k)
    write(tmp_path / "in.extxyz", images)
    farm, out = tmp_path / "farm", tmp_path / "out.extxyz"
    assert main(["label", "init", str(tmp_path / "in.extxyz"), "--recipe", "vasp", "-o", str(farm)]) == 0
    assert main(["label", "vasp-write", str(farm), "--dry-run"]) == 0
    folders = [Farm(farm).job_folder(job) for job in (1, 2, 3)]
    assert not any((folder / "INCAR").exists() for folder in folders)
    assert main(["label", "vasp-write", str(farm)]) == 0
    assert "13x10x8 k-points" in capsys.readouterr().out
    for folder, steps in zip(folders[:2], (20, 120), strict=True):
        poscar = read(folder / "POSCAR", format="vasp")
        (folder / "vasprun.xml").write_text(vasprun(calculated(poscar, steps=steps)))
    assert main(["label", "collect", str(farm), "-o", str(out)]) == 0
    said = capsys.readouterr().out
    assert "1 labelled structures" in said
    assert "1 structures are not labelled yet" in said
    assert "did not converge" in (tmp_path / "out.extxyz.failures.csv").read_text()
    assert_close(read(out).get_forces(), calculated(images[0]).forces, 1e-5)  # of files with 8 decimals
    assert main(["label", "run", str(farm)]) == 1  # no command


@pytest.mark.parametrize("steps", [15, 120])
def test_a_farm_that_starts_vasp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    for symbol in ("Fe", "O", "Gd_3", "H"):
        path = tmp_path / "paw" / symbol / "POTCAR"
        path.parent.mkdir(parents=True)
        path.write_text("")
    command = f"{sys.executable} {TESTS / 'vasp_tools.py'} {steps}"
    farm = create_farm(tmp_path / "farm", [mixed_cell()], load_config("vasp", [f"settings.command={command}"]))
    work(farm)
    assert "no POTCAR" in farm.store.reasons()[0][3]
    farm.store.retry()
    monkeypatch.setenv("VASP_PP_PATH", str(tmp_path / "paw"))
    work(farm)
    counts = farm.store.counts()
    assert (counts.done, counts.failed) == ((1, 0) if steps == 15 else (0, 1))
