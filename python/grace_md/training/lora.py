"""Low-rank changes of channel mixes: ``W + (alpha / rank) up down`` per group of functions, merged at export.

A mix holds weights [n_out, n_in, n_groups]; `down` [n_groups, rank, n_in] starts random and `up`
[n_groups, n_out, rank] at zero, so that the model starts unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

import torch
from torch import Tensor

from grace_md.strict import ConfigError
from grace_md.training.config import LoraConfig

__all__ = ["LowRank"]

DOWN, UP = ".lora_down", ".lora_up"


class LowRank:
    """Low-rank factors of some weights.

    Parameters
    ----------
    weights : parameters of the model by key; those that match a pattern get factors and are frozen
    config : rank, scale (alpha / rank, 1 unless alpha is given) and patterns
    seed : of the random factors

    Attributes
    ----------
    factors : trained tensors by ``"<key>.lora_down"`` and ``"<key>.lora_up"``
    """

    def __init__(self, weights: Mapping[str, Tensor], config: LoraConfig, seed: int) -> None:
        self._weights = {
            name: value for name, value in weights.items() if any(fnmatchcase(name, p) for p in config.patterns)
        }
        if not self._weights:
            raise ConfigError(
                f"`finetune.lora.patterns` = {config.patterns} match no parameter of the model; fc_*_w_left matches "
                "channel mixes."
            )
        self._scale = 1.0 if config.alpha is None else config.alpha / config.rank
        self.factors: dict[str, Tensor] = {}
        generator = torch.Generator().manual_seed(seed)
        for name, value in self._weights.items():
            if value.dim() != 3:
                raise ConfigError(
                    f"`finetune.lora.patterns` match {name} of shape {tuple(value.shape)}; only channel mixes of shape "
                    "[n_out, n_in, n_groups] take low-rank changes."
                )
            n_out, n_in, n_groups = value.shape
            rank = min(config.rank, n_out, n_in)
            down = torch.randn(n_groups, rank, n_in, generator=generator, dtype=torch.float64)
            up = torch.zeros(n_groups, n_out, rank)
            for suffix, factor in ((DOWN, down / rank**0.5), (UP, up)):
                self.factors[name + suffix] = factor.to(value).requires_grad_(True)
            value.requires_grad_(False)

    def merged(self) -> dict[str, Tensor]:
        """Return the changed weights by key, differentiable with respect to the factors."""
        found = {}
        for name, value in self._weights.items():
            change = torch.bmm(self.factors[name + UP], self.factors[name + DOWN])  # [n_groups, n_out, n_in]
            found[name] = value + self._scale * change.permute(1, 2, 0)
        return found
