"""Channel mixes and reductions as row maps of the core (`linear_op`): which row meets which matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from grace_md.torch.linear_op import RowTerms, row_linear

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["MixRows", "ReduceRows"]


class MixRows(torch.nn.Module):
    """out[w] = c_w L[w] WL[g(w)] + sum over pairs (w' -> w) of d_w S[w'] WR[g].

    Rows that share a matrix and its factor share the product of both, so that matrices are few.

    Parameters
    ----------
    tile_left : int [n_rows], group of each left row
    feeds : (to, source, group) of every pair
    scales : c, d [n_rows]
    same : left and right are one tensor and every row feeds itself: both matrices are added first
    """

    def __init__(
        self,
        tile_left: NDArray[np.int64],
        feeds: Sequence[tuple[int, int, int]],
        scales: tuple[NDArray[np.float64], NDArray[np.float64]],
        *,
        same: bool,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        rows, n_rows = np.arange(len(tile_left)), len(tile_left)
        to, source, group = np.array(feeds, dtype=np.int64).reshape(-1, 3).T
        self.same = same
        if same:
            by_row = np.empty(n_rows, dtype=np.int64)
            by_row[to] = group
            keys = np.stack([tile_left, by_row, *scales], axis=1)
            self.left = self._part("left", keys[:, [0, 2]], keys, rows, rows, n_rows, dtype)
            self._part("right", keys[:, [1, 3]], keys, rows, rows, n_rows, dtype)
            return
        left_keys = np.stack([tile_left, scales[0]], axis=1)
        right_keys = np.stack([group, scales[1][to]], axis=1)
        self.left = self._part("left", left_keys, left_keys, rows, rows, n_rows, dtype)
        self.right = self._part("right", right_keys, right_keys, to, source, n_rows, dtype)

    def _part(
        self,
        name: str,
        factors: NDArray[np.float64],
        keys: NDArray[np.float64],
        target: NDArray[np.int64],
        source: NDArray[np.int64],
        n_rows: int,
        dtype: torch.dtype,
    ) -> RowTerms:
        """Register group and factor of the distinct matrices, one for each distinct row of `keys`."""
        distinct, first, group = np.unique(keys, axis=0, return_index=True, return_inverse=True)
        chosen = factors[first]
        self.register_buffer(f"{name}_group", torch.from_numpy(chosen[:, 0].astype(np.int64)), persistent=False)
        factor = torch.tensor(chosen[:, 1], dtype=dtype).reshape(-1, 1, 1)
        self.register_buffer(f"{name}_factor", factor, persistent=False)
        return RowTerms(target, source, group.reshape(-1), n_rows, len(distinct))

    def _matrices(self, name: str, raw: Tensor) -> Tensor:
        """Matrices [1, n_distinct, n_in, n_out] of raw weights [n_out, n_in, n_groups]."""
        group: Tensor = getattr(self, f"{name}_group")
        factor: Tensor = getattr(self, f"{name}_factor")
        return (raw.permute(2, 1, 0).index_select(0, group) * factor)[None]

    def forward(self, left: Tensor, right: Tensor, w_left: Tensor, w_right: Tensor) -> Tensor:
        """Return the mixed tensor [n_atoms, n_rows, n_out]; weights [n_out, n_in, n_groups]."""
        by_left, by_right = self._matrices("left", w_left), self._matrices("right", w_right)
        if self.same:
            return row_linear([left], [by_left + by_right], [self.left])
        return row_linear([left, right], [by_left, by_right], [self.left, self.right])


class ReduceRows(torch.nn.Module):
    """out[target row] = sum over parts, groups and their rows of T[source] W_T[g].

    Parameters
    ----------
    parts : (out rows [m], source rows [n, m], groups [n], number of groups) in a list for every tensor
    n_targets : int
        Rows of the result.
    """

    def __init__(
        self,
        parts: Sequence[Sequence[tuple[Sequence[int], NDArray[np.int64], NDArray[np.int64], int]]],
        n_targets: int,
    ) -> None:
        super().__init__()
        tables = []
        for blocks in parts:
            columns = [
                np.stack([np.broadcast_to(c, rows.shape) for c in (np.asarray(out), rows, groups[:, None])]).reshape(
                    3, -1
                )
                for out, rows, groups, _ in blocks
            ]
            tables.append(RowTerms(*np.concatenate(columns, axis=1), n_targets, blocks[0][3]))
        self.tables = torch.nn.ModuleList(tables)

    def forward(
        self, tensors: Sequence[Tensor], matrices: Sequence[Tensor], order: Tensor | None, run_first: Tensor | None
    ) -> Tensor:
        """Return the reduced tensor [n_atoms, n_targets, n_out]; matrices [n_runs, n_groups, n_in, n_out]."""
        return row_linear(tensors, matrices, list(self.tables), order, run_first)  # type: ignore[arg-type]
