"""Adam and AdamW over named parameters, with a state of plain arrays."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["clip_gradients", "load_optimiser", "make_optimiser", "optimiser_arrays"]


def make_optimiser(
    parameters: Mapping[str, Tensor], kind: str, *, weight_decay: float = 0.0, betas: tuple[float, float] = (0.9, 0.999)
) -> torch.optim.Optimizer:
    """Return Adam (`kind` "adam") or AdamW ("adamw").

    Weight decay acts on the element-dependent reductions only, which hold nearly all parameters: pulling
    the scales of norms and the energy shifts towards zero would mean nothing.
    """
    decayed = [p for name, p in parameters.items() if "_reduce_" in name]
    others = [p for name, p in parameters.items() if "_reduce_" not in name]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    cls = torch.optim.AdamW if kind == "adamw" else torch.optim.Adam
    return cls(groups, lr=0.0, betas=betas, foreach=True)


def optimiser_arrays(
    optimiser: torch.optim.Optimizer, parameters: Mapping[str, Tensor]
) -> dict[str, NDArray[np.generic]]:
    """Return the state by ``"<quantity>/<parameter>"``; empty before the first step."""
    found = {}
    for name, parameter in parameters.items():
        for quantity, value in optimiser.state.get(parameter, {}).items():
            found[f"{quantity}/{name}"] = value.detach().cpu().numpy().copy()
    return found


def load_optimiser(
    optimiser: torch.optim.Optimizer, parameters: Mapping[str, Tensor], arrays: Mapping[str, NDArray[np.generic]]
) -> None:
    """Restore what `optimiser_arrays` returned."""
    for key, values in arrays.items():
        quantity, _, name = key.partition("/")
        parameter = parameters[name]
        tensor = torch.from_numpy(np.array(values))
        # The step count stays on the CPU, as torch keeps it.
        tensor = tensor if quantity == "step" else tensor.to(parameter.device)
        optimiser.state[parameter][quantity] = tensor


@torch.no_grad()
def clip_gradients(parameters: Mapping[str, Tensor], limit: float | None) -> float:
    """Scale all gradients so that their common norm is at most `limit`; return the norm before that.

    A norm that is not finite leaves the gradients as they are: the caller stops the run.
    """
    gradients = [p.grad for p in parameters.values() if p.grad is not None]
    if not gradients:
        return 0.0
    norms = torch.stack([torch.linalg.vector_norm(gradient).to(torch.float64) for gradient in gradients])
    norm = float(torch.linalg.vector_norm(norms))
    if limit is not None and np.isfinite(norm) and norm > limit:
        for gradient in gradients:
            gradient.mul_(limit / norm)
    return norm
