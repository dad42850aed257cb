"""Fine-tuning: the weight file to start from, with the elements that the new run needs.

Elements that the run does not need are left out, which changes nothing for the others; new ones start as a copy of a
similar element or with fresh weights. Everything here works on the arrays of weight files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray

from grace_md.periodic_table import position
from grace_md.strict import ConfigError
from grace_md.weights import element_names, take_elements

__all__ = ["StartModel", "nearest_element", "start_arrays"]

FRESH, NEAREST = "fresh", "nearest"

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class StartModel:
    """The arrays to start from, without energy shifts, and what was done to the elements.

    Attributes
    ----------
    arrays : of the weight file; `shift_values` is zero
    shifts : [n_elements] the shifts of the file in eV, kept apart in double precision
    added : new element -> element it started from, or "fresh"
    removed : elements of the file that the run leaves out
    """

    arrays: Arrays
    shifts: NDArray[np.float64]
    added: dict[str, str]
    removed: list[str]


def nearest_element(element: str, known: Sequence[str]) -> str:
    """Return the element of `known` that is closest in the periodic table; groups count more than periods."""
    period, group = position(element)

    def distance(other: str) -> tuple[float, int]:
        other_period, other_group = position(other)
        return abs(group - other_group) + 0.6 * abs(period - other_period), atomic_numbers[other]

    return min(known, key=distance)


def start_arrays(
    arrays: Mapping[str, NDArray[Any]], elements: Sequence[str], new_elements: Mapping[str, str], seed: int
) -> StartModel:
    """Return the start for `elements`, which are in the model or in `new_elements`.

    Parameters
    ----------
    arrays : of a weight file
    elements : wanted; those of the file come first, in its order, then the new ones
    new_elements : symbol -> known element to copy, ``"nearest"`` or ``"fresh"`` (random weights of unit variance; the
        cutoffs are then those of the nearest element)
    seed : of fresh weights

    Raises
    ------
    ConfigError
        For an element that is neither in the model nor declared, a copy of an unknown element, and a new element that
        the model already has.
    """
    known = element_names(arrays)
    for element, origin in new_elements.items():
        if element not in atomic_numbers or element in known:
            reason = "the model already has it" if element in known else "it is not an element"
            raise ConfigError(f"`finetune.new_elements` has {element}, but {reason}; remove it.")
        if origin not in (FRESH, NEAREST) and origin not in known:
            raise ConfigError(
                f"`finetune.new_elements.{element}` = {origin!r} must be an element of the model ({' '.join(known)}), "
                "nearest or fresh."
            )
    outside = [element for element in elements if element not in known and element not in new_elements]
    if outside:
        raise ConfigError(
            f"the data have {', '.join(outside)}, which `model.start` does not know (it knows {' '.join(known)}); add "
            f"`finetune.new_elements: {{{outside[0]}: nearest}}`, or leave those structures out."
        )
    kept = [element for element in known if element in elements]
    new = [element for element in elements if element not in known]
    origins = {
        e: new_elements[e] if new_elements[e] not in (FRESH, NEAREST) else nearest_element(e, known) for e in new
    }
    result = take_elements(arrays, [known.index(origins.get(element, element)) for element in [*kept, *new]])
    names = np.array([name.encode() for name in [*kept, *new]])
    result["element_names"] = names.astype(arrays["element_names"].dtype).reshape(result["element_names"].shape)
    fresh = [len(kept) + k for k, element in enumerate(new) if new_elements[element] == FRESH]
    if fresh:
        _randomise(result, fresh, seed)
    shifts = np.zeros(len(names))
    if "shift_values" in result:
        shifts = result["shift_values"].reshape(-1).astype(np.float64)
        result["shift_values"] = np.zeros_like(result["shift_values"])
    added = {element: FRESH if new_elements[element] == FRESH else origins[element] for element in new}
    return StartModel(result, shifts, added, [element for element in known if element not in elements])


def _randomise(arrays: Arrays, rows: Sequence[int], seed: int) -> None:
    """Give some elements new rows in the embedding and in the element-dependent reductions."""
    generator = np.random.default_rng(seed)
    n_elements = len(element_names(arrays))
    for key in sorted(arrays):
        values = arrays[key]
        reduction = key.partition("_reduce_")[0] if "_reduce_" in key and key.endswith("_W") else None
        flag = arrays.get(f"{reduction}_is_central_atom_type_dependent")
        dependent = flag is not None and bool(np.any(flag != 0))
        if key == "chem_embedding" or (dependent and len(values) == n_elements):
            values = values.copy()
            values[rows] = generator.standard_normal((len(rows), *values.shape[1:]))
            arrays[key] = values
