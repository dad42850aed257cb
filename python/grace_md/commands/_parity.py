"""Comparison of computed energies and forces with those that the input structures carry."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ase import Atoms

MAX_POINTS = 50_000  # drawn per panel


class Parity:
    """Pairs (value in the input, value computed), for what the input has.

    Attributes
    ----------
    energy : list of (float, float), eV per atom
    forces : list of ([n, 3], [n, 3]) arrays, eV/A
    """

    def __init__(self) -> None:
        self.energy: list[tuple[float, float]] = []
        self.forces: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []

    @classmethod
    def of(cls, references: Iterable[Atoms], computed: Iterable[Atoms]) -> Parity:
        """Compare structure by structure; those without energies or forces are left out."""
        found = cls()
        for reference, result in zip(references, computed, strict=True):
            labels: dict[str, Any] = reference.calc.results if reference.calc is not None else {}
            if "energy" in labels and len(reference):
                n = len(reference)
                found.energy.append((labels["energy"] / n, result.calc.results["energy"] / n))
            if "forces" in labels and len(reference):
                found.forces.append((np.asarray(labels["forces"]), np.asarray(result.calc.results["forces"])))
        return found

    def _columns(self) -> list[tuple[str, str, NDArray[np.float64], NDArray[np.float64]]]:
        columns = []
        if self.energy:
            pairs = np.array(self.energy)
            columns.append(("energy", "eV/atom", pairs[:, 0], pairs[:, 1]))
        if self.forces:
            reference, result = (np.concatenate([pair[side].ravel() for pair in self.forces]) for side in (0, 1))
            columns.append(("forces", "eV/A", reference, result))
        return columns

    def summary(self) -> dict[str, dict[str, float]]:
        """Return mean absolute and root-mean-square differences of what was compared."""
        found = {}
        for name, unit, reference, result in self._columns():
            difference = result - reference
            unit_name = unit.replace("/", "_per_")
            found[name] = {
                f"mae_{unit_name}": float(np.abs(difference).mean()),
                f"rmse_{unit_name}": float(np.sqrt(np.mean(difference**2))),
            }
        return found

    def draw(self, path: Path) -> bool:
        """Write a picture; return False if there is nothing to draw or no matplotlib."""
        columns = self._columns()
        try:
            from matplotlib.figure import Figure  # noqa: PLC0415
        except ImportError:
            return False
        if not columns:
            return False
        figure = Figure(figsize=(4.5 * len(columns), 4.2), layout="constrained")
        axes = np.atleast_1d(figure.subplots(1, len(columns)))
        for axis, (name, unit, reference, result) in zip(axes, columns, strict=True):
            step = max(1, len(reference) // MAX_POINTS)
            axis.plot(reference[::step], result[::step], ".", markersize=3, alpha=0.5)
            ends = [min(reference.min(), result.min()), max(reference.max(), result.max())]
            axis.plot(ends, ends, "k-", linewidth=0.7)
            axis.set(xlabel=f"{name} in the input ({unit})", ylabel=f"{name} computed ({unit})")
            axis.set_title(f"mean absolute difference {np.abs(result - reference).mean():.3g} {unit}", fontsize=9)
        figure.savefig(path, dpi=150)
        return True
