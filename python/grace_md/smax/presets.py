"""Settings for common purposes, and files of settings with every constant, its meaning and its source."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ase.data import atomic_numbers

from grace_md.smax.config import Setting, SmaxConfig, describe
from grace_md.smax.run_settings import RunSettings
from grace_md.strict import ConfigError, apply_overrides, parse, read_mapping

__all__ = ["OXIDATION_STATES", "PRESETS", "constants_table", "load_config", "preset", "settings_file", "split_config"]

# Charges of elements in oxides, from the formulas of their common oxides (MO, M2O3, ...); O has -2.
OXIDATION_STATES: dict[str, list[int]] = {
    "H": [1], "Li": [1], "Be": [2], "B": [3], "C": [4], "N": [5], "Na": [1], "Mg": [2], "Al": [3], "Si": [4],
    "P": [5], "S": [6], "K": [1], "Ca": [2], "Sc": [3], "Ti": [3, 4], "V": [3, 4, 5], "Cr": [3, 6], "Mn": [2, 3, 4],
    "Fe": [2, 3], "Co": [2, 3], "Ni": [2], "Cu": [1, 2], "Zn": [2], "Ga": [3], "Ge": [4], "As": [3, 5], "Rb": [1],
    "Sr": [2], "Y": [3], "Zr": [4], "Nb": [4, 5], "Mo": [4, 6], "Ru": [4], "Rh": [3], "Pd": [2], "Ag": [1],
    "Cd": [2], "In": [3], "Sn": [2, 4], "Sb": [3, 5], "Te": [4], "Cs": [1], "Ba": [2], "La": [3], "Ce": [3, 4],
    "Pr": [3], "Nd": [3], "Sm": [3], "Eu": [2, 3], "Gd": [3], "Tb": [3], "Dy": [3], "Ho": [3], "Er": [3], "Tm": [3],
    "Yb": [3], "Lu": [3], "Hf": [4], "Ta": [5], "W": [4, 6], "Re": [4, 6], "Os": [4], "Ir": [4], "Pt": [2, 4],
    "Hg": [2], "Tl": [1, 3], "Pb": [2, 4], "Bi": [3],
}  # fmt: skip
OXIDE_ELEMENTS = ("Li", "Na", "K", "Mg", "Ca", "Ba", "Al", "Si", "Ti", "Mn", "Fe", "Zn", "Zr", "P")


def _symbols(words: str, name: str) -> list[str]:
    found = [word.strip() for word in words.split(",") if word.strip()]
    for symbol in found:
        if symbol not in atomic_numbers or symbol == "X":
            raise ConfigError(f"`--preset {name}:{words}`: `{symbol}` is no element; write symbols such as Mo,Nb,Ta,W.")
    if len(set(found)) < len(found):
        raise ConfigError(f"`--preset {name}:{words}` names an element twice; name each one once.")
    return found


# Of atoms of different size. With the rule of the centre a large atom among small ones has hundreds of neighbours and
# features that dwarf all others: after some hundred structures only more of the kind are accepted.
PAIR_RULE = {"cutoff_rule": "pair"}
# Beyond some hundred structures only ever denser ones raise the entropy: sets of this size, one after another.
STATISTICS = {"seed_items_per_feature": 40.0, "restart_after": 450}
PAPER = {"descriptor": PAIR_RULE, "statistics": STATISTICS}
# Ours: with the sixth root of its components, a descriptor has fluctuations of the same size at all densities.
ROOT = {**PAIR_RULE, "power": 1.0 / 6.0}


def _paper(words: str) -> dict[str, Any]:
    _no_elements(words, "paper")
    return dict(PAPER)


def _paper_narrow(words: str) -> dict[str, Any]:
    _no_elements(words, "paper-narrow")
    return {**PAPER, "radii": {"width_lo": 0.85, "width_hi": 1.15}}


def _no_elements(words: str, name: str) -> None:
    if words:
        raise ConfigError(f"`--preset {name}:{words}`: {name} takes no elements; use alloy:{words}.")


def _alloy(words: str) -> dict[str, Any]:
    symbols = _symbols(words, "alloy")
    if len(symbols) < 2:
        raise ConfigError("`--preset alloy` needs at least two elements: alloy:Mo,Nb,Ta,W; one element is single:W.")
    return {
        "elements": {"symbols": symbols, "weights": "uniform"},
        "composition": {"n_elements": [1.0 / len(symbols)] * len(symbols), "max_elements": len(symbols)},
        "density": {"phi_min": 0.4},
        "descriptor": ROOT,
        "statistics": STATISTICS,
    }


def _oxide(words: str) -> dict[str, Any]:
    cations = [symbol for symbol in _symbols(words, "oxide") or OXIDE_ELEMENTS if symbol != "O"]
    unknown = [symbol for symbol in cations if symbol not in OXIDATION_STATES]
    if unknown or not cations:
        raise ConfigError(
            f"`--preset oxide:{words}`: no charge is known for {' '.join(unknown) or 'no cation'}; take other "
            "elements, or write the file for some and add to `composition.charges`."
        )
    others = min(len(cations), 4)  # cations besides oxygen
    weights = [0.5, 0.3, 0.15, 0.05][:others]
    return {
        "elements": {"symbols": ["O", *cations], "weights": {"O": 100.0}},
        "composition": {
            "n_elements": [0.0, *(weight / sum(weights) for weight in weights)],
            "max_elements": others + 1,
            "min_atoms": 2,
            "rule": "neutral",
            "charges": {"O": [-2], **{symbol: OXIDATION_STATES[symbol] for symbol in cations}},
        },
        "descriptor": ROOT,
        "statistics": STATISTICS,
    }


def _single(words: str) -> dict[str, Any]:
    symbols = _symbols(words, "single")
    if len(symbols) != 1:
        raise ConfigError("`--preset single` needs one element, for example single:Sn.")
    # One element soon runs out of new environments: a set that begins with many random ones of ordinary density, and
    # small cells, keep three of four candidates acceptable over the first hundreds of structures.
    return {
        "elements": {"symbols": symbols, "weights": "uniform"},
        "composition": {"n_elements": [1.0], "max_elements": 1, "n_atoms": "uniform", "min_atoms": 4, "max_atoms": 10},
        "density": {"phi_min": 0.35, "phi_max": 0.7, "high_fraction": 0.0, "low_fraction": 0.0},
        "radii": {"extreme_fraction": 0.0},
        "statistics": {"seed_items_per_feature": 40.0},
        "optimiser": {"give_up_after": 0},
    }


PRESETS: dict[str, tuple[Callable[[str], dict[str, Any]], str]] = {
    "paper": (_paper, "88 elements, the constants of the paper where they are known"),
    "paper-narrow": (_paper_narrow, "the same with radii within 15 % of the covalent ones"),
    "alloy": (_alloy, "alloy:Mo,Nb,Ta,W: all subsets of some metals"),
    "oxide": (_oxide, "oxide or oxide:Fe,Al: charge-neutral oxides"),
    "single": (_single, "single:Sn: one element"),
}


def preset(word: str) -> SmaxConfig:
    """Return the settings of ``paper``, ``alloy:Mo,Nb,Ta,W``, ``oxide``, ``oxide:Fe,Al``, ``single:Sn``, ...

    Raises ConfigError for an unknown preset and for elements that do not fit it.
    """
    name, _, words = word.partition(":")
    if name not in PRESETS:
        raise ConfigError(f"`--preset {word}` is unknown; the presets are {', '.join(PRESETS)}.")
    return SmaxConfig.of(PRESETS[name][0](words))


def settings_file(config: SmaxConfig, run: RunSettings | None = None, title: str = "") -> str:
    """Return all settings as YAML with a comment on each: what it means and where its default comes from."""
    run = RunSettings() if run is None else run
    defaults = {setting.name: setting.value for setting in describe()}
    lines = [f"# {title}"] if title else []
    lines += [
        "# Settings of `grace-md smax generate`. The word in brackets says where a default comes from: [paper]",
        "# (arXiv 2602.23489), [lammps] or [ours]; [preset] is a value of the preset instead of the default.",
    ]
    section = ""
    for setting in [*describe(config), *describe(run, "run.")]:
        outer, _, key = setting.name.rpartition(".")
        if outer != section:
            lines += ["", f"{outer}:"]
            section = outer
        changed = setting.name in defaults and defaults[setting.name] != setting.value
        lines += _entry(setting, key, "  " if outer else "", "preset" if changed else setting.source)
    return "\n".join(lines) + "\n"


def _entry(setting: Setting, key: str, indent: str, source: str) -> Sequence[str]:
    # JSON is YAML, but for numbers such as 1e-08, which YAML 1.1 takes for text unless they have a dot.
    value = json.dumps(setting.value)
    if isinstance(setting.value, float) and "e" in value and "." not in value:
        value = value.replace("e", ".0e")
    mark = f"{indent}# "
    comment = textwrap.wrap(f"{setting.help} [{source}]", 118, initial_indent=mark, subsequent_indent=mark)
    return [*comment, f"{indent}{key}: {value}"]


def constants_table() -> str:
    """Return the table of docs/smax.md: every setting with its default, the source of that, and its meaning."""
    lines = ["| setting | default | source | meaning |", "|---|---|---|---|"]
    for setting in [*describe(), *describe(RunSettings(), "run.")]:
        value = json.dumps(setting.value).strip('"')
        meaning = setting.help.replace("|", r"\|")
        lines.append(f"| `{setting.name}` | {value} | {setting.source} | {meaning} |")
    return "\n".join(lines) + "\n"


def load_config(path: Path | str, overrides: Sequence[str] = ()) -> tuple[SmaxConfig, RunSettings]:
    """Read a file of settings; `overrides` are words such as ``seed=7`` or ``density.phi_max=1.2``.

    Raises FileNotFoundError or ConfigError in one sentence.
    """
    return split_config(apply_overrides(read_mapping(path), overrides))


def split_config(mapping: Mapping[str, Any]) -> tuple[SmaxConfig, RunSettings]:
    """Return the settings that decide what is generated, and those of section `run`."""
    rest = dict(mapping)
    run = parse(RunSettings, rest.pop("run", {}), "run")
    run.check()
    return SmaxConfig.of(rest), run
