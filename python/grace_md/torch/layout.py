"""Which arrays of a weight file are weights, which are copies of others, and how to write them back."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = ["WeightLayout"]

logger = logging.getLogger("grace_md")

Arrays = Mapping[str, NDArray[Any]]

WEIGHTS = re.compile(
    r"chem_embedding|mlp_rad(_\w+)?_W\d+|\w+_lin_transform_W|fc_\w+_w_(left|right)|\w+_reduce_\w+_W|energy_mlp_W\d+"
    r"|\w+_LN_scale|shift_values"
)
UNCERTAINTY = "uq_"
# Two-layer files hold the readout reductions and the norms of the densities under fixed names, which consumers read,
# and again under names of the model (and junk that comes of copying by prefix, such as rho_LN_scale).
FIXED_REDUCTIONS = ("I1", "I", "B", "rho", "I2")
FIXED_SCALES = ("I_nl_LN_scale", "I_0_LN_scale")


class WeightLayout:
    """The arrays that a model came from, and the keys of its weights.

    Attributes
    ----------
    weight_keys : list of str, arrays that are weights, each one once
    aliases : dict, key of a copy -> key of the weight that it repeats
    """

    def __init__(self, arrays: Arrays) -> None:
        self._arrays = {key: np.asarray(values) for key, values in arrays.items()}
        candidates = [key for key in self._arrays if WEIGHTS.fullmatch(key) and not key.startswith(UNCERTAINTY)]
        self.aliases = self._find_aliases(candidates) if "YI_lr_inds" in self._arrays else {}
        self.weight_keys = [key for key in candidates if key not in self.aliases]
        for key in self.weight_keys:
            if not np.all(np.isfinite(self._arrays[key])):
                raise ValueError(f"array `{key}` has values that are not finite; the weight file is damaged.")

    def _find_aliases(self, candidates: list[str]) -> dict[str, str]:
        aliases = {}
        for key in candidates:
            prefix, separator, tail = key.partition("_reduce_")
            if separator and prefix not in FIXED_REDUCTIONS:
                originals = [f"{name}_reduce_{tail}" for name in ("rho", "I2")]
            elif key.endswith("_LN_scale") and key not in FIXED_SCALES:
                originals = list(FIXED_SCALES)
            else:
                continue
            original = next((name for name in originals if self._equal(name, key)), None)
            if original is None:
                raise ValueError(f"array `{key}` is neither a weight of a two-layer model nor a copy of one.")
            aliases[key] = original
        return aliases

    def _equal(self, name: str, key: str) -> bool:
        return name in self._arrays and np.array_equal(self._arrays[name], self._arrays[key])

    def parameters(self, dtype: torch.dtype) -> dict[str, nn.Parameter]:
        """Return the weights as parameters; shifts stay double, since they are large beside their changes."""
        return {
            key: nn.Parameter(
                torch.from_numpy(np.array(self._arrays[key], dtype=np.float64)).to(
                    torch.float64 if key == "shift_values" else dtype
                )
            )
            for key in self.weight_keys
        }

    def export(self, weights: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
        """Return the arrays with the present values of the weights.

        What has not changed is returned as loaded; changed weights are float64, as in published files.
        """
        present = {key: weights[key].detach().cpu() for key in self.weight_keys}
        changed = [key for key, value in present.items() if not self._unchanged(key, value)]
        out = {}
        dropped = 0
        for key, values in self._arrays.items():
            source = self.aliases.get(key, key)
            if source in changed:
                out[key] = present[source].to(torch.float64).numpy().reshape(values.shape)
            elif key.startswith(UNCERTAINTY) and changed:
                dropped += 1
            else:
                out[key] = values
        if dropped:
            logger.warning(
                "%d uncertainty arrays (uq_*) are left out: they belong to other weights than the present ones.",
                dropped,
            )
        return out

    def _unchanged(self, key: str, value: Tensor) -> bool:
        """Whether a parameter still has the value it was made with (so that single precision loses nothing)."""
        original = torch.from_numpy(np.array(self._arrays[key], dtype=np.float64)).to(value.dtype)
        return torch.equal(original, value)
