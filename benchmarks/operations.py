"""Floating-point operations and bytes per atom and step of a GRACE model, counted from its own tables.

The count is that of the minimal algorithm, not of what the evaluator executes, so that a share of the roofline cannot
be raised by wasted work:

* mixes: only rows that a later product or reduction reads; a mix of a tensor with itself needs one matrix, not two;
* products: 3 operations per term and channel (two multiplications, one addition), no radial network but a table with
  a cubic polynomial for each radial function;
* every linear map costs as much again in the adjoint (adjoint of its input), every product and everything done per
  bond twice as much again (two operands; value and direction).

A multiplication and an addition count as two operations. Left out: geometry, harmonics, normalisation and readout
network, together below 3 %.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]

TABLE = 6  # operations of a cubic polynomial (Horner)
CHEMISTRY = 1  # radial function times the channel of the neighbour's element
TERM = 3  # coefficient * left * right, added
LIST_BYTES = 8  # per pair: neighbour and packed image, int32 each
ATOM_BYTES = 2 * 24 + 8 + 4  # positions and forces, energy, species
# Operands of every mix: name -> (left, right). Weight files do not hold the wiring (docs: weight file).
MIXES = {
    "A1": ("A", "A"),
    "AA1": ("AA", "A"),
    "AA2": ("AA", "A"),
    "B1": ("B", "B"),
    "BB1": ("BB", "B"),
    "BB2": ("BB", "B"),
}
# Operands of every product; the right one of AAA is A1 in one-layer and A in two-layer models.
PRODUCTS = {
    "AA": ("A1", "A1"),
    "AAA": ("AA1", "A1"),
    "AAAA": ("AA2", "AA2"),
    "BB": ("B1", "B1"),
    "BBB": ("BB1", "B"),
    "BBBB": ("BB2", "BB2"),
}
REDUCTIONS = ("rho", "I1", "I", "B", "I2")


@dataclass(frozen=True)
class Operations:
    """Operations per atom of the forward pass by kind, of a whole step, and bytes that must move."""

    mixing: float  # channel mixes and reductions: dense matrices
    products: float  # sparse couplings
    bonds: float  # everything done for each neighbour
    step: float  # energy and forces
    bytes_memory: float  # per atom and step: list, atoms, and for two layers the message and its gradient
    bytes_weights: float  # of the elements in use: read by every tile of atoms, from the caches at best

    def as_dict(self) -> dict[str, float]:
        """Return the counts by name."""
        return asdict(self)


def integer(arrays: Arrays, key: str) -> int:
    """Return a scalar stored with or without a dimension."""
    return int(np.ravel(arrays[key])[0])


def rows_read(arrays: Arrays) -> dict[str, set[int]]:
    """Return the rows of each tensor that products read."""
    two_layers = "mlp_rad_R1_W0" in arrays
    rows: dict[str, set[int]] = {}
    for name, (left, right) in PRODUCTS.items():
        if f"prod_{name}_left_ind" in arrays:
            operands = (left, "A" if two_layers and name == "AAA" else right)
            for operand, side in zip(operands, ("left", "right"), strict=True):
                rows.setdefault(operand, set()).update(np.unique(arrays[f"prod_{name}_{side}_ind"]).tolist())
    return rows


def mixing_operations(arrays: Arrays) -> float:
    """Operations of all channel mixes and reductions of one atom, forward."""
    total, read = 0.0, rows_read(arrays)
    for name, (left, right) in MIXES.items():
        if f"fc_{name}_w_left" not in arrays:
            continue
        n_out, n_left, _ = arrays[f"fc_{name}_w_left"].shape
        n_right = arrays[f"fc_{name}_w_right"].shape[1]
        rows = np.array(sorted(read[name]))
        to, source = arrays[f"fc_{name}_collect_to"], arrays[f"fc_{name}_collect_from"]
        total += 2.0 * len(rows) * n_left * n_out
        if not (left == right and np.array_equal(to, source)):  # else one matrix, the sum of both
            total += 2.0 * np.count_nonzero(np.isin(to, rows)) * n_right * n_out
    for name in REDUCTIONS:
        if f"{name}_instruction_names" not in arrays:
            continue
        for key in arrays[f"{name}_instruction_names"]:
            weights = arrays[f"{name}_reduce_{key.decode()}_W"]
            n_out, n_in = weights.shape[-3:-1]
            total += 2.0 * len(arrays[f"{name}_collect_ind_{key.decode()}"]) * n_in * n_out
    return total


def product_operations(arrays: Arrays) -> float:
    """Operations of all coupling products of one atom, forward."""
    total = 0.0
    for name, (left, _) in PRODUCTS.items():
        if f"prod_{name}_cg_coeff" in arrays:
            total += TERM * len(arrays[f"prod_{name}_cg_coeff"]) * arrays[f"fc_{left}_w_left"].shape[0]
    if "YI_cg_coeff" in arrays:  # sums over neighbours are made first, so a term is one multiplication and addition
        total += 2.0 * len(arrays["YI_cg_coeff"]) * integer(arrays, "YI_n_rad_max")
    return total


def bond_operations(arrays: Arrays) -> float:
    """Operations for one neighbour, forward."""
    two_layers = "mlp_rad_R1_W0" in arrays
    lmax = integer(arrays, "lmax")
    n_rad = arrays["A_lin_transform_W"].shape[1]
    functions = n_rad * (lmax + 1)
    total = functions * (TABLE + CHEMISTRY) + 2.0 * n_rad * (lmax + 1) ** 2
    if two_layers:
        n_rad = arrays["B0_lin_transform_W"].shape[1]
        functions = n_rad * (integer(arrays, "mlp_rad_R1_lmax") + 1)
        basis_rows = len(arrays["B_collect_ind_B0"])
        harmonics = np.unique(arrays["YI_lr_inds"][:, 0]).size
        pairs = len(np.unique(arrays["YI_lr_inds"], axis=0))
        total += functions * (TABLE + CHEMISTRY) + 2.0 * n_rad * basis_rows + n_rad * (harmonics + 2.0 * pairs)
    return total


def count(arrays: Arrays, n_neighbors: float, n_elements: int = 1, real_bytes: int = 8) -> Operations:
    """Count operations and bytes of one atom and step.

    Parameters
    ----------
    arrays : arrays of a weight file
    n_neighbors : neighbours per atom within the cutoff
    n_elements : elements in use; others need no weights
    real_bytes : 8 for double, 4 for single precision

    Returns
    -------
    Operations
    """
    mixing, products = mixing_operations(arrays), product_operations(arrays)
    bonds = n_neighbors * bond_operations(arrays)
    message = 0.0
    if "YI_lr_inds" in arrays:
        message = integer(arrays, "YI_n_rad_max") * integer(arrays, "I_n_funcs") * real_bytes
    # message: written and read once; its gradient likewise
    memory = LIST_BYTES * n_neighbors + ATOM_BYTES + 4 * message
    per_element = {f"{name}_reduce_{key.decode()}_W" for name in ("rho", "I1", "I2") for key in _inputs(arrays, name)}
    weights = sum(
        array.size * (n_elements / array.shape[0] if key in per_element else 1.0)
        for key, array in arrays.items()
        if key in per_element
        or (key.startswith("fc_") and "_w_left" in key and "tile" not in key)
        or (key.startswith("fc_") and key.endswith("_w_right"))
        or (key.startswith(("B_reduce", "I_reduce")) and key.endswith("_W"))
    )
    step = 2.0 * mixing + 3.0 * products + 3.0 * bonds
    return Operations(mixing, products, bonds, step, memory, weights * real_bytes)


def _inputs(arrays: Arrays, name: str) -> list[bytes]:
    key = f"{name}_instruction_names"
    return [bytes(value) for value in arrays[key]] if key in arrays else []
