"""Initial magnetic moments of the reference calculations (table 11 of "Exploring the extremes")."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["DEFAULT_MOMENT", "MOMENTS", "initial_moments"]

DEFAULT_MOMENT = 1.0  # mu_B
MOMENTS = {
    "Ce": 5.00, "Co": 2.00, "Cr": 2.00, "Dy": 10.65, "Er": 9.58, "Eu": 10.00, "Fe": 2.50, "Gd": 7.94, "Ho": 10.60,
    "Mn": 5.00, "Nd": 3.62, "Ni": 1.50, "Pm": 2.68, "Pr": 3.58, "Sm": 0.85, "Tb": 9.72, "Tm": 7.56, "Yb": 4.54,
}  # fmt: skip


def initial_moments(symbols: Iterable[str]) -> list[float]:
    """Return the initial moment of every atom in mu_B."""
    return [MOMENTS.get(symbol, DEFAULT_MOMENT) for symbol in symbols]
