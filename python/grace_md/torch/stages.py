"""Stages of a GRACE model in torch: each reads named tensors of a batch and adds its own.

A stage holds index tables and constants; weights come with every call, from one mapping by the key of the weight file,
so that nothing is stored twice. Tensors per atom are [n_atoms, n_rows, n_channels], rows in the order of the weight
file, channels last and contiguous; formulas are those of docs/theory.md. `grace_md.torch.wiring` makes the stages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from grace_md.torch.coupling_terms import CouplingTerms
from grace_md.torch.grouped import grouped_matmul
from grace_md.torch.radial import network
from grace_md.torch.row_maps import MixRows, ReduceRows

__all__ = [
    "BatchView",
    "ChannelMix",
    "CouplingProduct",
    "DensityNorm",
    "FunctionReduce",
    "MessageBasis",
    "RadialNetwork",
    "Readout",
    "SingleParticleBasis",
    "Stage",
]

Weights = Mapping[str, Tensor]
Tensors = dict[str, Tensor]

NORM_REGULARISER = 1e-10  # added to the mean square in the norms of densities


@dataclass(frozen=True)
class BatchView:
    """What the stages see of a batch, besides tensors: who is bound to whom, and atoms sorted by species."""

    species: Tensor  # int64 [n_atoms]
    first_bond: Tensor  # int64 [n_atoms + 1]
    neighbor: Tensor  # int64 [n_bonds]
    bond_species: Tensor  # int64 [n_bonds], element of the neighbour
    order: Tensor  # int64 [n_atoms], atoms sorted by species
    rank: Tensor  # int64 [n_atoms], place of each atom in `order`
    present: Tensor  # int64 [n_present], species that occur, ascending
    counts: tuple[int, ...]  # atoms of each
    run_first: Tensor  # int64 [n_present + 1], first of them in `order`
    row_maps: bool  # mixes and reductions by the core (`row_maps`), which runs on CPUs; else batched matrix products
    kernels: Any  # module with bond_basis, message_basis and coupling_product: `ops` or `forms`


class Stage(nn.Module):
    """One step of a model."""

    output: str

    def forward(self, weights: Weights, t: Tensors, view: BatchView) -> None:
        """Add the outputs to `t`."""
        raise NotImplementedError

    def index(self, name: str, values: Any) -> Tensor:
        """Keep an index table as a buffer that is not part of the state."""
        table = torch.from_numpy(np.ascontiguousarray(values, dtype=np.int64))
        self.register_buffer(name, table, persistent=False)
        return table

    def constant(self, name: str, values: Any, dtype: torch.dtype) -> None:
        """Keep constants as a buffer that is not part of the state."""
        self.register_buffer(name, torch.tensor(np.asarray(values, dtype=np.float64), dtype=dtype), persistent=False)


@dataclass(frozen=True)
class RadialNetwork:
    """R[b, l, n] of the basis g(x) [n_bonds, n_basis]: a silu network of the keys prefix_W0, prefix_W1, ..."""

    output: str
    prefix: str
    norms: tuple[float, ...]
    n_channels: int
    lmax: int

    def weights(self, weights: Weights) -> list[Tensor]:
        """Return the matrices with their norms; columns of the last one go from n (lmax+1) + l to l n_channels + n."""
        *hidden, last = (weights[f"{self.prefix}_W{m}"] * norm for m, norm in enumerate(self.norms))
        last = last.reshape(len(last), self.n_channels, self.lmax + 1).transpose(1, 2).flatten(1)
        return [*hidden, last]

    def shape(self, flat: Tensor) -> Tensor:
        """Return [n_bonds, lmax + 1, n_channels]."""
        return flat.reshape(len(flat), self.lmax + 1, self.n_channels)

    def __call__(self, weights: Weights, basis: Tensor) -> Tensor:
        """Return R."""
        return self.shape(network(basis, self.weights(weights), "silu"))


class SingleParticleBasis(Stage):
    """A[i, lm, n] = inverse_neighbors[mu_i] sum_b R[b, l, n] Y[b, lm] z[mu_j, n]."""

    inverse_neighbors: Tensor  # [n_elements, 1, 1]

    def __init__(
        self, output: str, radial: str, lmax: int, norm: float, inverse_neighbors: NDArray[Any], dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.output, self.radial, self.lmax = output, radial, lmax
        self.uniform = bool(np.ptp(inverse_neighbors) == 0.0)
        self.factor = norm * float(inverse_neighbors[0]) if self.uniform else norm
        self.constant("inverse_neighbors", inverse_neighbors.reshape(-1, 1, 1), dtype)

    def forward(self, weights: Weights, t: Tensors, view: BatchView) -> None:
        """Add A."""
        chemical = (weights["chem_embedding"] @ weights[f"{self.output}_lin_transform_W"]) * self.factor
        harmonics = first_rows(t["Y"], (self.lmax + 1) ** 2)
        basis = view.kernels.bond_basis(t[self.radial], harmonics, chemical, view.first_bond, view.bond_species)
        t[self.output] = basis if self.uniform else basis * self.inverse_neighbors[view.species]


def first_rows(harmonics: Tensor, n_rows: int) -> Tensor:
    """Return the first rows of Y [n_bonds, all rows], itself where that is all of them."""
    return harmonics if harmonics.shape[1] == n_rows else harmonics[:, :n_rows].contiguous()


class MessageBasis(Stage):
    """YI[i, f, n] = inverse_neighbors[mu_i] sum over bonds and terms of c R[b, l(y), n] Y[b, y] I[j, w, n]."""

    inverse_neighbors: Tensor  # [n_elements, 1, 1]

    def __init__(
        self,
        output: str,
        radial: str,
        message: str,
        lmax: int,
        terms: CouplingTerms,
        inverse_neighbors: NDArray[Any],
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        self.output, self.radial, self.message, self.lmax, self.terms = output, radial, message, lmax, terms
        self.uniform = bool(np.ptp(inverse_neighbors) == 0.0)
        self.factor = float(inverse_neighbors[0])
        self.constant("inverse_neighbors", inverse_neighbors.reshape(-1, 1, 1), dtype)

    def forward(self, weights: Weights, t: Tensors, view: BatchView) -> None:
        """Add YI."""
        harmonics = first_rows(t["Y"], (self.lmax + 1) ** 2)
        message = t[self.message] * self.factor if self.uniform else t[self.message]
        basis = view.kernels.message_basis(
            t[self.radial], harmonics, message, view.first_bond, view.neighbor, self.terms
        )
        t[self.output] = basis if self.uniform else basis * self.inverse_neighbors[view.species]


class ChannelMix(Stage):
    """out[w, k] = q_w (norm_L sum_n WL[k, n, g(w)] L[w, n] + norm_R sum over pairs (w' -> w) of WR[k, n, g] S[w', n]).

    One matrix product per row: the left row and the right rows that feed it lie side by side, and so do the matrices.
    """

    tile_left: Tensor  # [n_rows], weight group of the left row
    source: Tensor  # [n_feeds * n_rows], right row that feeds row w as its k-th, 0 where none does
    tile_right: Tensor  # the same shape: its weight group, n_groups (a matrix of zeros) where none does
    scale_left: Tensor  # [n_rows, 1, 1]
    scale_right: Tensor  # [n_rows, 1, 1]

    def __init__(
        self,
        output: str,
        left: str,
        right: str,
        tables: Mapping[str, NDArray[Any]],
        norms: tuple[float, float],
        n_right_groups: int,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        self.output, self.left, self.right = output, left, right
        tile_left, q = tables["w_tile_left"].reshape(-1), tables["norm_out_factor"].reshape(-1)
        feeds: list[list[tuple[int, int]]] = [[] for _ in tile_left]
        columns = (tables[name].reshape(-1).tolist() for name in ("collect_to", "collect_from", "w_tile_right"))
        for to, source, group in zip(*columns, strict=True):
            feeds[to].append((source, group))
        self.n_feeds = max(map(len, feeds), default=0)
        padded = [[*row, *[(0, n_right_groups)] * (self.n_feeds - len(row))] for row in feeds]
        table = np.array(padded, dtype=np.int64).reshape(len(feeds), self.n_feeds, 2).transpose(2, 1, 0)
        self.complete = all(len(row) == self.n_feeds for row in feeds)
        # A tensor mixed with itself row by row needs one product with the sum of both matrices.
        self.same = left == right and self.n_feeds == 1 and bool(np.all(table[0, 0] == np.arange(len(feeds))))
        self.index("tile_left", tile_left)
        self.index("source", table[0].reshape(-1))
        self.index("tile_right", table[1].reshape(-1))
        self.constant("scale_left", (norms[0] * q).reshape(-1, 1, 1), dtype)
        self.constant("scale_right", (norms[1] * q).reshape(-1, 1, 1), dtype)
        pairs = [(to, *feed) for to, row in enumerate(feeds) for feed in row]
        scales = (norms[0] * q, norms[1] * q)
        self.rows = MixRows(tile_left.astype(np.int64), pairs, scales, same=self.same, dtype=dtype)

    def matrices(self, weights: Weights) -> tuple[Tensor, Tensor]:
        """Return the matrices of left rows [n_rows, n_left, n_out], of right ones [n_rows, n_feeds n_right, n_out]."""
        left = weights[f"fc_{self.output}_w_left"].permute(2, 1, 0)[self.tile_left] * self.scale_left
        raw = weights[f"fc_{self.output}_w_right"].permute(2, 1, 0)
        if not self.complete:
            raw = torch.cat((raw, raw.new_zeros(1, *raw.shape[1:])))
        right = raw[self.tile_right].reshape(self.n_feeds, len(left), *raw.shape[1:]) * self.scale_right
        return left, right.transpose(0, 1).flatten(1, 2)

    def forward(self, weights: Weights, t: Tensors, view: BatchView) -> None:
        """Add the mixed tensor."""
        if view.row_maps:
            by_left, by_right = (weights[f"fc_{self.output}_w_{side}"] for side in ("left", "right"))
            t[self.output] = self.rows(t[self.left], t[self.right], by_left, by_right)
            return
        left, right = self.matrices(weights)
        x = t[self.left]
        if self.same:
            matrix = left + right
        else:
            matrix = torch.cat((left, right), dim=1)
            n_rows = x.shape[1]
            fed = [t[self.right].index_select(1, part) for part in torch.split(self.source, n_rows)]
            x = torch.cat((x, *fed), dim=2)
        t[self.output] = torch.bmm(x.transpose(0, 1), matrix).transpose(0, 1).contiguous()


class CouplingProduct(Stage):
    """P[row] = sum over terms of c L[left] S[right], channel by channel."""

    def __init__(self, output: str, left: str, right: str, terms: CouplingTerms) -> None:
        super().__init__()
        self.output, self.left, self.right, self.terms = output, left, right, terms

    def forward(self, weights: Weights, t: Tensors, view: BatchView) -> None:
        """Add the product."""
        t[self.output] = view.kernels.coupling_product(t[self.left], t[self.right], self.terms)


@dataclass(frozen=True)
class ReducePart:
    """Groups of one input that feed one target: rows [n_groups, n_target_rows] of the input, and their weights."""

    tensor: str
    key: str  # of the weights
    norm: float
    rows: NDArray[np.int64]
    groups: NDArray[np.int64]
    n_groups: int  # of the weights


class FunctionReduce(Stage):
    """out[target, k] = sum over inputs T and their rows of W_T[mu_i, k, n, group] T[source, n].

    Rows of one target (the 2l + 1 of a degree) share their weights: functions of all inputs lie side by side,
    [n_atoms, n_target_rows, n_functions], and meet one matrix per element, [n_functions, n_out].
    """

    placement: Tensor  # [n_rows]: where each output row lies among the rows of the targets in turn

    def __init__(
        self, output: str, targets: Sequence[tuple[Sequence[int], Sequence[ReducePart]]], *, per_element: bool
    ) -> None:
        super().__init__()
        self.output, self.per_element = output, per_element
        self.parts: list[list[ReducePart]] = [list(parts) for _, parts in targets]
        for k, parts in enumerate(self.parts):
            for p, part in enumerate(parts):
                self.index(f"rows_{k}_{p}", part.rows.T.reshape(-1))  # target row by target row
                self.index(f"groups_{k}_{p}", part.groups)
        rows = [row for target, _ in targets for row in target]
        self.in_order = rows == list(range(len(rows)))
        self.index("placement", np.argsort(rows))
        blocks: dict[tuple[str, str], list[tuple[Sequence[int], ReducePart]]] = {}
        for target, parts in targets:
            for part in parts:
                blocks.setdefault((part.tensor, part.key), []).append((target, part))
        self.sources = [found[0][1] for found in blocks.values()]
        lists = [[(out, p.rows, p.groups, p.n_groups) for out, p in found] for found in blocks.values()]
        self.rows = ReduceRows(lists, len(rows))

    def _functions(self, k: int, t: Tensors, view: BatchView) -> Tensor:
        """Return the functions of target k, [n_atoms, n_target_rows, n_functions]; atoms sorted by species."""
        columns = []
        for p, part in enumerate(self.parts[k]):
            chosen = t[part.tensor].index_select(1, getattr(self, f"rows_{k}_{p}"))
            columns.append(chosen.reshape(len(chosen), part.rows.shape[1], -1))
        functions = torch.cat(columns, dim=2) if len(columns) > 1 else columns[0]
        return functions.index_select(0, view.order) if self.per_element else functions

    def _matrices(self, k: int, weights: Weights, view: BatchView) -> Tensor:
        """Return the matrices of target k, [n_present or 1, n_functions, n_out]."""
        blocks = []
        for p, part in enumerate(self.parts[k]):
            raw = weights[part.key]
            raw = raw.index_select(0, view.present) if self.per_element else raw[None]
            if len(part.groups) != part.n_groups or np.any(np.diff(part.groups) != 1):
                raw = raw.index_select(3, getattr(self, f"groups_{k}_{p}"))
            blocks.append(raw.permute(0, 3, 2, 1).flatten(1, 2) * part.norm)
        return torch.cat(blocks, dim=1)

    def _by_rows(self, weights: Weights, t: Tensors, view: BatchView) -> Tensor:
        """Return the reduced tensor by row maps of the core."""
        matrices = []
        for part in self.sources:
            raw = weights[part.key]
            raw = raw.index_select(0, view.present) if self.per_element else raw[None]
            matrices.append((raw.permute(0, 3, 2, 1) * part.norm).contiguous())
        runs = (view.order, view.run_first) if self.per_element else (None, None)
        result: Tensor = self.rows([t[part.tensor] for part in self.sources], matrices, *runs)
        return result

    def forward(self, weights: Weights, t: Tensors, view: BatchView) -> None:
        """Add the reduced tensor."""
        if view.row_maps:
            t[self.output] = self._by_rows(weights, t, view)
            return
        found = []
        for k in range(len(self.parts)):
            functions, matrices = self._functions(k, t, view), self._matrices(k, weights, view)
            flat, n_rows = functions.flatten(0, 1), functions.shape[1]
            sizes = [n * n_rows for n in view.counts]
            out = grouped_matmul(flat, matrices, sizes) if self.per_element else flat @ matrices[0]
            found.append(out.reshape(-1, n_rows, out.shape[1]))
        result = torch.cat(found, dim=1) if len(found) > 1 else found[0]
        if not self.in_order:
            result = result.index_select(1, self.placement)
        t[self.output] = result.index_select(0, view.rank) if self.per_element else result


class DensityNorm(Stage):
    """y_k = s_k x_k / sqrt(mean_k x_k^2 + 1e-10) over k >= first; the others are kept."""

    def __init__(self, output: str, source: str, key: str, first: int) -> None:
        super().__init__()
        self.output, self.source, self.key, self.first = output, source, key, first

    def forward(self, weights: Weights, t: Tensors, view: BatchView) -> None:
        """Add the normalised densities."""
        x = t[self.source]
        inner = x[..., self.first :]
        root = torch.sqrt((inner * inner).mean(dim=-1, keepdim=True) + NORM_REGULARISER)
        t[self.output] = torch.cat((x[..., : self.first], inner * weights[self.key] / root), dim=-1)


class Readout(Stage):
    """e = x_0 + network(x_1..x_n), x = sum of the inputs, each [n_atoms, 1, n + 1]."""

    def __init__(self, inputs: Sequence[str], norms: Sequence[float], activation: str) -> None:
        super().__init__()
        self.output, self.inputs, self.norms, self.activation = "e", list(inputs), list(norms), activation

    def forward(self, weights: Weights, t: Tensors, view: BatchView) -> None:
        """Add e [n_atoms], before output scale and shift."""
        x = t[self.inputs[0]][:, 0]
        for name in self.inputs[1:]:
            x = x + t[name][:, 0]
        matrices = [weights[f"energy_mlp_W{m}"] * norm for m, norm in enumerate(self.norms)]
        t[self.output] = x[:, 0] + network(x[:, 1:], matrices, self.activation)[:, 0]
