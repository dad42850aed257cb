#!/usr/bin/env python3
"""Check that every coupling table of a GRACE weight file follows the rule of `grace_md.couplings`.

    python tools/check_coupling_tables.py model.npz [...]

Each (output group, left group, right group) block of a product is compared with the generated real coupling tensor, so
that neither the order of the groups nor which of them a file keeps matters. Exit status 1 if any block differs.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grace_md.couplings import real_coupling

Rows = list[list[int]]  # rows of each group of a tensor
Arrays = Mapping[str, NDArray[Any]]
TOLERANCE = 1e-13


def _by_group(rows: NDArray[Any], tile: NDArray[Any]) -> Rows:
    groups: dict[int, list[int]] = {}
    for row, group in zip(rows.tolist(), tile.tolist(), strict=True):
        groups.setdefault(group, []).append(row)
    return [groups[group] for group in sorted(groups)]


def tensor_groups(arrays: Arrays) -> dict[str, Rows]:
    """Return the rows of every group of every tensor, as the mixes and reductions of the file divide them."""
    lmax = int(arrays["lmax"].reshape(-1)[0])
    groups = {"A": [list(range(degree**2, (degree + 1) ** 2)) for degree in range(lmax + 1)]}
    groups["harmonics"] = groups["A"]
    for key in arrays:
        if key.endswith("_w_tile_left"):
            name = key.removeprefix("fc_").removesuffix("_w_tile_left")
            groups[name] = _by_group(np.arange(arrays[key].size), arrays[key])
            groups[name.rstrip("12")] = groups[name]
        elif "_w_l_tile_" in key:
            reduction, name = key.split("_w_l_tile_")
            rows = _by_group(arrays[f"{reduction}_collect_ind_{name}"], arrays[key])
            if sum(map(len, rows)) > sum(map(len, groups.get(name, []))):
                groups[name] = rows
    if "YI_lr_inds" in arrays:
        n_rows = int(arrays["I_total_sum_ind_I1"].max()) + 1
        groups["I"] = [list(range(degree**2, (degree + 1) ** 2)) for degree in range(round(n_rows**0.5))]
        lmax1 = int(arrays["mlp_rad_R1_lmax"].reshape(-1)[0])
        groups["harmonics"] = [list(range(degree**2, (degree + 1) ** 2)) for degree in range(lmax1 + 1)]
    return groups


def largest_difference(product: Rows, left: Rows, right: Rows, terms: NDArray[Any], *, same: bool) -> float:
    """Return the largest difference between the blocks of `terms` [(row, left, right, coefficient)] and the rule.

    `same`: both operands are one tensor, so (m1, m2) and (m2, m1) of one group are merged in either of them.
    """
    sides = (product, left, right)
    places = [{row: (g, i) for g, rows in enumerate(side) for i, row in enumerate(rows)} for side in sides]
    blocks: dict[tuple[int, ...], NDArray[np.float64]] = {}
    for row, a, b, coefficient in terms.tolist():
        if int(row) not in places[0]:
            continue  # a row that nobody reads, so the file does not tell its group
        (p, k), (g, i), (h, j) = (place[int(index)] for place, index in zip(places, (row, a, b), strict=True))
        block = blocks.setdefault((p, g, h), np.zeros((len(left[g]), len(right[h]), len(product[p]))))
        block[i, j, k] += coefficient
    worst = 0.0
    for (_, g, h), block in blocks.items():
        difference = block - real_coupling(*((n - 1) // 2 for n in block.shape))
        if same and g == h:
            difference += difference.transpose(1, 0, 2).copy()
        worst = max(worst, float(np.abs(difference).max()))
    return worst


def check_file(arrays: Arrays) -> dict[str, float]:
    """Return the largest difference for every product of a one- or two-layer model."""
    groups = tensor_groups(arrays)
    third = {"AAA": ("AA1", "A" if "YI_lr_inds" in arrays else "A1"), "BBB": ("BB1", "B")}
    result = {}
    for key in arrays:
        if not key.startswith("prod_") or not key.endswith("_cg_coeff"):
            continue
        name = key.removeprefix("prod_").removesuffix("_cg_coeff")
        half = name[: len(name) // 2]
        left, right = third.get(name, (half + str(len(half)), half + str(len(half))))
        tables = ("m_sum_ind", "left_ind", "right_ind", "cg_coeff")
        terms = np.stack([arrays[f"prod_{name}_{table}"].astype(np.float64) for table in tables], axis=1)
        result[name] = largest_difference(groups[name], groups[left], groups[right], terms, same=left == right)
    if "YI_lr_inds" in arrays:
        columns = (arrays["YI_m_sum_ind"], *arrays["YI_lr_inds"].T, arrays["YI_cg_coeff"])
        terms = np.stack([column.astype(np.float64) for column in columns], axis=1)
        result["YI"] = largest_difference(groups["YI"], groups["harmonics"], groups["I"], terms, same=False)
    return result


def main() -> int:
    """Check the files of the command line."""
    failed = False
    for path in sys.argv[1:]:
        with np.load(path) as archive:
            differences = check_file({key: archive[key] for key in archive.files})
        for name, difference in differences.items():
            failed = failed or not difference <= TOLERANCE
            print(f"{path}: {name:5s} largest difference {difference:.1e}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
