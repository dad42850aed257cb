"""Run files: strict keys, types, overrides, and settings that do not go together."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grace_md.strict import ConfigError, apply_overrides, read_mapping
from grace_md.training.config import RunConfig, load_config
from grace_md.training.cutoffs import TABLE_9, element_cutoffs, pair_cutoffs


def config(**sections: Any) -> RunConfig:
    return RunConfig.of({"data": {"train": "train.extxyz"}, **sections})


def test_defaults_are_those_of_the_paper_where_known() -> None:
    c = config()
    assert (c.fit.lr, c.fit.min_lr, c.fit.ema, c.fit.clip_norm) == (8e-3, 5e-4, 0.99, 1.0)
    assert (c.loss.energy, c.loss.forces, c.loss.stress) == (16.0, 32.0, 128.0)
    assert c.loss.deltas() == (0.01, 0.01, 0.01)
    assert c.model.sizes() == {}
    assert c.finetune is None


def test_fine_tuning_has_a_lower_rate() -> None:
    c = config(model={"start": "model.npz"})
    assert c.fit.lr == 1e-3
    assert c.fit.min_lr == 1e-4
    assert c.finetune is not None
    assert config(model={"start": "model.npz"}, fit={"lr": 5e-5}).fit.min_lr == 5e-5


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"fit": {"minimal_lr": 1e-4}}, r"unknown key `minimal_lr` in `fit`; did you mean `min_lr`\?"),
        ({"los": {}}, r"unknown key `los`; did you mean `loss`\?"),
        ({"data": {"train": [{"path": "a", "energykey": "E"}]}}, r"unknown key `energykey` in `data.train\[0\]`"),
        ({"data": {}}, r"`data.train` is missing"),
        ({"fit": {"lr": "fast"}}, r"`fit.lr` is text \('fast'\), not a number"),
        ({"fit": {"lr": float("nan")}}, r"`fit.lr` = nan must be finite"),
        ({"fit": {"epochs": 1.5}}, r"`fit.epochs` is a number \(1.5\), not a whole number"),
        ({"fit": {"epochs": True}}, r"`fit.epochs` is true/false"),
        ({"fit": {"precision": "fp16"}}, r"`fit.precision` = 'fp16' must be one of mixed, fp64"),
        ({"fit": {"optimiser": "adm"}}, r"did you mean `adam`\?"),
        ({"fit": {"lr": 1e-4, "min_lr": 5e-4}}, r"`fit.min_lr` = 0.0005 is larger than `fit.lr` = 0.0001"),
        ({"fit": {"ema": 1.0}}, r"`fit.ema` = 1 must lie in \[0, 1\)"),
        ({"fit": {"weight_decay": 0.1}}, r"use `fit.optimiser: adamw`"),
        ({"fit": {"batch": 0}}, r"`fit.batch` = 0 must be positive"),
        ({"fit": []}, r"`fit` is a list \(\[\]\), not a section"),
        ({"loss": {"energy": 0, "forces": 0, "stress": 0}}, r"all weights of `loss` are zero"),
        ({"loss": {"forces": -1}}, r"`loss.forces` = -1 must not be negative"),
        ({"loss": {"delta": {"energy": 0.1}}}, r"`loss.delta` must be one number, or a section"),
        ({"loss": {"switch": {"at": 2, "energy": 1, "forces": 1, "stress": 1}}}, r"`loss.switch.at` = 2 must lie"),
        ({"loss": {"switch": {"at": 0.5}}}, r"`loss.switch.energy` is missing"),
        ({"finetune": {}}, r"`finetune` needs `model.start`"),
        ({"model": {"start": "m.npz", "preset": "1L-small"}}, r"`model.preset` contradicts `model.start`"),
        ({"model": {"cutoffs": "table8"}}, r"`model.cutoffs` = 'table8' must be one of table9"),
        ({"data": {"train": "a", "valid": "b", "split": 0.1}}, r"`data.split` and `data.valid` are both given"),
        ({"data": {"train": {"path": "a", "weight": -1.0}}}, r"`weight` = -1 of `a` must be positive"),
    ],
)
def test_one_sentence_names_the_setting(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        config(**sections)
    assert "\n" not in str(caught.value)


def test_yaml_numbers_without_a_dot_are_numbers(tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    path = tmp_path / "run.yaml"
    path.write_text("data: {train: a.extxyz}\nfit: {lr: 8e-4, epochs: 3}\n")
    assert load_config(path).fit.lr == 8e-4


@pytest.mark.parametrize("ending", ["yaml", "json", "toml"])
def test_three_formats_say_the_same(tmp_path: Path, ending: str) -> None:
    texts = {
        "yaml": "data:\n  train: a.extxyz\nloss:\n  switch: {at: 0.8, energy: 128, forces: 32, stress: 32}\n",
        "json": json.dumps(
            {
                "data": {"train": "a.extxyz"},
                "loss": {"switch": {"at": 0.8, "energy": 128, "forces": 32, "stress": 32}},
            }
        ),
        "toml": '[data]\ntrain = "a.extxyz"\n[loss.switch]\nat = 0.8\nenergy = 128\nforces = 32\nstress = 32\n',
    }
    if ending == "toml" and sys.version_info < (3, 11):
        pytest.skip("tomllib comes with Python 3.11")
    if ending == "yaml":
        pytest.importorskip("yaml")
    path = tmp_path / f"run.{ending}"
    path.write_text(texts[ending])
    found = load_config(path)
    assert found.loss.switch is not None
    assert found.loss.switch.energy == 128.0


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("run.yaml", "data: {train: a}\ndata: {train: b}\n", "`data` appears twice"),
        ("run.yaml", "data: [unclosed\n", "is not valid YAML"),
        ("run.yaml", "- 1\n", "holds a list"),
        ("run.json", '{"data": 1, "data": 2}', "`data` appears twice"),
        ("run.json", "{", "is not valid JSON"),
        ("run.ini", "", "ends in `.ini`"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, text: str, message: str) -> None:
    if name.endswith("yaml"):
        pytest.importorskip("yaml")
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_mapping(path)
    with pytest.raises(FileNotFoundError, match="no run file"):
        read_mapping(tmp_path / "absent.yaml")


def test_json_works_without_pyyaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    (tmp_path / "run.json").write_text('{"data": {"train": "a"}}')
    assert load_config(tmp_path / "run.json").data.train is not None
    (tmp_path / "run.yaml").write_text("data: {train: a}")
    with pytest.raises(ConfigError, match="needs PyYAML"):
        load_config(tmp_path / "run.yaml")


def test_overrides() -> None:
    start = {"data": {"train": "a"}, "fit": {"lr": 1.0, "seed": 3}}
    found = apply_overrides(start, ["fit.lr=0.004", "output.dir=run7", "fit.seed=null", 'model.elements=["O", "Si"]'])
    assert found["fit"] == {"lr": 0.004}
    assert found["output"] == {"dir": "run7"}
    assert found["model"]["elements"] == ["O", "Si"]
    assert start["fit"]["lr"] == 1.0
    for bad in ("fit.lr", "=3", "fit.lr.x=3"):
        with pytest.raises(ConfigError, match="--set"):
            apply_overrides(start, [bad])


def test_inputs_are_found_beside_the_run_file(tmp_path: Path) -> None:
    (tmp_path / "here.extxyz").write_text("")
    (tmp_path / "run.json").write_text('{"data": {"train": ["here.extxyz", "elsewhere.extxyz"]}}')
    sources = load_config(tmp_path / "run.json").data.train
    assert isinstance(sources, list)
    assert [source.path for source in sources if not isinstance(source, str)] == [
        str(tmp_path / "here.extxyz"),
        "elsewhere.extxyz",
    ]


def test_cutoffs_by_table_number_and_mapping() -> None:
    assert element_cutoffs("table9", ["K", "O", "Si", "U"]) == {"K": 7.0, "O": 6.0, "Si": 5.5, "U": 6.0}
    assert len(TABLE_9) == 22
    assert element_cutoffs(4.5, ["K", "O"]) == {"K": 4.5, "O": 4.5}
    found = element_cutoffs({"Si": 5.5, "default": 6.0}, ["Si", "O"])
    np.testing.assert_array_equal(pair_cutoffs(found, ["Si", "O"]), [[5.5, 5.75], [5.75, 6.0]])
    with pytest.raises(ConfigError, match="no cutoff for O"):
        element_cutoffs({"Si": 5.5}, ["Si", "O"])
    with pytest.raises(ConfigError, match="`Sili`, which is neither"):
        element_cutoffs({"Sili": 5.5}, ["Si"])
    with pytest.raises(ConfigError, match="gives Si -1 A"):
        element_cutoffs(-1.0, ["Si"])
