"""From words such as ``plus-u,pseudopotential:Gd+Eu+Yb,max-force:50`` to rules."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any

from grace_md.merging.duplicates import TOLERANCE, Duplicates
from grace_md.merging.rules import (
    Elements,
    MaxForce,
    MaxStress,
    MinDistance,
    PlusU,
    Predicate,
    Pseudopotential,
    Rule,
)
from grace_md.merging.stress import STRESS_LIMIT, StressOutlier

__all__ = ["RULE_NAMES", "ordered", "parse_rules"]

RULE_NAMES = (
    "plus-u", "pseudopotential", "elements", "max-force", "max-stress", "min-distance", "duplicates", "stress-outlier",
    "predicate",
)  # fmt: skip
NEED_VALUE = {
    "elements": "O+Si", "max-force": "50", "max-stress": "1.0", "min-distance": "0.5", "predicate": "module:function"
}  # fmt: skip


def _number(name: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise ValueError(f"rule `{name}:{value}`: {value!r} is not a number.") from None


def _one(word: str, model: Any) -> Rule:
    name, _, value = word.partition(":")
    if name not in RULE_NAMES:
        close = get_close_matches(name, RULE_NAMES, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise ValueError(f"rule `{name}` is unknown{hint}; the rules are {', '.join(RULE_NAMES)}.")
    if name in NEED_VALUE and not value:
        raise ValueError(f"rule `{name}` needs a value: {name}:{NEED_VALUE[name]}.")
    symbols = [symbol for symbol in value.split("+") if symbol]
    if name == "stress-outlier":
        if model is None:
            raise ValueError("rule `stress-outlier` needs a model: add --model FILE.npz.")
        return StressOutlier(model, _number(name, value) if value else STRESS_LIMIT)
    makers: dict[str, Callable[[], Rule]] = {
        "plus-u": lambda: PlusU(symbols) if value else PlusU(),
        "pseudopotential": lambda: Pseudopotential(symbols) if value else Pseudopotential(),
        "elements": lambda: Elements(symbols),
        "max-force": lambda: MaxForce(_number(name, value)),
        "max-stress": lambda: MaxStress(_number(name, value)),
        "min-distance": lambda: MinDistance(_number(name, value)),
        "duplicates": lambda: Duplicates(_number(name, value) if value else TOLERANCE),
        "predicate": lambda: Predicate(value),
    }
    return makers[name]()


def parse_rules(text: str, model: Any = None) -> list[Rule]:
    """Return the rules of a list of words separated by commas.

    Parameters
    ----------
    text : names of RULE_NAMES, with values after a colon; elements are joined by +
    model : GraceCalculator or weight file for `stress-outlier`

    Raises ValueError in one sentence for names and values that are not understood.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    twice = [word for k, word in enumerate(words) if word in words[:k]]
    if twice:
        raise ValueError(f"rule `{twice[0]}` is listed twice.")
    return [_one(re.sub(r"\s*:\s*", ":", word, count=1), model) for word in words]


def ordered(rules: Sequence[Rule]) -> list[Rule]:
    """Return the rules with those last that depend on what was kept: an entry must not be a copy of a dropped one."""
    return sorted(rules, key=lambda rule: rule.stateful)
