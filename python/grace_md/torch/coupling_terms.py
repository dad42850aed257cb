"""Tables of coupling products, sorted for every slot of the trilinear form."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike
    from torch import Tensor

__all__ = ["LEFT", "RIGHT", "ROWS", "CouplingTerms"]

ROWS, LEFT, RIGHT = range(3)  # slots of coupling_product: P, L, S


class CouplingTerms(torch.nn.Module):
    """Terms c L[left] S[right] -> P[row] of a coupling product, sorted for each of its three slots.

    Parameters
    ----------
    row, left, right : int [n_terms]
        Rows of the product and of its operands.
    coefficient : float [n_terms]
    n_rows, n_left, n_right : int
        Rows per atom of P, L and S.
    """

    terms: Tensor  # int32 [3, n_terms, 3]: for the free slot P, L, S: target, first, second; sorted by target
    coefficients: Tensor  # float64 [3, n_terms]

    def __init__(
        self,
        row: ArrayLike,
        left: ArrayLike,
        right: ArrayLike,
        coefficient: ArrayLike,
        n_rows: int,
        n_left: int,
        n_right: int,
    ) -> None:
        super().__init__()
        self.sizes = (n_rows, n_left, n_right)
        rows = np.stack([np.asarray(column, dtype=np.int32) for column in (row, left, right)], axis=1)
        if rows.size and (rows.min() < 0 or (rows >= np.array(self.sizes)).any()):
            raise ValueError(f"Terms name rows outside of 0 .. {self.sizes} (P, L, S).")
        values = np.asarray(coefficient, dtype=np.float64)
        orders = [np.argsort(rows[:, slot], kind="stable") for slot in (ROWS, LEFT, RIGHT)]
        columns = ([ROWS, LEFT, RIGHT], [LEFT, ROWS, RIGHT], [RIGHT, ROWS, LEFT])
        terms = np.ascontiguousarray([rows[order][:, pick] for order, pick in zip(orders, columns, strict=True)])
        self.register_buffer("terms", torch.from_numpy(terms), persistent=False)
        self.register_buffer("coefficients", torch.from_numpy(values[np.stack(orders)]), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> CouplingTerms:
        """Move to a device, but keep coefficients in double: kernels convert them."""
        values = self.coefficients
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.coefficients = values.to(self.coefficients.device)
        return self
