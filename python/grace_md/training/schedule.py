"""Learning rate and loss weights as functions of the optimiser step."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["LearningRate"]


@dataclass(frozen=True)
class LearningRate:
    """Cosine per optimiser step from `start` to `end`, after a linear warm-up; or constant.

    With a = end / start, the rate of step k of n (k = 0 .. n - 1) is
    ``start ((1 - a) (1 + cos(pi k / (n - 1))) / 2 + a)``; k and n do not count the steps of the warm-up.

    Parameters
    ----------
    start, end : rates of the first and of the last step
    n_steps : steps of the whole run, warm-up included
    warmup : steps during which the rate rises linearly to `start`
    constant : stay at `start` after the warm-up
    """

    start: float
    end: float
    n_steps: int
    warmup: int = 0
    constant: bool = False

    def __call__(self, step: int) -> float:
        """Return the rate of `step`, counted from 0."""
        if step < self.warmup:
            return self.start * (step + 1) / (self.warmup + 1)
        if self.constant:
            return self.start
        last = self.n_steps - self.warmup - 1
        share = 1.0 if last <= 0 else min(1.0, (step - self.warmup) / last)
        return self.end + 0.5 * (self.start - self.end) * (1.0 + math.cos(math.pi * share))
