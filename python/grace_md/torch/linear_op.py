"""Channel mixes and reductions as one operator: rows of tensors times matrices chosen by group and by element.

    out[a, w, :] = sum over parts p and terms (w, s, g) of  X_p[a, s, :] @ M_p[e_a, g]

Nothing is gathered or put side by side: rows are read where they lie, and sums of all parts stay in registers. The form
is linear in out, X and M, so that its derivatives are three operators that call each other, to any order. Results do
not depend on the number of threads. CPU only: on other devices batched matrix products serve better.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from grace_md import _core
from grace_md.torch.op_tools import address, real_dtype

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike
    from torch import Tensor

__all__ = ["RowTerms", "row_linear"]

OUT, INPUTS, MATRICES = range(3)


class RowTerms(torch.nn.Module):
    """Terms of one part, sorted for each slot.

    Parameters
    ----------
    target, source, group : int [n_terms]
        Rows of the result and of the input, and the matrix between them.
    n_targets, n_groups : int
        Rows of the result and matrices; the rows of the input are those of the tensor that is given.
    """

    terms: Tensor  # int32 [3, n_terms, 3]: target, source, group; sorted by target, by source, by group

    def __init__(self, target: ArrayLike, source: ArrayLike, group: ArrayLike, n_targets: int, n_groups: int) -> None:
        super().__init__()
        self.n_targets, self.n_groups = n_targets, n_groups
        rows = np.stack([np.asarray(column, dtype=np.int32) for column in (target, source, group)], axis=1)
        if rows.size and (rows.min() < 0 or (rows[:, ::2] >= (n_targets, n_groups)).any()):
            raise ValueError(f"Terms name targets or groups outside of {n_targets} and {n_groups}, or negative rows.")
        terms = np.ascontiguousarray([rows[np.argsort(rows[:, slot], kind="stable")] for slot in range(3)])
        self.register_buffer("terms", torch.from_numpy(terms), persistent=False)


def row_linear(
    inputs: Sequence[Tensor],
    matrices: Sequence[Tensor],
    terms: Sequence[RowTerms],
    order: Tensor | None = None,
    run_first: Tensor | None = None,
) -> Tensor:
    """Return out[a, w, :] = sum over parts and their terms of X[a, s, :] @ M[e_a, g], [n_atoms, n_targets, n_out].

    Parameters
    ----------
    inputs : X [n_atoms, n_sources, n_in] of every part
    matrices : M [n_runs, n_groups, n_in, n_out] of every part
    terms : RowTerms of every part, with equal n_targets
    order : int64 [n_atoms]
        Atoms sorted by the matrices that they use; None: as they are, all with the same.
    run_first : int64 [n_runs + 1]
        order[run_first[e]] .. order[run_first[e + 1] - 1] use M[e].
    """
    n_atoms, device = inputs[0].shape[0], inputs[0].device
    if order is None or run_first is None:
        order = torch.arange(n_atoms, device=device)
        run_first = torch.tensor([0, n_atoms], device=device)
    sizes = [n for x, part in zip(inputs, terms, strict=True) for n in (part.n_targets, x.shape[1], part.n_groups)]
    result: Tensor = _row_linear(list(inputs), list(matrices), [part.terms for part in terms], sizes, order, run_first)
    return result


def _run(
    slot: int,
    parts: Sequence[tuple[Tensor, Sequence[int], Tensor | None, Tensor | None]],
    gradient: Tensor | None,
    shape: tuple[int, int, int],
    order: Tensor,
    run_first: Tensor,
) -> Tensor:
    """Call the core. parts: terms, sizes, inputs, matrices; shape: n_in (of the only part, or 0), n_targets, n_out."""
    given = {f"inputs[{k}]": part[2] for k, part in enumerate(parts)}
    given |= {f"matrices[{k}]": part[3] for k, part in enumerate(parts)} | {"gradient": gradient}
    dtype = real_dtype(**given)
    n_atoms, n_runs = order.shape[0], run_first.shape[0] - 1
    n_in, n_targets, n_out = shape
    packed = []
    for k, (terms, (targets, n_sources, n_groups), inputs, matrices) in enumerate(parts):
        if targets != n_targets:
            raise ValueError(f"Parts must have equal numbers of targets, got {targets} and {n_targets}.")
        depth = n_in or (inputs.shape[-1] if inputs is not None else 0)
        packed.append(
            (
                terms.shape[1],
                address(f"terms[{k}]", terms, torch.int32, (3, terms.shape[1], 3)) + 12 * terms.shape[1] * slot,
                n_sources,
                n_groups,
                depth,
                address(f"inputs[{k}]", inputs, dtype, (n_atoms, n_sources, depth)),
                address(f"matrices[{k}]", matrices, dtype, (n_runs, n_groups, depth, n_out)),
            )
        )
    _, n_sources, n_groups = parts[0][1]
    shapes = ((n_atoms, n_targets, n_out), (n_atoms, n_sources, n_in), (n_runs, n_groups, n_in, n_out))
    out = torch.empty(shapes[slot], dtype=dtype)
    runs = (
        n_atoms,
        n_runs,
        address("order", order, torch.int64, (n_atoms,)),
        address("run_first", run_first, torch.int64, (n_runs + 1,)),
    )
    at = address("gradient", gradient, dtype, shapes[OUT])
    _core.row_linear(
        slot, dtype == torch.float64, runs, n_targets, n_out, packed, at, out.data_ptr(), torch.get_num_threads()
    )
    return out


def _wanted(ctx: Any, needed: bool, edge: int) -> bool:
    """Whether this backward pass will use the gradient of the tensor argument number `edge`."""
    if not needed:
        return False
    with contextlib.suppress(AttributeError, RuntimeError):
        node = ctx.next_functions[edge][0]
        return node is None or bool(torch._C._will_engine_execute_node(node))
    return True


# ---- values ---------------------------------------------------------------------------------------------------------


@torch.library.custom_op(
    "grace_md::row_linear",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor[] inputs, Tensor[] matrices, Tensor[] terms, int[] sizes, Tensor order, Tensor run_first)"
    " -> Tensor",
)
def _row_linear(
    inputs: list[Tensor],
    matrices: list[Tensor],
    terms: list[Tensor],
    sizes: Sequence[int],
    order: Tensor,
    run_first: Tensor,
) -> Tensor:
    triples = [sizes[3 * k : 3 * k + 3] for k in range(len(inputs))]
    parts = list(zip(terms, triples, inputs, matrices, strict=True))
    return _run(OUT, parts, None, (0, sizes[0], matrices[0].shape[-1]), order, run_first)


@_row_linear.register_fake
def _(
    inputs: list[Tensor],
    matrices: list[Tensor],
    terms: list[Tensor],
    sizes: Sequence[int],
    order: Tensor,
    run_first: Tensor,
) -> Tensor:
    return inputs[0].new_empty(inputs[0].shape[0], sizes[0], matrices[0].shape[-1])


# ---- the other slots ------------------------------------------------------------------------------------------------


@torch.library.custom_op(
    "grace_md::row_linear_inputs",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor gradient, Tensor matrices, Tensor terms, int[] sizes, Tensor order, Tensor run_first) -> Tensor",
)
def _inputs(
    gradient: Tensor, matrices: Tensor, terms: Tensor, sizes: Sequence[int], order: Tensor, run_first: Tensor
) -> Tensor:
    shape = (matrices.shape[2], sizes[0], matrices.shape[3])
    return _run(INPUTS, [(terms, sizes, None, matrices)], gradient, shape, order, run_first)


@_inputs.register_fake
def _(
    gradient: Tensor, matrices: Tensor, terms: Tensor, sizes: Sequence[int], order: Tensor, run_first: Tensor
) -> Tensor:
    return gradient.new_empty(gradient.shape[0], sizes[1], matrices.shape[2])


@torch.library.custom_op(
    "grace_md::row_linear_matrices",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor gradient, Tensor inputs, Tensor terms, int[] sizes, Tensor order, Tensor run_first) -> Tensor",
)
def _matrices(
    gradient: Tensor, inputs: Tensor, terms: Tensor, sizes: Sequence[int], order: Tensor, run_first: Tensor
) -> Tensor:
    shape = (inputs.shape[2], sizes[0], gradient.shape[2])
    return _run(MATRICES, [(terms, sizes, inputs, None)], gradient, shape, order, run_first)


@_matrices.register_fake
def _(
    gradient: Tensor, inputs: Tensor, terms: Tensor, sizes: Sequence[int], order: Tensor, run_first: Tensor
) -> Tensor:
    return gradient.new_empty(run_first.shape[0] - 1, sizes[2], inputs.shape[2], gradient.shape[2])


# ---- derivatives ----------------------------------------------------------------------------------------------------


def _setup_values(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    tensors, matrices, terms, ctx.sizes, order, run_first = inputs
    ctx.n_parts = len(tensors)
    ctx.save_for_backward(*tensors, *matrices, *terms, order, run_first)


def _backward_values(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    n, gradient = ctx.n_parts, gradient.contiguous()
    saved = ctx.saved_tensors
    inputs, matrices, terms, runs = saved[:n], saved[n : 2 * n], saved[2 * n : 3 * n], saved[3 * n :]
    sizes = [ctx.sizes[3 * k : 3 * k + 3] for k in range(n)]
    needed = ctx.needs_input_grad
    by_inputs = [
        _inputs(gradient, matrices[k], terms[k], sizes[k], *runs) if _wanted(ctx, needed[0][k], k) else None
        for k in range(n)
    ]
    by_matrices = [
        _matrices(gradient, inputs[k], terms[k], sizes[k], *runs) if _wanted(ctx, needed[1][k], n + k) else None
        for k in range(n)
    ]
    return by_inputs, by_matrices, [None] * n, None, None, None


def _setup_slot(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    gradient, operand, terms, ctx.sizes, order, run_first = inputs
    ctx.save_for_backward(gradient, operand, terms, order, run_first)


def _backward_inputs(ctx: Any, h: Tensor) -> tuple[Any, ...]:
    gradient, matrices, terms, *runs = ctx.saved_tensors
    h, needed = h.contiguous(), ctx.needs_input_grad
    by_gradient = _row_linear([h], [matrices], [terms], ctx.sizes, *runs) if _wanted(ctx, needed[0], 0) else None
    by_matrices = _matrices(gradient, h, terms, ctx.sizes, *runs) if _wanted(ctx, needed[1], 1) else None
    return by_gradient, by_matrices, None, None, None, None


def _backward_matrices(ctx: Any, h: Tensor) -> tuple[Any, ...]:
    gradient, inputs, terms, *runs = ctx.saved_tensors
    h, needed = h.contiguous(), ctx.needs_input_grad
    by_gradient = _row_linear([inputs], [h], [terms], ctx.sizes, *runs) if _wanted(ctx, needed[0], 0) else None
    by_inputs = _inputs(gradient, h, terms, ctx.sizes, *runs) if _wanted(ctx, needed[1], 1) else None
    return by_gradient, by_inputs, None, None, None, None


_row_linear.register_autograd(_backward_values, setup_context=_setup_values)
_inputs.register_autograd(_backward_inputs, setup_context=_setup_slot)
_matrices.register_autograd(_backward_matrices, setup_context=_setup_slot)
