"""Mean absolute and root-mean-square errors of a set, gathered batch by batch and over processes."""

from __future__ import annotations

import torch
from torch import Tensor

from grace_md.training.loss import PARTS, Residuals

__all__ = ["EV_PER_A3_IN_GPA", "UNITS", "ErrorSums"]

EV_PER_A3_IN_GPA = 160.21766208
# Name of each part in records, and the factor from the units of the loss.
UNITS = {"energy": ("meV_per_atom", 1e3), "forces": ("meV_per_A", 1e3), "stress": ("GPa", EV_PER_A3_IN_GPA)}


class ErrorSums:
    """Sums of |e|, e^2 and of the number of components, per part; every labelled structure and atom counts alike.

    Attributes
    ----------
    sums : [3, 3] float64: energy, forces, stress by |e|, e^2, count
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.sums: Tensor = torch.zeros(3, 3, dtype=torch.float64, device=device)

    @torch.no_grad()
    def add(self, found: Residuals) -> None:
        """Take the residuals of a batch in; samples of weight zero are padding and do not count."""
        for row, (values, weights) in enumerate(zip(found.values, found.weights, strict=True)):
            counted = values[weights > 0]
            self.sums[row, 0] += counted.abs().sum()
            self.sums[row, 1] += (counted * counted).sum()
            self.sums[row, 2] += counted.numel()

    def summary(self) -> dict[str, float]:
        """Return for example ``{"energy_mae_meV_per_atom": ..., "forces_rmse_meV_per_A": ...}`` of what has labels."""
        found = {}
        for part, (total, squares, count) in zip(PARTS, self.sums.tolist(), strict=True):
            if count:
                unit, factor = UNITS[part]
                found[f"{part}_mae_{unit}"] = factor * total / count
                found[f"{part}_rmse_{unit}"] = factor * float((squares / count) ** 0.5)
        return found
