"""Stages of the NumPy oracle (see `grace_md.reference`): every one has `forward` and a hand-written `adjoint`.

Tensors per atom are [n_atoms, n_rows, n_channels]; tensors per bond start with [n_bonds].
"""

# ruff: noqa: D102  (forward and adjoint are described once, by Stage)

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from grace_md.reference_formulas import (
    Array,
    Index,
    Network,
    chebyshev_basis,
    degree_of_slot,
    real_spherical_harmonics,
    sum_over,
)

Tensors = dict[str, Array]

BOND_REGULARISER = 1e-10  # A^2, added under the root of the bond length (theory: Bonds)
NORM_REGULARISER = 1e-10  # added to the mean square in the norms of the densities (theory: Two layers)


@dataclass
class System:
    """What the stages see of a structure. Bond b points from atom i[b] to atom j[b]."""

    species: Index  # [n_atoms], index of the element in the file
    i: Index  # [n_bonds]
    j: Index  # [n_bonds]
    cutoff: Array  # [n_bonds], A


class Stage(Protocol):
    """One step of a model: reads tensors by name, adds its own; the adjoint adds to the gradients of what was read."""

    def forward(self, t: Tensors, system: System) -> None:
        """Compute the outputs."""

    def adjoint(self, t: Tensors, g: Tensors, system: System) -> None:
        """Add to the gradients of the inputs, given those of the outputs."""


def _add(g: Tensors, name: str, value: Array) -> None:
    g[name] = g[name] + value if name in g else value


@dataclass
class Geometry:
    """d = sqrt(|r|^2 + 1e-10), u = r/d (theory: Bonds), and the harmonics Y of u."""

    lmax: int

    def forward(self, t: Tensors, system: System) -> None:
        t["d"] = np.sqrt(np.sum(t["r"] ** 2, axis=1) + BOND_REGULARISER)
        t["u"] = t["r"] / t["d"][:, None]
        t["Y"], self._slope = real_spherical_harmonics(t["u"], self.lmax)

    def adjoint(self, t: Tensors, g: Tensors, system: System) -> None:
        _add(g, "u", np.einsum("bw,bwx->bx", g["Y"], self._slope))
        along = np.sum(g["u"] * t["u"], axis=1)  # du_x/dr_y = (delta_xy - u_x u_y)/d, dd/dr = u
        _add(g, "r", g["u"] / t["d"][:, None] + (g["d"] - along / t["d"])[:, None] * t["u"])


@dataclass
class Radial:
    """R_nl(d) = network(g_1..g_K), stored as [n_bonds, l, n] (theory: Radial functions)."""

    output: str
    network: Network
    order: int  # of the envelope
    n_channels: int
    lmax: int
    keep_at_cutoff: bool  # a global cutoff keeps d == rc, a table of pair cutoffs does not (theory: Bonds)

    def forward(self, t: Tensors, system: System) -> None:
        d, rc = t["d"], system.cutoff
        keep = d <= rc if self.keep_at_cutoff else d < rc
        basis, self._slope = chebyshev_basis(d, rc, self.network.weights[0].shape[0], self.order, keep)
        flat, self._slopes = self.network.forward(basis)  # output index n (lmax+1) + l
        t[self.output] = flat.reshape(len(d), self.n_channels, self.lmax + 1).swapaxes(1, 2)

    def adjoint(self, t: Tensors, g: Tensors, system: System) -> None:
        flat = g[self.output].swapaxes(1, 2).reshape(len(t["d"]), self.n_channels * (self.lmax + 1))
        _add(g, "d", np.sum(self.network.adjoint(flat, self._slopes) * self._slope, axis=1))


@dataclass
class SingleParticleBasis:
    """A[i,lm,n] = inverse_neighbors[mu_i] sum_j R_nl(d_ij) Y_lm(u_ij) z[mu_j,n] (theory: Single-particle basis)."""

    output: str
    radial: str
    lmax: int
    chemical: Array  # z [n_elements, n_channels]
    inverse_neighbors: Array  # [n_elements]

    def _factors(self, t: Tensors, system: System) -> tuple[Array, Array, Array]:
        radial = t[self.radial][:, degree_of_slot(self.lmax)]
        scale = self.chemical[system.species[system.j]] * self.inverse_neighbors[system.species[system.i]][:, None]
        return radial, t["Y"][:, : (self.lmax + 1) ** 2, None], scale[:, None, :]

    def forward(self, t: Tensors, system: System) -> None:
        radial, harmonics, scale = self._factors(t, system)
        t[self.output] = sum_over(radial * harmonics * scale, system.i, len(system.species))

    def adjoint(self, t: Tensors, g: Tensors, system: System) -> None:
        radial, harmonics, scale = self._factors(t, system)
        edge = g[self.output][system.i] * scale
        _add_bond_gradients(g, t, self.radial, edge * harmonics, np.sum(edge * radial, axis=2))


def _add_bond_gradients(g: Tensors, t: Tensors, radial: str, radial_by_slot: Array, harmonics: Array) -> None:
    """Add gradients given per slot lm: R collects the slots of one degree; Y may have more slots than used."""
    degrees = degree_of_slot(int(np.sqrt(radial_by_slot.shape[1])) - 1)
    by_degree = np.zeros_like(t[radial])
    for slot, degree in enumerate(degrees):
        by_degree[:, degree] += radial_by_slot[:, slot]
    _add(g, radial, by_degree)
    padding = t["Y"].shape[1] - harmonics.shape[1]
    _add(g, "Y", np.pad(harmonics, ((0, 0), (0, padding))))


@dataclass
class MessageBasis:
    """YI[i,f,n] = inverse_neighbors[mu_i] sum_c cg sum_j R_nl(d_ij) Y_left(u_ij) I[j,right,n] (theory: Two layers)."""

    output: str
    radial: str
    message: str
    lmax: int
    coupling: Array  # [n_harmonics, n_message_rows, n_rows], the Clebsch-Gordan terms as a dense tensor
    inverse_neighbors: Array  # [n_elements]

    def _factors(self, t: Tensors, bonds: NDArray[np.bool_], system: System) -> tuple[Array, Array, Array]:
        radial = t[self.radial][bonds][:, degree_of_slot(self.lmax)]
        return radial, t["Y"][bonds][:, : (self.lmax + 1) ** 2, None], t[self.message][system.j[bonds]]

    def forward(self, t: Tensors, system: System) -> None:
        n_channels = t[self.message].shape[2]
        out = np.zeros((len(system.species), self.coupling.shape[2], n_channels))
        for i, mu in enumerate(system.species):
            radial, harmonics, message = self._factors(t, system.i == i, system)
            product = np.einsum("byn,bmn->ymn", radial * harmonics, message)
            out[i] = self.inverse_neighbors[mu] * np.tensordot(self.coupling, product, axes=((0, 1), (0, 1)))
        t[self.output] = out

    def adjoint(self, t: Tensors, g: Tensors, system: System) -> None:
        n_bonds, n_slots, n_channels = len(system.i), (self.lmax + 1) ** 2, t[self.message].shape[2]
        edge, message_gradient = np.zeros((n_bonds, n_slots, n_channels)), np.zeros_like(t[self.message])
        for i, mu in enumerate(system.species):
            bonds = system.i == i
            radial, harmonics, message = self._factors(t, bonds, system)
            product = self.inverse_neighbors[mu] * np.tensordot(self.coupling, g[self.output][i], axes=(2, 0))
            edge[bonds] = np.einsum("ymn,bmn->byn", product, message)
            np.add.at(message_gradient, system.j[bonds], np.einsum("ymn,byn->bmn", product, radial * harmonics))
        _add(g, self.message, message_gradient)
        radial, harmonics, _ = self._factors(t, np.ones(n_bonds, dtype=bool), system)
        _add_bond_gradients(g, t, self.radial, edge * harmonics, np.sum(edge * radial, axis=2))


@dataclass
class ChannelMix:
    """out[w,k] = WL[gL(w)] L[w] + sum over pairs (w' -> w) of WR[gR] S[w'], norms included (theory: Channel mixing)."""

    output: str
    left: str
    right: str
    left_weights: Array  # [n_rows, n_left, n_out], one matrix per row
    right_weights: Array  # [n_pairs, n_right, n_out], one matrix per pair
    to: Index  # [n_pairs]
    source: Index  # [n_pairs]

    def forward(self, t: Tensors, system: System) -> None:
        out = np.matmul(t[self.left].swapaxes(0, 1), self.left_weights).swapaxes(0, 1)
        for to, source, weight in zip(self.to, self.source, self.right_weights, strict=True):
            out[:, to] += t[self.right][:, source] @ weight
        t[self.output] = out

    def adjoint(self, t: Tensors, g: Tensors, system: System) -> None:
        out = g[self.output]
        _add(g, self.left, np.matmul(out.swapaxes(0, 1), self.left_weights.swapaxes(1, 2)).swapaxes(0, 1))
        right = np.zeros_like(t[self.right])
        for to, source, weight in zip(self.to, self.source, self.right_weights, strict=True):
            right[:, source] += out[:, to] @ weight.T
        _add(g, self.right, right)


@dataclass
class CouplingProduct:
    """P[f] = sum over terms of cg L[left] S[right], channel by channel (theory: Products)."""

    output: str
    left: str
    right: str
    n_rows: int
    terms: list[tuple[int, int, int, float]]  # (row, left, right, coefficient)

    def forward(self, t: Tensors, system: System) -> None:
        left, right = t[self.left], t[self.right]
        out = np.zeros((left.shape[0], self.n_rows, left.shape[2]))
        for row, p, q, coefficient in self.terms:
            out[:, row] += coefficient * left[:, p] * right[:, q]
        t[self.output] = out

    def adjoint(self, t: Tensors, g: Tensors, system: System) -> None:
        left, right, out = t[self.left], t[self.right], g[self.output]
        dleft, dright = np.zeros_like(left), np.zeros_like(right)
        for row, p, q, coefficient in self.terms:
            scaled = coefficient * out[:, row]
            dleft[:, p] += scaled * right[:, q]
            dright[:, q] += scaled * left[:, p]
        _add(g, self.left, dleft)
        _add(g, self.right, dright)


@dataclass
class ReduceInput:
    """One input of a reduction: row `source[c]` goes to row `target[c]` through matrix `group[c]`."""

    tensor: str
    weights: Array  # [n_elements or 1, n_groups, n_in, n_out], norm folded in
    source: Index
    group: Index
    target: Index


@dataclass
class FunctionReduce:
    """out[target,k] = sum over inputs T and their rows of W_T[mu_i,group] T[source] (theory: Reduction)."""

    output: str
    n_rows: int
    inputs: list[ReduceInput]

    def _blocks(self, system: System) -> list[tuple[ReduceInput, NDArray[np.bool_], int]]:
        """Return (input, atoms, element) such that every atom meets every input once, with its element's weights."""
        blocks = []
        for item in self.inputs:
            per_element = len(item.weights) > 1
            everyone = np.ones(len(system.species), dtype=bool)
            elements = np.unique(system.species) if per_element else [0]
            blocks += [(item, system.species == mu if per_element else everyone, int(mu)) for mu in elements]
        return blocks

    def forward(self, t: Tensors, system: System) -> None:
        out = np.zeros((len(system.species), self.n_rows, self.inputs[0].weights.shape[3]))
        for item, atoms, mu in self._blocks(system):
            for source, group, target in zip(item.source, item.group, item.target, strict=True):
                out[atoms, target] += t[item.tensor][atoms, source] @ item.weights[mu, group]
        t[self.output] = out

    def adjoint(self, t: Tensors, g: Tensors, system: System) -> None:
        for item in self.inputs:
            _add(g, item.tensor, np.zeros_like(t[item.tensor]))
        for item, atoms, mu in self._blocks(system):
            for source, group, target in zip(item.source, item.group, item.target, strict=True):
                g[item.tensor][atoms, source] += g[self.output][atoms, target] @ item.weights[mu, group].T


@dataclass
class DensityNorm:
    """y_k = s_k x_k / sqrt(mean_k x_k^2 + 1e-10) over k >= first; the others are kept (theory: Two layers)."""

    output: str
    input: str
    scale: Array
    first: int  # 0: "full", 1: "only_nonlin"

    def forward(self, t: Tensors, system: System) -> None:
        x = t[self.input]
        inner = x[..., self.first :]
        root = np.sqrt(np.mean(inner**2, axis=-1, keepdims=True) + NORM_REGULARISER)
        t[self.output] = np.concatenate([x[..., : self.first], inner * self.scale / root], axis=-1)

    def adjoint(self, t: Tensors, g: Tensors, system: System) -> None:
        inner = t[self.input][..., self.first :]
        root = np.sqrt(np.mean(inner**2, axis=-1, keepdims=True) + NORM_REGULARISER)
        scaled = g[self.output][..., self.first :] * self.scale
        through_root = inner * np.mean(scaled * inner, axis=-1, keepdims=True) / root**3
        dinner = scaled / root - through_root
        _add(g, self.input, np.concatenate([g[self.output][..., : self.first], dinner], axis=-1))


@dataclass
class Readout:
    """e = x_0 + network(x_1..x_n), x = sum of the inputs, each [n_atoms, 1, n+1] (theory: One layer, Two layers)."""

    inputs: list[str]
    network: Network

    def forward(self, t: Tensors, system: System) -> None:
        x = sum((t[name][:, 0] for name in self.inputs[1:]), start=t[self.inputs[0]][:, 0])
        nonlinear, self._slopes = self.network.forward(x[:, 1:])
        t["e"] = x[:, 0] + nonlinear[:, 0]

    def adjoint(self, t: Tensors, g: Tensors, system: System) -> None:
        inner = self.network.adjoint(g["e"][:, None], self._slopes)
        gradient = np.concatenate([g["e"][:, None], inner], axis=1)[:, None, :]
        for name in self.inputs:
            _add(g, name, gradient)
