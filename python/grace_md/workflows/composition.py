"""Compositions of the quench runs: how many atoms of which element."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from ase.data import atomic_numbers

__all__ = ["LAVA", "MENDELEEV_PER_ELEMENT", "equal_composition", "parse_composition", "scale_composition"]

# Table 8 of "Exploring the extremes": the nine most abundant elements of the Earth's crust, 4,983 atoms.
LAVA: dict[str, int] = {
    "O": 2305,
    "Si": 1410,
    "Al": 412,
    "Fe": 282,
    "Ca": 208,
    "Na": 118,
    "Mg": 116,
    "K": 104,
    "Ti": 28,
}

# The paper's "Mendeleev" system holds 106 atoms of each of 94 elements.
MENDELEEV_PER_ELEMENT = 106


def scale_composition(composition: Mapping[str, int], n_atoms: int) -> dict[str, int]:
    """Scale a composition to `n_atoms` atoms by the largest-remainder method.

    Every element keeps at least one atom when `n_atoms` allows it, so that a small cell still holds the trace
    elements; those atoms are taken from the most abundant element.

    Parameters
    ----------
    composition : mapping of str to int
        Atoms of each element.
    n_atoms : int
        Wanted total.

    Returns
    -------
    dict of str to int
        Atoms of each element in the order of `composition`, with the exact total `n_atoms`.

    Raises
    ------
    ValueError
        If `n_atoms` is smaller than the number of elements.
    """
    total = sum(composition.values())
    if n_atoms < len(composition):
        raise ValueError(
            f"`n_atoms` = {n_atoms} cannot hold all {len(composition)} elements; give at least one atom per element."
        )
    quotas = {element: n_atoms * count / total for element, count in composition.items()}
    counts = {element: max(1, math.floor(quota)) for element, quota in quotas.items()}
    missing = n_atoms - sum(counts.values())
    # sorted() is stable, so equal remainders are served in the order of the composition.
    by_remainder = sorted(quotas, key=lambda element: math.floor(quotas[element]) - quotas[element])
    for element in by_remainder[: max(0, missing)]:
        counts[element] += 1
    for _ in range(-missing):
        counts[max(counts, key=lambda element: counts[element])] -= 1
    return counts


def equal_composition(elements: Iterable[str], per_element: int) -> dict[str, int]:
    """Return the same number of atoms of every element (the "Mendeleev" mixture of the paper).

    Raises
    ------
    ValueError
        If `per_element` is not positive or no element is given.
    """
    counts = dict.fromkeys(_checked(elements), per_element)
    if per_element < 1:
        raise ValueError(f"`per_element` = {per_element} must be positive; the paper uses {MENDELEEV_PER_ELEMENT}.")
    if not counts:
        raise ValueError("`elements` is empty; name at least one element.")
    return counts


def parse_composition(text: str) -> dict[str, int]:
    """Read a composition such as ``"O=115,Si=70,Al=21"``.

    Raises
    ------
    ValueError
        If an entry is not ``Element=count`` with a known element and a positive count.
    """
    counts: dict[str, int] = {}
    for entry in text.split(","):
        element, _, count = (part.strip() for part in entry.partition("="))
        if not count.isdigit() or int(count) < 1:
            raise ValueError(f"`composition` entry {entry!r} is not Element=count, e.g. O=115.")
        counts[_checked([element])[0]] = int(count)
    return counts


def _checked(elements: Iterable[str]) -> list[str]:
    names = list(elements)
    for name in names:
        if name not in atomic_numbers or name == "X":
            raise ValueError(f"`elements` holds {name!r}, which is no chemical symbol; write e.g. O or Si.")
    return names
