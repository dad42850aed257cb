"""Merges: exactly the planted entries are dropped, nothing is lost by interruptions, outputs are whole or absent."""

from __future__ import annotations

import csv
import json
import os
import signal
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms

from aselmdb_tools import write_aselmdb
from grace_md import GraceCalculator
from grace_md.cli import main
from grace_md.data import model_path
from grace_md.merging import Duplicates, Entry, Rule, Split, engine, merge
from grace_md.merging.entries import open_sources
from grace_md.training.data import LabelKeys, Source
from labelled_sets import alloys, labelled, mixed_set
from planted_set import CONTACT, COUNTS, MAX_FORCE, SIZE, Planted, planted_set
from tolerances import EXTXYZ_DIGITS, assert_close

RULES = f"plus-u,pseudopotential,max-force:{MAX_FORCE:g},min-distance:{CONTACT:g},duplicates,stress-outlier"


@pytest.fixture(scope="module")
def calculator() -> GraceCalculator:
    return GraceCalculator(model_path("lava9_1l"))


@pytest.fixture(scope="module")
def planted(calculator: GraceCalculator) -> Planted:
    return planted_set(calculator)


def dropped(path: Path) -> dict[int, str]:
    with path.open(encoding="utf-8") as file:
        return {int(row["row"]): row["rule"] for row in csv.DictReader(file)}


def entries_of(path: Path) -> list[Entry]:
    return [entry for one in open_sources([str(path)]) for part in one.parts for entry in one.read(part)]


def small_pieces(monkeypatch: pytest.MonkeyPatch, part_atoms: int = 60) -> None:
    monkeypatch.setattr(engine, "open_sources", partial(open_sources, part_atoms=part_atoms))


def test_planted_violations_are_found_exactly(
    planted: Planted, calculator: GraceCalculator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "planted.aselmdb"
    write_aselmdb(path, planted.structures)
    small_pieces(monkeypatch, 500)
    assert len(planted.structures) == SIZE
    result = merge([str(path)], tmp_path / "out.aselmdb", RULES, model=calculator, drop_list=tmp_path / "drop.csv",
                   progress=False)  # fmt: skip
    assert result.total_dropped == {"valid": 0, **COUNTS}
    assert dropped(tmp_path / "drop.csv") == {k: rule for k, rule in enumerate(planted.rules) if rule}
    kept = [k for k, rule in enumerate(planted.rules) if not rule]
    assert result.outputs == {str(tmp_path / "out.aselmdb"): len(kept)}
    entries = [
        entry for one in open_sources([str(tmp_path / "out.aselmdb")]) for p in one.parts for entry in one.read(p)
    ]
    assert [entry.frame.values["sid"] for entry in entries] == [f"s{k}" for k in kept]
    for entry, k in zip(entries, kept, strict=True):
        atoms = planted.structures[k]
        assert entry.record is not None
        assert_close(entry.frame.positions, atoms.positions, 0.0)
        assert_close(entry.record.energy, atoms.calc.results["energy"], 0.0)
        assert_close(entry.record.forces, atoms.calc.results["forces"], 0.0)
        assert_close(entry.record.stress, atoms.calc.results["stress"], 0.0)
    summary = json.loads((tmp_path / "out.aselmdb.summary.json").read_text())
    assert summary["kept"] == len(kept) == SIZE - sum(COUNTS.values())
    assert summary["not_judged_by_model"] == 0  # what the model cannot judge was dropped by an earlier rule


def test_a_copy_of_a_dropped_entry_is_not_its_duplicate(tmp_path: Path) -> None:
    atoms = alloys(1)[0]
    atoms.calc.results["forces"] = atoms.calc.results["forces"] + 100.0
    good = atoms.copy()
    labelled(good)
    ase.io.write(tmp_path / "a.extxyz", [atoms, good, good])
    result = merge([str(tmp_path / "a.extxyz")], None, "duplicates,max-force:50", progress=False)
    assert result.total_dropped == {"valid": 0, "max-force": 1, "duplicates": 1}


class Observed(Rule):
    """Drops every third entry; a hook is called with the number of the call."""

    name = "observed"

    def __init__(self, hook: Any = lambda _: None) -> None:
        self.calls = self.judged = 0
        self.hook = hook

    def check(self, entries: Any) -> list[str | None]:
        self.calls += 1
        self.hook(self.calls)
        self.judged += len(entries)
        return ["third" if entry.row % 3 == 0 else None for entry in entries]


def crash(call: int) -> None:
    if call == 4:
        raise OSError("the machine fails")


def terminate(call: int) -> None:
    if call == 4:
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("hook", [crash, terminate])
def test_an_interrupted_merge_goes_on(hook: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_pieces(monkeypatch)
    structures = mixed_set()
    ase.io.write(tmp_path / "a.extxyz", [*structures, *structures[:10]])
    out, other = tmp_path / "out.extxyz", tmp_path / "other.extxyz"
    whole = Observed()
    expected = merge([str(tmp_path / "a.extxyz")], other, [whole, Duplicates()], drop_list=tmp_path / "other.csv",
                     progress=False)  # fmt: skip
    first = Observed(hook)
    options: dict[str, Any] = {"drop_list": tmp_path / "out.csv", "progress": False}
    if hook is crash:
        with pytest.raises(OSError, match="the machine fails"):
            merge([str(tmp_path / "a.extxyz")], out, [first, Duplicates()], **options)
    else:
        assert merge([str(tmp_path / "a.extxyz")], out, [first, Duplicates()], **options).stopped
    assert not out.exists()
    assert not (tmp_path / "out.csv").exists()
    with pytest.raises(FileExistsError, match="interrupted run with other rules"):
        merge([str(tmp_path / "a.extxyz")], out, "max-force:50", **options)
    second = Observed()
    result = merge([str(tmp_path / "a.extxyz")], out, [second, Duplicates()], **options)
    assert 0 < second.judged < whole.judged
    assert second.judged + first.judged == whole.judged
    assert result.total_dropped == expected.total_dropped
    assert result.total_dropped["duplicates"] > 3
    assert out.read_bytes() == other.read_bytes()
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "other.csv").read_bytes()
    assert not list(tmp_path.glob("*.journal"))
    assert not list(tmp_path.glob("*.part"))


def test_a_failing_write_leaves_nothing_and_keeps_the_judgements(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_pieces(monkeypatch)
    ase.io.write(tmp_path / "a.extxyz", mixed_set())
    out = tmp_path / "out.extxyz"

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("grace_md.merging.writers.write_extxyz", fail)
        with pytest.raises(OSError, match="No space left"):
            merge([str(tmp_path / "a.extxyz")], out, [Observed()], progress=False)
    assert not out.exists()
    assert not list(tmp_path.glob("*.part"))
    again = Observed()
    merge([str(tmp_path / "a.extxyz")], out, [again], progress=False)
    assert again.judged == 0
    assert out.exists()


def test_formats_units_and_outputs_agree(tmp_path: Path) -> None:
    structures = mixed_set()
    write_aselmdb(tmp_path / "a.aselmdb", structures)
    ase.io.write(tmp_path / "b.extxyz", structures)
    for atoms in structures:  # as VASP prints: kbar, compressive positive
        if "stress" in atoms.calc.results:
            atoms.calc.results["stress"] = -atoms.calc.results["stress"] / (0.1 * ase.units.GPa)
    ase.io.write(tmp_path / "c.extxyz", structures)
    sets = [
        str(tmp_path / "a.aselmdb"), str(tmp_path / "b.extxyz"),
        Source(str(tmp_path / "c.extxyz"), keys=LabelKeys(stress_unit="-kbar")),
    ]  # fmt: skip
    written = []
    for ending in ("extxyz", "db", "aselmdb"):
        out = tmp_path / f"out.{ending}"
        result = merge(sets, out, "", progress=False)
        assert result.kept == [len(structures)] * 3
        found = entries_of(out)
        n = len(structures)
        for k in range(n):
            first, *others = (found[k + m * n].record for m in range(3))
            assert first is not None
            for other in others:
                assert other is not None
                assert_close(other.energy, first.energy, EXTXYZ_DIGITS)
                assert_close(other.forces, first.forces, EXTXYZ_DIGITS)
                np.testing.assert_allclose(other.stress, first.stress, atol=EXTXYZ_DIGITS, equal_nan=True)
        written.append([(entry.frame.values["merge_row"], entry.frame.values["config_type"]) for entry in found])
    assert written[0] == written[1] == written[2]


def test_ase_reads_our_aselmdb(tmp_path: Path) -> None:
    backends = pytest.importorskip("ase_db_backends.aselmdb")
    structures = alloys(5)
    ase.io.write(tmp_path / "a.extxyz", structures)
    merge([str(tmp_path / "a.extxyz")], tmp_path / "out.aselmdb", "", progress=False)
    with backends.LMDBDatabase(str(tmp_path / "out.aselmdb"), readonly=True) as database:
        rows = [database.get(id=k + 1) for k in range(len(structures))]
    for row, atoms in zip(rows, structures, strict=True):
        assert_close(row.toatoms().get_forces(), atoms.calc.results["forces"], EXTXYZ_DIGITS)


def test_split_by_composition(tmp_path: Path) -> None:
    structures = [*alloys(60, sizes=(1, 2)), *alloys(60, seed=3)]
    ase.io.write(tmp_path / "a.extxyz", structures)
    out = tmp_path / "out.extxyz"
    result = merge([str(tmp_path / "a.extxyz")], out, "", split=Split(0.1, seed=4), progress=False)
    train, test = (ase.io.read(tmp_path / f"out.{part}.extxyz", ":") for part in ("train", "test"))
    assert (len(train), len(test)) == (len(structures) - 12, 12)
    assert sum(result.outputs.values()) == len(structures)

    def reduced(atoms: Atoms) -> Any:
        counts = Counter(atoms.get_chemical_symbols())
        return tuple(sorted((symbol, n / len(atoms)) for symbol, n in counts.items()))

    assert not {reduced(atoms) for atoms in train} & {reduced(atoms) for atoms in test}
    with pytest.raises(FileExistsError, match=r"out.train.extxyz exists; add --force"):
        merge([str(tmp_path / "a.extxyz")], out, "", split=Split(0.1), progress=False)
    ase.io.write(tmp_path / "one.extxyz", [structures[0]] * 30)
    with pytest.raises(ValueError, match="asks for 3 test entries, but the rarest composition has 30"):
        merge([str(tmp_path / "one.extxyz")], tmp_path / "b.extxyz", "", split=Split(0.1), progress=False)


def test_planted_offsets_are_found_and_subtracted(tmp_path: Path) -> None:
    structures = alloys(40)
    ase.io.write(tmp_path / "a.extxyz", structures)
    planted = {"Cu": 0.7, "Ag": -0.2, "Au": 1.3}
    for atoms in structures:
        atoms.calc.results["energy"] += sum(planted[symbol] for symbol in atoms.get_chemical_symbols())
    ase.io.write(tmp_path / "b.extxyz", structures)
    sets = [str(tmp_path / "a.extxyz"), str(tmp_path / "b.extxyz")]
    result = merge(sets, tmp_path / "out.extxyz", "", offsets=True, progress=False)
    (offsets,) = result.offsets.values()
    assert offsets.rank == offsets.n_fitted == 3
    assert offsets.warnings() == []
    for symbol, value in offsets.to_json()["eV_per_atom_of_element"].items():
        assert_close(value, planted[symbol], 1e-7, what=symbol)
    merged = ase.io.read(tmp_path / "out.extxyz", ":")
    for k in range(len(structures)):
        assert_close(merged[40 + k].get_potential_energy(), merged[k].get_potential_energy(), 1e-6)
    assert "rank 3 of 3" in result.text()


def test_offsets_that_explain_little_are_not_subtracted(tmp_path: Path) -> None:
    """Two sets of one method whose structures differ: whatever the fit finds is no difference of methods."""
    rng = np.random.default_rng(6)
    sets = []
    for name in ("a", "b"):
        structures = alloys(40)
        for atoms in structures:
            atoms.calc.results["energy"] += float(rng.normal(0.0, 0.5) * len(atoms))
        ase.io.write(tmp_path / f"{name}.extxyz", structures)
        sets.append(str(tmp_path / f"{name}.extxyz"))
    result = merge(sets, tmp_path / "out.extxyz", "", offsets=True, progress=False)
    (offsets,) = result.offsets.values()
    assert max(abs(value) for value in offsets.values.values()) > 0.05
    assert "NOT subtracted" in result.text()
    assert not any("merge_energy_offset" in atoms.info for atoms in ase.io.read(tmp_path / "out.extxyz", ":"))


def test_offsets_that_are_not_determined_are_said_so(tmp_path: Path) -> None:
    structures = [atoms for atoms in alloys(40) if len(set(atoms.get_chemical_symbols())) > 1][:1]
    other = alloys(1, seed=5)[0]
    other.symbols = "Cu" * len(other)
    labelled(other)
    ase.io.write(tmp_path / "a.extxyz", structures)
    ase.io.write(tmp_path / "b.extxyz", [*structures, other])
    ase.io.write(tmp_path / "c.extxyz", [other])
    sets = [str(tmp_path / name) for name in ("a.extxyz", "b.extxyz", "c.extxyz")]
    result = merge(sets, None, "", offsets=True, progress=False)
    shared, apart = result.offsets.values()
    assert shared.rank == 1
    assert "determine only 1 combinations" in shared.warnings()[0]
    assert "share no composition" in apart.warnings()[0]
    assert apart.of({29: 3}) == 0.0


def test_invalid_labels_are_dropped_and_broken_sets_refused(tmp_path: Path) -> None:
    structures = alloys(6)
    structures[2].calc.results["forces"] = structures[2].calc.results["forces"] * np.inf
    write_aselmdb(tmp_path / "a.aselmdb", structures)
    result = merge([str(tmp_path / "a.aselmdb")], None, "", drop_list=tmp_path / "drop.csv", progress=False)
    assert result.total_dropped == {"valid": 1}
    assert "is infinite" in (tmp_path / "drop.csv").read_text()
    for atoms in structures:
        atoms.calc.results["forces"] = np.full((len(atoms), 3), np.inf)
    write_aselmdb(tmp_path / "b.aselmdb", structures)
    with pytest.raises(ValueError, match=r"No entry of .*b.aselmdb has valid labels; the first one: .*infinite"):
        merge([str(tmp_path / "b.aselmdb")], None, "", progress=False)


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    structures = alloys(12)
    ase.io.write(tmp_path / "a.extxyz", structures)
    (tmp_path / "mine.py").write_text("def silver(entry):\n    return None if 'Ag' in entry.symbols else 'no silver'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    command = ["merge", str(tmp_path / "a.extxyz"), str(tmp_path / "a.extxyz"), "--rules"]
    words = [*command, "duplicates,predicate:mine:silver", "--drop-list", str(tmp_path / "d.csv")]
    assert main([*words, "--dry-run"]) == 0
    dry = capsys.readouterr().out
    n = sum("Ag" in atoms.get_chemical_symbols() for atoms in structures)
    assert not (tmp_path / "out.extxyz").exists()
    assert main([*words, "-o", str(tmp_path / "out.extxyz"), "--force"]) == 0
    assert capsys.readouterr().out.splitlines()[:4] == dry.splitlines()[:4]
    assert len(ase.io.read(tmp_path / "out.extxyz", ":")) == n
    assert (tmp_path / "out.extxyz.png").stat().st_size > 5000
    assert main([*words, "-o", str(tmp_path / "out.extxyz")]) == 1
    assert "exists; add --force" in capsys.readouterr().err
    assert main(["merge", str(tmp_path / "a.extxyz")]) == 1
    assert "`--output` is missing" in capsys.readouterr().err
    assert main([*command, "plus_u", "--dry-run"]) == 1
    assert "did you mean plus-u?" in capsys.readouterr().err
    assert main([*command, "", "-o", str(tmp_path / "out.traj")]) == 1
    assert "the ending '.traj' is unknown" in capsys.readouterr().err
