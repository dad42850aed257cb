"""Effective radii: chemistry enters the descriptors only through a radius per atom (section IV.1 of the paper).

r = r_cov (width_lo + (width_hi - width_lo) x) with x ~ Beta(beta_a, beta_b).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import atomic_numbers, chemical_symbols, covalent_radii, missing
from numpy.typing import NDArray

from grace_md.strict import ConfigError

if TYPE_CHECKING:
    from grace_md.smax.config import RadiusSettings

__all__ = ["covalent_radius", "draw_radii", "element_number", "radius_table"]


def element_number(symbol: str, name: str) -> int:
    """Return the atomic number of `symbol`; `name` is the setting that errors name.

    Raises
    ------
    ConfigError
        If there is no such element.
    """
    if symbol not in atomic_numbers or atomic_numbers[symbol] < 1:
        raise ConfigError(f"`{name}` names {symbol!r}, which is not an element; use symbols such as Fe.")
    return int(atomic_numbers[symbol])


def covalent_radius(number: int, settings: RadiusSettings) -> float:
    """Return the tabulated radius of an element, Angstrom.

    Raises
    ------
    ConfigError
        If neither `radii.table` nor ase.data (Cordero 2008) has one.
    """
    symbol = chemical_symbols[number]
    if symbol in settings.table:
        return settings.table[symbol]
    radius = float(covalent_radii[number])
    if radius == missing:  # what ase.data puts where it has none
        raise ConfigError(
            f"`elements` contains {symbol}, for which no covalent radius is tabulated; "
            f"give one as radii.table: {{{symbol}: 1.7}} (A) or leave the element out."
        )
    return radius


def radius_table(numbers: NDArray[Any], settings: RadiusSettings) -> NDArray[np.float64]:
    """Return the tabulated radii of the atomic `numbers`, float64 [n], Angstrom; errors as `covalent_radius`."""
    distinct, inverse = np.unique(numbers, return_inverse=True)
    return np.array([covalent_radius(int(z), settings) for z in distinct])[inverse]


def draw_radii(rng: np.random.Generator, numbers: NDArray[Any], settings: RadiusSettings) -> NDArray[np.float64]:
    """Draw one effective radius per atom, float64 [N], Angstrom."""
    share = rng.beta(settings.beta_a, settings.beta_b, len(numbers))
    width = settings.width_hi - settings.width_lo
    return radius_table(numbers, settings) * (settings.width_lo + width * share)
