"""Stresses that a model does not believe: the last rule of the published merge."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from grace_md.merging.entries import Entry
from grace_md.merging.rules import Rule

__all__ = ["STRESS_LIMIT", "StressOutlier"]

STRESS_LIMIT = 0.084  # eV/A^3, the standard deviation of the errors in the publication


class _Evaluates(Protocol):
    model: Any

    def evaluate(self, structures: Sequence[Any]) -> list[dict[str, Any]]: ...


class StressOutlier(Rule):
    """Entries whose stress differs from that of a model by more than a limit in any of its six components.

    Parameters
    ----------
    calculator : GraceCalculator, or path of a weight file
    limit : eV/A^3

    Attributes
    ----------
    unchecked : entries that the model cannot judge: without a stress, or with elements that it does not know
    """

    name = "stress-outlier"

    def __init__(self, calculator: _Evaluates | str | Path, limit: float = STRESS_LIMIT) -> None:
        if isinstance(calculator, (str, Path)):
            from grace_md.ase import GraceCalculator  # noqa: PLC0415

            calculator = GraceCalculator(calculator)
        if not (np.isfinite(limit) and limit > 0.0):
            raise ValueError(f"rule `{self.name}`: the limit {limit} is not a number > 0 (eV/A^3).")
        self.calculator: _Evaluates = calculator
        self.limit = limit
        self.unchecked = 0
        self._known = frozenset(calculator.model.elements)

    def check(self, entries: Sequence[Entry]) -> list[str | None]:
        """Evaluate all entries in one call and compare."""
        answers: list[str | None] = [None] * len(entries)
        places = [
            k
            for k, entry in enumerate(entries)
            if entry.record is not None and np.isfinite(entry.record.stress).all() and entry.symbols <= self._known
        ]
        self.unchecked += len(entries) - len(places)
        results = self.calculator.evaluate([entries[k].atoms for k in places])
        for k, result in zip(places, results, strict=True):
            record = entries[k].record
            assert record is not None
            error = float(np.abs(result["stress"] - record.stress).max())
            if not error <= self.limit:  # NaN is an outlier too
                answers[k] = f"error {error:.4g} eV/A^3"
        return answers

    def describe(self) -> str:
        """Return name and limit."""
        return f"{self.name}:{self.limit:g}"
