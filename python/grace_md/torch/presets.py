"""Sizes of fresh models: the published presets, and free sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grace_md.torch.fresh import Pair, Sizes, fresh_arrays

__all__ = ["PRESETS", "Sizes", "preset_arrays", "preset_sizes"]

PRESETS: dict[str, Sizes] = {
    "1L-small": Sizes(1, n_rad=(32, 0), width=(32, 0), n_basis=8, n_densities=10),
    "1L-medium": Sizes(1, n_rad=(32, 0), width=(64, 0), n_basis=8, n_densities=12),
    "1L-large": Sizes(1, n_rad=(42, 0), width=(64, 0), n_basis=10, n_densities=16),
    "2L-small": Sizes(2, n_rad=(32, 32), width=(32, 32), n_basis=8, n_densities=12, message_lmax=1),
    "2L-medium": Sizes(2, n_rad=(42, 32), width=(42, 64), n_basis=10, n_densities=16, message_lmax=1),
    "2L-large": Sizes(2, n_rad=(42, 32), width=(42, 64), n_basis=10, n_densities=16, message_lmax=3),
}


def preset_sizes(preset: str | Mapping[str, Any]) -> Sizes:
    """Return the sizes of a preset, or of a mapping that may name one as its base: ``{"preset": ..., "lmax": 3}``.

    Sizes that differ between the layers (`n_rad`, `width`, `lmax`) are one number for one layer and a pair for two.

    Raises
    ------
    ValueError
        For an unknown preset or size, and for sizes that do not fit together.
    """
    if isinstance(preset, str):
        if preset not in PRESETS:
            raise ValueError(f"`preset` = {preset!r} does not exist; there are {', '.join(PRESETS)}.")
        return PRESETS[preset]
    changes = dict(preset)
    base = preset_sizes(changes.pop("preset", "1L-small" if changes.get("layers", 1) == 1 else "2L-small"))
    names = [f.name for f in fields(Sizes)]
    for name, value in changes.items():
        if name not in names:
            close = get_close_matches(name, names, n=1)
            hint = f"did you mean `{close[0]}`?" if close else f"sizes are {', '.join(names)}."
            raise ValueError(f"`{name}` is not a size of a model; {hint}")
        if name in ("n_rad", "width", "lmax"):
            changes[name] = _pair(name, value, getattr(base, name), base.layers)
        elif name == "hidden":
            changes[name] = tuple(int(n) for n in value) if isinstance(value, Sequence) else (int(value),) * 2
    sizes = replace(base, **changes)
    sizes.check()
    return sizes


def _pair(name: str, value: Any, base: Pair, layers: int) -> Pair:
    if isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) != layers:
            raise ValueError(f"`{name}` = {list(value)} must have one number for each of the {layers} layers.")
        numbers = [int(n) for n in value]
        return numbers[0], numbers[1] if layers == 2 else base[1]
    if layers == 2:
        raise ValueError(f"`{name}` = {value} must be a pair of numbers, one for each layer.")
    return int(value), base[1]


def preset_arrays(
    preset: str | Mapping[str, Any],
    *,
    elements: Sequence[str],
    cutoffs: float | ArrayLike = 6.0,
    seed: int = 0,
    average_neighbors: float = 1.0,
    output_scale: float = 1.0,
    shifts: ArrayLike | Mapping[str, float] | None = None,
) -> dict[str, NDArray[Any]]:
    """Return the arrays of a fresh weight file; arguments as `GracePotential.from_preset`."""
    names = list(elements)
    if not names or len(set(names)) != len(names):
        raise ValueError(f"`elements` = {names} must name at least one element, each one once.")
    matrix = np.asarray(cutoffs, dtype=np.float64)
    matrix = np.full((len(names), len(names)), float(matrix)) if matrix.ndim == 0 else matrix
    if matrix.shape != (len(names), len(names)):
        raise ValueError(
            f"`cutoffs` must be one number or have shape {[len(names)] * 2}, got {list(matrix.shape)}; "
            "rows are in the order of `elements`."
        )
    if not (np.all(np.isfinite(matrix)) and np.all(matrix > 0.0)):
        raise ValueError("`cutoffs` has values that are not positive numbers; give all of them in Angstrom.")
    if isinstance(shifts, Mapping):
        missing = [name for name in names if name not in shifts]
        if missing:
            raise ValueError(f"`shifts` lacks {', '.join(missing)}; give a value in eV for every element.")
        shifts = [shifts[name] for name in names]
    values = np.zeros(len(names)) if shifts is None else np.asarray(shifts, dtype=np.float64).reshape(-1)
    if values.shape != (len(names),):
        raise ValueError(f"`shifts` has {values.size} values for {len(names)} elements; give one for each.")
    for name, number in (("average_neighbors", average_neighbors), ("output_scale", output_scale)):
        if not (np.isfinite(number) and number > 0.0):
            raise ValueError(f"`{name}` = {number} must be a positive number.")
    return fresh_arrays(
        preset_sizes(preset),
        names,
        matrix,
        rng=np.random.default_rng(seed),
        average_neighbors=float(average_neighbors),
        output_scale=float(output_scale),
        shifts=values,
    )
