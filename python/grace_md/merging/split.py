"""A test part that shares no composition with the training part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

__all__ = ["Split", "choose_compositions", "parse_split"]


@dataclass(frozen=True)
class Split:
    """How a test part is chosen.

    Attributes
    ----------
    fraction : of the entries, in (0, 1)
    seed : of the order in which compositions are drawn
    """

    fraction: float
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.0 < self.fraction < 1.0:
            raise ValueError(f"`--split composition:{self.fraction:g}`: the fraction must be between 0 and 1.")


def parse_split(text: str, seed: int) -> Split:
    """Return the split of words such as ``composition:0.02``; ValueError for others."""
    kind, _, number = text.partition(":")
    try:
        fraction = float(number)
    except ValueError:
        fraction = float("nan")
    if kind != "composition" or fraction != fraction:  # noqa: PLR0124 - NaN
        raise ValueError(f"`--split {text}` is not understood; write composition:FRACTION, such as composition:0.02.")
    return Split(fraction, seed)


def choose_compositions(counts: Mapping[str, int], split: Split) -> set[str]:
    """Return the reduced compositions of the test part: drawn at random while they fit into its size.

    Parameters
    ----------
    counts : entries by composition

    Raises ValueError where every composition has more entries than the test part may have.
    """
    target = round(split.fraction * sum(counts.values()))
    names = sorted(counts)
    chosen: set[str] = set()
    size = 0
    for k in np.random.default_rng(split.seed).permutation(len(names)):
        if size + counts[names[k]] <= target:
            chosen.add(names[k])
            size += counts[names[k]]
        if size == target:
            break
    if not chosen:
        smallest = min(counts.values(), default=0)
        raise ValueError(
            f"`--split composition:{split.fraction:g}` asks for {target} test entries, but the rarest composition "
            f"has {smallest}; choose a larger fraction, or split in another way."
        )
    return chosen
