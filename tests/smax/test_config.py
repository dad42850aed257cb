"""Settings: all described, all checked, errors in one sentence that names the setting."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import pytest

from grace_md.smax.config import SmaxConfig, describe
from grace_md.strict import ConfigError, parse


def leaves(value: Any) -> int:
    return sum(leaves(getattr(value, f.name)) if is_dataclass(getattr(value, f.name)) else 1 for f in fields(value))


def test_every_setting_has_a_help_text_and_a_source() -> None:
    found = list(describe())
    assert len(found) == leaves(SmaxConfig()) == len({setting.name for setting in found})
    assert {setting.source for setting in found} == {"paper", "lammps", "ours"}
    assert all(len(setting.help) > 10 for setting in found)
    named = {setting.name: setting for setting in found}
    assert named["radii.cutoff_factor"].value == 4.0
    assert named["descriptor.twojmax"].source == "paper"


def test_settings_survive_a_file() -> None:
    config = SmaxConfig.of({"elements": {"symbols": ["Fe", "O"]}, "radii": {"table": {"Fe": 1.4}}, "seed": 7})
    assert parse(SmaxConfig, config.plain()) == config
    assert SmaxConfig.of({}) == SmaxConfig()


BAD = [
    ({"elements": {"symbols": ["Fe", "Es"]}}, "`elements` contains Es, for which no covalent radius is tabulated"),
    ({"elements": {"symbols": ["Xx"]}}, "names 'Xx', which is not an element"),
    ({"elements": {"symbols": []}}, "empty list"),
    ({"elements": {"symbols": ["Fe", "Fe"]}}, "names Fe twice"),
    ({"elements": {"symbols": ["Fe"], "weights": {"O": 1.0}}}, "names O, which `elements.symbols` lacks"),
    ({"elements": {"symbols": ["Fe"], "weights": {"Fe": 0.0}}}, "`elements.weights.Fe` = 0 must be positive"),
    ({"radii": {"table": {"Fe": -1.0}}}, "`radii.table.Fe` = -1 must be a positive length"),
    ({"radii": {"width_lo": 1.2, "width_hi": 0.9}}, "`radii.width_hi` = 0.9 is below"),
    ({"radii": {"cutoff_factor": 1.4}}, "no atom sees a neighbour"),
    ({"radii": {"cutof_factor": 4.0}}, "did you mean `cutoff_factor`"),
    ({"density": {"phi_max": 2.0}}, "`density.phi_max` = 2 is impossible"),
    ({"density": {"phi_highest": 4.0}}, "`density.phi_highest` = 4 is impossible"),
    ({"density": {"phi_min": 1.7}}, "must not decrease"),
    ({"density": {"high_fraction": 0.2}}, "exceeds `radii.extreme_fraction`"),
    ({"density": {"low_fraction": 1.0}}, "add up to more than 1"),
    ({"composition": {"n_elements": [0.9, 0.9]}}, "add up to at most 1"),
    ({"composition": {"min_atoms": 40}}, "`composition.max_atoms` = 32 is below"),
    ({"composition": {"mean_atoms": 50.0}}, "`composition.mean_atoms` = 50 must lie between"),
    ({"composition": {"n_atoms": {"-3": 1.0}}}, "is not a number of atoms"),
    ({"composition": {"n_atoms": {"3": 0.0}}}, "no positive weight"),
    ({"composition": {"rule": "neutral"}}, "`composition.charges` lacks H"),
    (
        {"elements": {"symbols": ["Fe"]}, "composition": {"rule": "neutral", "charges": {"Fe": [2, 3]}}},
        "charges of one sign only",
    ),
    ({"elements": {"symbols": ["Fe"]}, "composition": {"rule": "neutral", "charges": {"Fe": []}}}, "is empty"),
    ({"composition": {"rule": "formulas"}}, "`composition.formulas` is empty"),
    ({"composition": {"rule": "formulas", "formulas": {"2Al(": 1.0}}}, "is not a formula"),
    ({"composition": {"rule": "formulas", "formulas": {"UO2": 1.0}}}, "contains U, which `elements.symbols` lacks"),
    ({"composition": {"rule": "formulas", "formulas": {"Al20O30": 1.0}}}, "more atoms than `composition.max_atoms`"),
    ({"seed": -1}, "`seed` = -1 must not be negative"),
    ({"statistics": {"atom_fraction": 1.5}}, "`statistics.atom_fraction` = 1.5 must lie between 0 and 1"),
    ({"statistics": {"ridge": -1e-8}}, "`statistics.ridge` = -1e-08 must not be negative"),
    ({"optimiser": {"history": 0}}, "`optimiser.history` = 0 must be at least 1"),
    ({"optimiser": {"method": "lbfg"}}, "did you mean `lbfgs`"),
    ({"cell": {"max_aspect": 0.5}}, "`cell.max_aspect` = 0.5 must be at least 1"),
]


@pytest.mark.parametrize(("sections", "message"), BAD, ids=lambda value: value if isinstance(value, str) else "")
def test_bad_settings_are_refused_by_name(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        SmaxConfig.of(sections)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_radius_can_be_given() -> None:
    config = SmaxConfig.of({"elements": {"symbols": ["Es"]}, "radii": {"table": {"Es": 1.7}}})
    assert config.radii.table == {"Es": 1.7}
