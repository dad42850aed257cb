"""Exponential moving average of the parameters; what is validated and exported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = ["Ema"]


class Ema:
    """Average ``a <- decay a + (1 - decay) p`` of named parameters, updated after every optimiser step.

    Parameters
    ----------
    parameters : the trained parameters by name; the average starts at their values.
    decay : in [0, 1); 0 is the parameters themselves.
    """

    def __init__(self, parameters: Mapping[str, Tensor], decay: float) -> None:
        self._parameters = dict(parameters)
        self.decay = decay
        self.average = {name: value.detach().clone() for name, value in self._parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take the present parameters into the average."""
        for name, parameter in self._parameters.items():
            self.average[name].lerp_(parameter, 1.0 - self.decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within the block the parameters hold their averages; afterwards their own values, bit by bit."""
        own = {name: value.detach().clone() for name, value in self._parameters.items()}
        try:
            self._copy(self.average)
            yield
        finally:
            self._copy(own)

    @torch.no_grad()
    def _copy(self, values: Mapping[str, Tensor]) -> None:
        for name, parameter in self._parameters.items():
            parameter.copy_(values[name])
