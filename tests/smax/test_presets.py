"""Presets, files of settings, and the page that lists all constants."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from ase.data import atomic_numbers

from grace_md import cli
from grace_md.smax.config import SmaxConfig, describe
from grace_md.smax.presets import OXIDATION_STATES, PRESETS, constants_table, load_config, preset, settings_file
from grace_md.smax.run_settings import RunSettings
from grace_md.smax.sampling import Sampler
from grace_md.strict import ConfigError

WORDS = ["paper", "paper-narrow", "alloy:Mo,Nb,Ta,W", "alloy:Al,Cu", "oxide", "oxide:Fe,Al", "oxide:Si", "single:Sn"]
PAGE = Path(__file__).resolve().parents[2] / "docs/smax.md"


@pytest.mark.parametrize("word", WORDS)
def test_init_writes_what_the_strict_reader_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], word: str
) -> None:
    pytest.importorskip("yaml")
    for name in ("config.yaml", "config.json"):
        file = tmp_path / name
        assert cli.main(["smax", "init", "--preset", word, "-o", str(file)]) == 0
        assert load_config(file) == (preset(word), RunSettings())
        assert cli.main(["smax", "init", "--preset", word, "-o", str(file)]) == 1
    assert "--force" in capsys.readouterr().err
    assert cli.main(["smax", "init", "--preset", word]) == 0
    assert capsys.readouterr().out == (tmp_path / "config.yaml").read_text()


def test_every_constant_has_a_comment_with_its_source() -> None:
    text = settings_file(preset("single:Sn"))
    for setting in [*describe(), *describe(RunSettings())]:
        key = setting.name.rpartition(".")[2]
        assert re.search(rf"^ *# .*\[(paper|lammps|ours|preset)\]\n +{key}: |^# .*\]\n{key}: ", text, re.MULTILINE), key
    assert "[preset]\n  symbols:" in text
    assert settings_file(preset("paper")).split("seed:")[1].count("[preset]") == 3
    assert max(map(len, text.splitlines())) <= 120


def test_paper_is_the_defaults_with_many_sizes_of_atoms_in_mind() -> None:
    statistics = {"seed_items_per_feature": 40.0, "restart_after": 450}
    changes = {"descriptor": {"cutoff_rule": "pair"}, "statistics": statistics}
    assert preset("paper") == SmaxConfig.of(changes)
    narrow = preset("paper-narrow").radii
    assert (narrow.width_lo, narrow.width_hi) == (0.85, 1.15)


@pytest.mark.parametrize("word", WORDS)
def test_presets_can_be_drawn_from(word: str) -> None:
    sampler = Sampler(preset(word))
    drawn = [sampler.draw(index) for index in range(60)]
    kinds = [set(candidate.numbers.tolist()) for candidate in drawn]
    if word.startswith("alloy"):
        metals = {atomic_numbers[symbol] for symbol in word.partition(":")[2].split(",")}
        assert set().union(*kinds) == metals
        assert {len(kind) for kind in kinds} == set(range(1, len(metals) + 1))
    if word.startswith("oxide"):
        assert all(8 in kind and len(kind) > 1 for kind in kinds)
    if word.startswith("single"):
        assert kinds == [{50}] * 60


def test_iron_oxides_have_charges_that_add_up() -> None:
    sampler = Sampler(preset("oxide:Fe"))
    for index in range(40):
        numbers = sampler.draw(index).numbers
        iron, oxygen = np.sum(numbers == 26), np.sum(numbers == 8)
        assert 2 * iron <= 2 * oxygen <= 3 * iron


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("papr", r"`--preset papr` is unknown; the presets are paper, paper-narrow, alloy, oxide, single\."),
        ("paper:Fe", r"paper takes no elements; use alloy:Fe"),
        ("alloy:Mo,Xx", r"`Xx` is no element"),
        ("alloy:Mo,Mo", r"names an element twice"),
        ("alloy:W", r"needs at least two elements"),
        ("alloy", r"needs at least two elements"),
        ("single:Sn,Pb", r"needs one element, for example single:Sn"),
        ("oxide:He", r"no charge is known for He"),
    ],
)
def test_bad_presets(capsys: pytest.CaptureFixture[str], word: str, message: str) -> None:
    assert cli.main(["smax", "init", "--preset", word]) == 1
    error = capsys.readouterr().err
    assert re.search(message, error)
    assert error.count("\n") == 1


def test_settings_of_a_file_are_strict(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    for content, message in (
        ({"run": {"batches": 3}}, r"unknown key `batches` in `run`; did you mean `batch`\?"),
        ({"run": {"batch": 0}}, r"`run.batch` = 0 must be at least 1"),
        ({"radius": {}}, r"unknown key `radius`"),
    ):
        file.write_text(json.dumps(content))
        with pytest.raises(ConfigError, match=message):
            load_config(file)
    file.write_text(json.dumps({"run": {"batch": 4}}))
    config, run = load_config(file, ["seed=7", "density.phi_max=1.2", "run.round_batches=2"])
    assert (config.seed, config.density.phi_max, run.batch, run.round_batches) == (7, 1.2, 4, 2)


def test_tables_of_presets() -> None:
    assert all(symbol in atomic_numbers and states for symbol, states in OXIDATION_STATES.items())
    assert all(state > 0 for states in OXIDATION_STATES.values() for state in states)
    assert set(PRESETS) == {word.partition(":")[0] for word in WORDS}


def test_the_page_lists_every_constant() -> None:
    """The table of docs/smax.md is what `constants_table` returns."""
    table = constants_table()
    assert table in PAGE.read_text(encoding="utf-8"), f"put this into docs/smax.md:\n{table}"
    assert table.count("\n") == 2 + len(list(describe())) + len(list(describe(RunSettings())))
