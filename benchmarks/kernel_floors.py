#!/usr/bin/env python3
"""Operations and bytes of every kernel of the GPU evaluator per atom and step, counted from the tables of a model.

    python benchmarks/kernel_floors.py [--models 1L-large 2L-large] [--precision mixed] [--neighbors 58]

prints them with the time they need at given ceilings of a card: a prediction, not a measurement. evaluate_device.py
prints measured times beside these numbers.

Operations are those of the minimal algorithm (operations.py), dealt to the kernels: padding of channels, rows of a
product that are made twice and layer 1 of two, which is evaluated twice where several chunks are needed, are not
counted. Bytes: every operand goes through the memory of the device once in each kernel that reads or writes it, sums
that are added to twice; weights and tables stay in caches. Blocks of products are made for the L2 cache, so that what
really moves is less.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import models
import numpy as np
from operations import (
    CHEMISTRY,
    MIXES,
    PRODUCTS,
    REDUCTIONS,
    TABLE,
    Arrays,
    integer,
    mixing_operations,
    product_operations,
    rows_read,
)

CHANNEL_UNIT = 8  # channels of a row are padded to a multiple (evaluator_cuda/chunk.hpp)
LIST_ENTRY = 4 + 4 + 4 + 24  # bytes: neighbour, image, species and position of the neighbour
BOND_WHOLE = 3 * 4 + 8 * 8  # bytes of a bond that do not depend on the precision (evaluator_cuda/bonds.hpp)
BOND_REALS = 5
SCATTERED = 4 + 24 + 24 + 2 * 24  # neighbour, vector and gradient of a bond, force of the neighbour added to


@dataclass
class Floor:
    """Operations and bytes per atom and step."""

    operations: float = 0.0
    bytes: float = 0.0


def floor_of(found: dict[str, Floor], kernel: str) -> Floor | None:
    """Return the floor of a kernel of the profile: dense maps have a second kernel, on tensor cores."""
    return found.get(kernel.removesuffix("_tensor"))


def padded(n_channels: int) -> int:
    """Channels of a row in memory."""
    return -(-n_channels // CHANNEL_UNIT) * CHANNEL_UNIT


def floors(
    arrays: Arrays, neighbors: float, real_bytes: int = 4, list_entries: float | None = None
) -> dict[str, Floor]:
    """Return the floor of every kernel that matters, by its name in the profile.

    Parameters
    ----------
    arrays : arrays of a weight file
    neighbors : neighbours per atom within the cutoff
    real_bytes : 4 for mixed, 8 for fp64
    list_entries : entries of the neighbour list per atom, with skin; default: `neighbors`

    Returns
    -------
    dict of Floor
    """
    entries = neighbors if list_entries is None else list_entries
    lmax, n_rad = integer(arrays, "lmax"), arrays["A_lin_transform_W"].shape[1]
    two_layers = "mlp_rad_R1_W0" in arrays
    passes = 3 if two_layers else 1
    bond = BOND_WHOLE + BOND_REALS * real_bytes
    staged = 8 + BOND_REALS * real_bytes  # of a bond, read by the bases
    found = {
        "collect_bonds": Floor(25.0 * entries * passes, passes * (entries * LIST_ENTRY + neighbors * bond)),
        "scatter_forces": Floor(10.0 * neighbors, (2 if two_layers else 1) * neighbors * SCATTERED),
    }
    found["basis_forward"] = Floor(
        neighbors * _basis(n_rad, lmax, (lmax + 1) ** 2),
        neighbors * staged + (lmax + 1) ** 2 * padded(n_rad) * real_bytes,
    )
    if two_layers:
        n_rad, lmax = arrays["B0_lin_transform_W"].shape[1], integer(arrays, "mlp_rad_R1_lmax")
        rows = len(arrays["B_collect_ind_B0"])
        found["basis_forward"].operations += neighbors * _basis(n_rad, lmax, rows)
        found["basis_forward"].bytes += neighbors * staged + (lmax + 1) ** 2 * padded(n_rad) * real_bytes
        harmonics = np.unique(arrays["YI_lr_inds"][:, 0]).size
        pairs, message = len(np.unique(arrays["YI_lr_inds"], axis=0)), integer(arrays, "I_n_funcs")
        found["message_forward"] = Floor(
            neighbors * n_rad * (harmonics + 2.0 * pairs) + 2.0 * n_rad * len(arrays["YI_cg_coeff"]),
            (neighbors * (message * padded(n_rad) * real_bytes + staged))
            + integer(arrays, "YI_n_output_funcs") * padded(n_rad) * real_bytes,
        )
        # values are read, gradients of the neighbours' messages added to
        found["message_adjoint"] = Floor(
            2.0 * found["message_forward"].operations,
            found["message_forward"].bytes + 2 * neighbors * message * padded(n_rad) * real_bytes,
        )
    found["basis_adjoint"] = Floor(
        2.0 * found["basis_forward"].operations,
        found["basis_forward"].bytes + passes * 2 * 24 * neighbors,
    )
    mixes, products = _mix_rows(arrays), _product_rows(arrays)
    # the adjoint reads gradients of what was written and adds to those of what was read
    found["row_gemm"] = Floor(2.0 * mixing_operations(arrays), real_bytes * (sum(mixes) + 2 * mixes[0] + mixes[1]))
    forward = product_operations(arrays) - (2.0 * n_rad * len(arrays["YI_cg_coeff"]) if two_layers else 0.0)
    found["product_forward"] = Floor(forward, real_bytes * sum(products))
    found["product_adjoint"] = Floor(2.0 * forward, real_bytes * (3 * products[0] + products[1]))
    return found


def _basis(n_rad: int, lmax: int, rows: int) -> float:
    return n_rad * (lmax + 1) * (TABLE + CHEMISTRY) + 2.0 * n_rad * rows


def _mix_rows(arrays: Arrays) -> tuple[float, float]:
    """Numbers that channel mixes and reductions read and write, forward."""
    source, target, read = 0.0, 0.0, rows_read(arrays)
    for name, (left, right) in MIXES.items():
        if f"fc_{name}_w_left" not in arrays:
            continue
        n_out, n_left, _ = arrays[f"fc_{name}_w_left"].shape
        rows, to = read[name], arrays[f"fc_{name}_collect_to"]
        source += len(rows) * padded(n_left)
        if left != right:
            source += np.count_nonzero(np.isin(to, list(rows))) * padded(arrays[f"fc_{name}_w_right"].shape[1])
        target += len(rows) * padded(n_out)
    for name in REDUCTIONS:
        for key in arrays.get(f"{name}_instruction_names", ()):
            n_out, n_in = arrays[f"{name}_reduce_{key.decode()}_W"].shape[-3:-1]
            rows = arrays[f"{name}_collect_ind_{key.decode()}"]
            source += len(rows) * padded(n_in)
            target += padded(n_out)
    return source, target


def _product_rows(arrays: Arrays) -> tuple[float, float]:
    """Numbers that products read and write, forward."""
    source, target = 0.0, 0.0
    for name, (left, _) in PRODUCTS.items():
        if f"prod_{name}_cg_coeff" not in arrays:
            continue
        stride = padded(arrays[f"fc_{left}_w_left"].shape[0])
        for side in ("left", "right"):
            source += len(np.unique(arrays[f"prod_{name}_{side}_ind"])) * stride
        target += integer(arrays, f"prod_{name}_n_output_funcs") * stride
    return source, target


def main() -> None:
    """Print the table of predictions, as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(models.PRESETS), default=["1L-large", "2L-large"])
    parser.add_argument("--precision", choices=["mixed", "fp64"], default="mixed")
    parser.add_argument("--neighbors", type=float, default=58.0)
    parser.add_argument("--skin", type=float, default=0.5, help="A, of the neighbour list")
    parser.add_argument("--tflops", type=float, default=67.0, help="multiply-adds of the card, 1e12 operations/s")
    parser.add_argument("--matrix-tflops", type=float, default=165.0, help="row_gemm: a third of TF32; fp64: --tflops")
    parser.add_argument("--tbytes", type=float, default=4.3, help="copies of the card, 1e12 bytes read and written/s")
    parser.add_argument("--reached", type=float, default=0.4, help="share of the ceilings that is predicted")
    options = parser.parse_args()
    entries = options.neighbors * (1.0 + options.skin / models.CUTOFF) ** 3
    real_bytes = 8 if options.precision == "fp64" else 4
    print("| model | kernel | kFLOP | kB | ns of arithmetic | ns at the copy rate | predicted, ns |")
    print("|---|---|---|---|---|---|---|")
    for name in options.models:
        sums = np.zeros(5)
        for kernel, floor in floors(models.build(name), options.neighbors, real_bytes, entries).items():
            on_matrix_units = kernel == "row_gemm" and options.precision == "mixed"
            rate = options.matrix_tflops if on_matrix_units else options.tflops
            arithmetic, memory = floor.operations / rate / 1e3, floor.bytes / options.tbytes / 1e3
            predicted = max(arithmetic, memory) / options.reached
            row = np.array([floor.operations / 1e3, floor.bytes / 1e3, arithmetic, memory, predicted])
            sums += row
            print(f"| {name} | {kernel} | {' | '.join(f'{number:.0f}' for number in row)} |")
        print(f"| {name} | **all** | {' | '.join(f'**{number:.0f}**' for number in sums)} |")


if __name__ == "__main__":
    main()
