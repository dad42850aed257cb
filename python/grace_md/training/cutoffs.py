"""Cutoffs by element, and the pair cutoffs made of them: the mean of the two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray

from grace_md.strict import ConfigError

__all__ = ["TABLE_9", "element_cutoffs", "pair_cutoffs"]

DEFAULT = 6.0  # A
# Table 9 of the SMAX paper (arXiv 2602.23489), in A; elements that it gives 6.0, and those it lacks, are left out.
TABLE_9 = {
    **dict.fromkeys(["Be", "C"], 5.0),
    **dict.fromkeys(["B", "P", "S", "Sb", "Se", "Si"], 5.5),
    **dict.fromkeys(["Ca", "Yb"], 6.1),
    **dict.fromkeys(["Ar", "Eu"], 6.2),
    "Sr": 6.5,
    "Ba": 6.6,
    **dict.fromkeys(["Kr", "Ra"], 6.8),
    "K": 7.0,
    "Xe": 7.1,
    "Rb": 7.3,
    **dict.fromkeys(["Cs", "Fr", "Rn"], 7.5),
}


def element_cutoffs(setting: str | float | Mapping[str, float], elements: Sequence[str]) -> dict[str, float]:
    """Return the cutoff in A of each element.

    Parameters
    ----------
    setting : ``"table9"``, one number for all, or a mapping; a mapping may have ``default`` for elements it lacks.

    Raises
    ------
    ConfigError
        For a cutoff that is not positive, a key that is no element, and an element without cutoff.
    """
    if isinstance(setting, str):
        if setting != "table9":
            raise ConfigError(f"`model.cutoffs` = {setting!r} must be table9, a number in A, or a section by element.")
        found = {element: TABLE_9.get(element, DEFAULT) for element in elements}
    elif isinstance(setting, Mapping):
        for key in setting:
            if key != "default" and key not in atomic_numbers:
                raise ConfigError(f"`model.cutoffs` has the key `{key}`, which is neither an element nor `default`.")
        found = {}
        for element in elements:
            if element not in setting and "default" not in setting:
                raise ConfigError(f"`model.cutoffs` has no cutoff for {element}; add it, or a `default`.")
            found[element] = float(setting.get(element, setting.get("default", 0.0)))
    else:
        found = {element: float(setting) for element in elements}
    for element, cutoff in found.items():
        if not 0.5 <= cutoff <= 20.0:
            raise ConfigError(f"`model.cutoffs` gives {element} {cutoff:g} A; a cutoff lies between 0.5 and 20 A.")
    return found


def pair_cutoffs(cutoffs: Mapping[str, float], elements: Sequence[str]) -> NDArray[np.float64]:
    """Return the mean of the cutoffs of every two elements, [n_elements, n_elements], in A."""
    single = np.array([cutoffs[element] for element in elements], dtype=np.float64)
    mean: NDArray[np.float64] = 0.5 * (single[:, None] + single[None, :])
    return mean
