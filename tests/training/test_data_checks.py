"""Checks of units and signs, and the report of a set."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path

import ase.io
import ase.units
import numpy as np
import pytest
from ase import Atoms

from grace_md.training.data import DataReport, LabelKeys, ShardSet, data_report
from grace_md.training.data.checks import Check, check_records, records_of
from grace_md.training.data.labels import Record, extract, resolve_keys
from grace_md.training.data.readers import frame_from_atoms
from labelled_sets import CUTOFF, ELEMENTS, alloys, cluster, labelled, lone_atom, mixed_set, trajectory, volume_scan

PNG = b"\x89PNG"


def records(structures: list[Atoms], keys: LabelKeys | None = None) -> list[Record]:
    frames = [frame_from_atoms(atoms, row) for row, atoms in enumerate(structures)]
    return [extract(frame, resolve_keys(keys or LabelKeys(), frames, "memory")) for frame in frames]


def check_of(name: str, some: list[Record], keys: LabelKeys | None = None) -> Check:
    return next(check for check in check_records(some, keys) if check.name.startswith(name))


def test_right_labels_pass() -> None:
    some = records(mixed_set())
    for name in ("stress", "forces"):
        check = check_of(name, some)
        assert check.verdict == "ok", check
        assert check.value == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(
    ("unit", "words"),
    [
        ("-eV/A^3", "contradict each other.*they look like eV/A.3: set `stress_unit`"),
        ("GPa", "they look like eV/A.3: set `stress_unit`"),
        ("-kbar", "they look like eV/A.3"),
    ],
)
def test_a_wrong_unit_or_sign_of_stresses_is_named(unit: str, words: str) -> None:
    keys = LabelKeys(stress_unit=unit)
    check = check_of("stress", records(volume_scan(), keys), keys)
    assert check.verdict == "suspicious"
    assert re.search(words, check.message), check.message


@pytest.mark.parametrize(("factor", "unit"), [(1 / ase.units.GPa, "GPa"), (-10 / ase.units.GPa, "-kbar")])
def test_the_unit_of_the_file_is_guessed(factor: float, unit: str) -> None:
    some = [dataclasses.replace(r, stress=r.stress * factor) for r in records(volume_scan())]
    check = check_of("stress", some)
    assert f"they look like {unit}: set `stress_unit`" in check.message


def test_sheared_copies_tell_the_order_of_components() -> None:
    base = alloys(1, seed=6, sizes=(1,))[0]
    structures = []
    for shear in np.linspace(-0.06, 0.06, 7):
        atoms = base.copy()
        strain = np.eye(3)
        strain[0, 1] = strain[1, 0] = shear
        atoms.set_cell(base.cell @ strain, scale_atoms=True)
        structures.append(labelled(atoms))
    assert check_of("stress", records(structures)).verdict == "ok"
    swapped = records(structures, LabelKeys(stress_order="vasp"))
    assert check_of("stress", swapped).verdict != "ok"


def test_wrong_forces_are_named() -> None:
    some = records(trajectory())
    minus = [dataclasses.replace(r, forces=-r.forces) for r in some]
    assert "seem to be gradients" in check_of("forces", minus).message
    keys = LabelKeys(forces_unit="kcal/mol/A")
    check = check_of("forces", records(trajectory(), keys), keys)
    assert check.verdict == "suspicious"
    assert "they look like eV/A: set `forces_unit`" in check.message


@pytest.mark.parametrize("change", [lambda e, n: e / n, lambda e, n: e], ids=["per atom", "total"])
def test_energies_per_atom_are_noticed(change: Callable[[float, int], float]) -> None:
    some = [
        dataclasses.replace(r, energy=change(r.energy - 3.0 * len(r.numbers), len(r.numbers)))
        for r in records(alloys(40, sizes=(1, 2, 3)))
    ]
    check = check_of("energies", some)
    assert (check.verdict == "suspicious") == (change(1.0, 2) != 1.0)
    assert ("eV/atom" in check.message) == (check.verdict == "suspicious")


def test_pressure_and_density_where_nothing_else_speaks() -> None:
    rng = np.random.default_rng(3)
    structures = []
    for scale in np.linspace(0.92, 1.12, 40):
        atoms = alloys(1, seed=int(rng.integers(10**6)))[0]
        atoms.set_cell(atoms.cell * scale, scale_atoms=True)
        structures.append(labelled(atoms))
    assert check_of("pressure", records(structures)).verdict == "ok"
    check = check_of("pressure", records(structures, LabelKeys(stress_unit="-eV/A^3")))
    assert check.verdict == "suspicious"
    assert "minus sign in front of `stress_unit`" in check.message
    huge = check_of("size", records(structures, LabelKeys(stress_unit="Ha/Bohr^3")))
    assert huge.verdict == "suspicious"


def test_little_data_is_inconclusive() -> None:
    assert all(check.verdict != "suspicious" for check in check_records(records([cluster(), lone_atom()])))
    assert check_records([]) == []


def test_records_of_a_set_are_those_of_the_file() -> None:
    structures = mixed_set()
    shards = ShardSet.from_atoms(structures, ELEMENTS, CUTOFF)
    mine, theirs = records_of(shards, np.arange(len(shards))), records(structures)
    for a, b in zip(mine, theirs, strict=True):
        np.testing.assert_array_equal(a.positions, b.positions)
        np.testing.assert_array_equal(a.stress, b.stress)
    assert [c.verdict for c in check_records(mine)] == [c.verdict for c in check_records(theirs)]


# Report ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def report() -> DataReport:
    structures = mixed_set()
    image = structures[0].copy()
    image.positions = image.positions[::-1] + image.cell[1]  # other order, other image
    image.numbers = image.numbers[::-1]
    image.calc = structures[0].calc
    twin = structures[1].copy()
    twin.calc = copy.deepcopy(structures[1].calc)
    twin.calc.results["energy"] += 1.0
    wrong = alloys(1, seed=77)[0]
    wrong.calc.results["energy"] += 500.0
    unbalanced = alloys(1, seed=78)[0]
    unbalanced.calc.results["forces"] = unbalanced.calc.results["forces"] + 1.0
    silent = alloys(1, seed=79)[0]
    del silent.calc.results["forces"], silent.calc.results["stress"]
    close = cluster()
    close.positions[1] = [0.5, 0, 0]
    return data_report([*structures, image, twin, wrong, unbalanced, silent, close], pair_cutoffs=CUTOFF)


def test_report_counts(report: DataReport) -> None:
    s = report.summary
    n = len(mixed_set()) + 6
    assert s["structures"] == n
    counts = {what: number for what, number in s["counts"].items() if number}
    assert counts["copies of other structures"] == 2
    assert counts["copies whose energies differ by more than 0.001 eV/atom"] == 1
    assert counts["structures without forces"] == 1
    assert counts["periodic structures without stress"] == 1
    assert counts["structures without volume"] == 2
    assert counts["structures without any neighbour"] == 1
    assert counts["structures with net forces above 0.05 eV/A per atom"] == 1
    assert counts["structures with contacts below 0.5 of the covalent radii"] == 1
    worst = s["worst"]["energies far from their references (eV/atom)"]
    assert worst[0]["index"] == n - 4
    assert s["worst"]["net forces (eV/A)"][0]["index"] == n - 3
    assert s["worst"]["closest contacts (of the covalent radii)"][0]["index"] == n - 1
    assert sum(row["atoms"] for row in s["elements"].values()) == s["atoms"]
    assert s["config_types"]["scan"]["structures"] == 7
    assert s["distributions"]["atoms per structure"][0] == 1


def test_report_is_readable(report: DataReport, tmp_path: Path) -> None:
    text = report.text()
    for words in ("neighbours per atom", "reference energy", "percentile", "copies of other structures", "checks of"):
        assert words in text
    assert max(map(len, text.splitlines())) < 240
    pytest.importorskip("matplotlib")
    paths = report.write(tmp_path)
    assert json.loads(paths[1].read_text()) == json.loads(json.dumps(report.to_json()))
    assert (tmp_path / "report.png").read_bytes().startswith(PNG)


def test_compositions_that_do_not_determine_the_energies() -> None:
    found = data_report([a for a in alloys(30, seed=8) if set(a.symbols) == set(ELEMENTS)][:1] * 4, ELEMENTS, CUTOFF)
    assert "determine only 1 combinations of the 3 energies of Ag Au Cu" in found.summary["reference_warning"]


def test_a_set_without_energies_or_stresses(tmp_path: Path) -> None:
    structures = [cluster() for _ in range(3)]
    for atoms in structures:
        del atoms.calc.results["energy"]
    found = data_report(structures, ELEMENTS, CUTOFF)
    assert found.summary["reference_warning"] == "There are no energies."
    assert "3  structures without energy" in found.text()
    pytest.importorskip("matplotlib")
    found.figure(tmp_path / "r.png")


STARTER = Path(__file__).resolve().parents[3] / "shared" / "starter" / "data" / "val.extxyz"


@pytest.mark.skipif(not STARTER.exists(), reason="the starter data set is not here")
def test_starter_data() -> None:
    structures = ase.io.read(STARTER, ":")
    found = data_report(structures)
    assert [check["verdict"] for check in found.summary["checks"]] == ["ok", "ok", "ok"]
    assert found.summary["counts"]["copies of other structures"] == 0
