"""What the optimiser moves: some parameters of a model, or low-rank changes of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grace_md.strict import ConfigError
from grace_md.training.config import LoraConfig
from grace_md.training.lora import LowRank

if TYPE_CHECKING:
    from grace_md.torch import GracePotential

__all__ = ["Trainable"]


class Trainable:
    """A model with frozen and trained parameters.

    Parameters
    ----------
    model : GracePotential; parameters are named by the last part of their name, the key of the weight file
    freeze : patterns (fnmatch) of keys that are not trained; each must match something
    lora : low-rank changes, or None
    seed : of the factors of low-rank changes

    Attributes
    ----------
    model : the module
    parameters : trained tensors by key
    frozen : keys of the others
    """

    def __init__(
        self, model: GracePotential, *, freeze: Sequence[str] = (), lora: LoraConfig | None = None, seed: int = 0
    ) -> None:
        self.model = model
        self._full_names = {name.rpartition(".")[2]: name for name, _ in model.named_parameters()}
        every = {name.rpartition(".")[2]: value for name, value in model.named_parameters()}
        for pattern in freeze:
            if not any(fnmatchcase(name, pattern) for name in every):
                raise ConfigError(
                    f"`finetune.freeze` has `{pattern}`, which matches no parameter; parameters are {', '.join(every)}."
                )
        for name, value in every.items():
            if any(fnmatchcase(name, pattern) for pattern in freeze):
                value.requires_grad_(False)
        self.low_rank = LowRank(every, lora, seed) if lora is not None else None
        self.parameters: dict[str, Tensor] = {name: value for name, value in every.items() if value.requires_grad}
        if self.low_rank is not None:
            self.parameters.update(self.low_rank.factors)
        self.frozen = [name for name, value in every.items() if not value.requires_grad]
        if not self.parameters:
            raise ConfigError(f"`finetune.freeze` = {list(freeze)} freezes every parameter; leave some free.")

    @property
    def n_trained(self) -> int:
        """Numbers that the optimiser moves."""
        return sum(value.numel() for value in self.parameters.values())

    def __call__(self, batch: Any, *, forces: bool, stress: bool, create_graph: bool) -> Any:
        """Evaluate the model with its present parameters; what `GracePotential` returns."""
        options = {"forces": forces, "stress": stress, "create_graph": create_graph}
        if self.low_rank is None:
            return self.model(batch, **options)
        changed = {self._full_names[name]: value for name, value in self.low_rank.merged().items()}
        return torch.func.functional_call(self.model, changed, (batch,), options)

    @contextmanager
    def merged(self) -> Iterator[None]:
        """Within the block the model itself holds the low-rank changes, as for export."""
        if self.low_rank is None:
            yield
            return
        own = dict(self.model.named_parameters())
        kept = {}
        with torch.no_grad():
            for name, value in self.low_rank.merged().items():
                target = own[self._full_names[name]]
                kept[name] = target.detach().clone()
                target.copy_(value)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, value in kept.items():
                    own[self._full_names[name]].copy_(value)

    def state(self) -> dict[str, NDArray[Any]]:
        """Return every parameter, trained and frozen, and the low-rank factors, by key."""
        return {key: value.detach().cpu().numpy().copy() for key, value in self._all().items()}

    @torch.no_grad()
    def load_state(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Restore what `state` returned."""
        for key, value in self._all().items():
            value.copy_(torch.from_numpy(np.array(arrays[key])))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the tensors of `state`."""
        return {key: tuple(value.shape) for key, value in self._all().items()}

    def _all(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {name.rpartition(".")[2]: value for name, value in self.model.named_parameters()}
        if self.low_rank is not None:
            found.update(self.low_rank.factors)
        return found
