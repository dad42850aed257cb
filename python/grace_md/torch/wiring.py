"""From the arrays of a weight file to the stages of a model: one reader for one and two layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from grace_md.torch.coupling_terms import CouplingTerms
from grace_md.torch.stages import (
    ChannelMix,
    CouplingProduct,
    DensityNorm,
    FunctionReduce,
    MessageBasis,
    RadialNetwork,
    Readout,
    ReducePart,
    SingleParticleBasis,
    Stage,
)

__all__ = ["Network", "build_network", "number", "pair_cutoffs", "text"]

Arrays = Mapping[str, NDArray[Any]]
ACTIVATION_CODES = ("silu", "tanh")


@dataclass(frozen=True)
class Network:
    """The stages of a model in the order of evaluation, and what lies in front of them.

    Attributes
    ----------
    radials : radial networks, all of the same basis
    stages : from the bond basis to e
    n_basis, order : Chebyshev functions and order of their envelope
    lmax : largest degree of the harmonics
    """

    radials: list[RadialNetwork]
    stages: nn.ModuleList
    n_basis: int
    order: int
    lmax: int


def number(arrays: Arrays, key: str) -> float:
    """Return a scalar, stored as () or (1,); ValueError where it is missing."""
    if key not in arrays:
        raise ValueError(f"array `{key}` is missing: the weight file is not complete.")
    return float(arrays[key].reshape(-1)[0])


def text(values: NDArray[Any]) -> list[str]:
    """Return names stored as bytes."""
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values.reshape(-1)]


def pair_cutoffs(arrays: Arrays) -> NDArray[np.float64]:
    """Return the cutoffs [n_elements, n_elements] in A, row = centre."""
    n = int(number(arrays, "n_elements"))
    if number(arrays, "has_bond_specific_cutoff"):
        return np.array(arrays["bond_cutoff_map"], dtype=np.float64).reshape(n, n)
    return np.full((n, n), number(arrays, "rcut"))


def build_network(arrays: Arrays, dtype: torch.dtype) -> Network:
    """Return the stages of a one- or two-layer model.

    Raises
    ------
    ValueError
        Naming what is missing or not supported: three layers, radial networks that see the elements, gated norms.
    """
    if "spbf_names" in arrays:
        raise ValueError("`spbf_names` is present: three-layer models are not supported; give one or two layers.")
    read = _Reader(arrays, dtype)
    stages: list[Stage]
    if "YI_lr_inds" not in arrays:
        radials = [read.radial("R", "mlp_rad")]
        stages = [read.basis("A", radials[0]), *read.products("A", "A1"), read.reduce("rho")]
        stages += [read.readout(["rho"])]
    else:
        radials = [read.radial("R", "mlp_rad_R"), read.radial("R1", "mlp_rad_R1")]
        stages = [read.basis("A", radials[0]), *read.products("A", "A"), read.reduce("I1"), read.reduce("I")]
        stages += [read.basis("B0", radials[1]), read.message_basis(radials[1]), read.reduce("B")]
        stages += [*read.products("B", "B"), read.reduce("rho"), read.reduce("I2")]
        stages += [read.norm("I_nl_LN", "rho"), read.norm("I_0_LN", "I2"), read.readout(["rho_norm", "I2_norm"])]
    return Network(
        radials=radials,
        stages=nn.ModuleList(stages),
        n_basis=arrays[f"{radials[0].prefix}_W0"].shape[0],
        order=int(number(arrays, "radial_basis_p")),
        lmax=max(radial.lmax for radial in radials),
    )


class _Reader:
    """Makes single stages; remembers the number of rows of every tensor."""

    def __init__(self, arrays: Arrays, dtype: torch.dtype) -> None:
        self.arrays, self.dtype = arrays, dtype
        self.n_rows: dict[str, int] = {}

    def __getitem__(self, key: str) -> NDArray[Any]:
        if key not in self.arrays:
            raise ValueError(f"array `{key}` is missing: the weight file is not complete.")
        return self.arrays[key]

    def norms(self, prefix: str) -> tuple[float, ...]:
        """Return the factors of the layers of a dense network."""
        return tuple(
            number(self.arrays, f"{prefix}_norm{m}") for m in range(int(number(self.arrays, f"{prefix}_n_layers")))
        )

    def radial(self, output: str, prefix: str) -> RadialNetwork:
        """Return a radial network."""
        for flag in ("has_chem_emb", "embed_i", "embed_j"):
            if f"{prefix}_{flag}" in self.arrays and number(self.arrays, f"{prefix}_{flag}") != 0:
                raise ValueError(f"`{prefix}_{flag}` is set: radial networks that see the elements are not supported.")
        n_channels, lmax = (int(number(self.arrays, f"{prefix}_{size}")) for size in ("n_rad_max", "lmax"))
        return RadialNetwork(output, prefix, self.norms(prefix), n_channels, lmax)

    def inverse_neighbors(self, name: str) -> NDArray[np.float64]:
        """Return 1 / (average number of neighbours), [n_elements]."""
        values = self[f"{name}_inv_avg_n_neigh"].astype(np.float64).reshape(-1)
        return np.broadcast_to(values, (int(number(self.arrays, "n_elements")),))

    def basis(self, name: str, radial: RadialNetwork) -> Stage:
        """Return a single-particle basis."""
        self.n_rows[name] = (radial.lmax + 1) ** 2
        norm = number(self.arrays, f"{name}_lin_transform_norm")
        return SingleParticleBasis(name, radial.output, radial.lmax, norm, self.inverse_neighbors(name), self.dtype)

    def message_basis(self, radial: RadialNetwork) -> Stage:
        """Return the basis that couples harmonics of bonds with the message of the neighbours."""
        left, right = self["YI_lr_inds"].reshape(-1, 2).T
        sizes = int(number(self.arrays, "YI_n_output_funcs")), (radial.lmax + 1) ** 2, self.n_rows["I"]
        terms = CouplingTerms(self["YI_m_sum_ind"].reshape(-1), left, right, self["YI_cg_coeff"].reshape(-1), *sizes)
        self.n_rows["YI"] = sizes[0]
        return MessageBasis("YI", radial.output, "I", radial.lmax, terms, self.inverse_neighbors("YI"), self.dtype)

    def products(self, name: str, third: str) -> list[Stage]:
        """Return mixes and products on top of the basis `name`; `third` is the right operand of AAA (BBB)."""
        one, two, three, four = (name * k for k in range(1, 5))
        out: list[Stage] = []
        for product, mixed, left, right in (
            (two, f"{one}1", one, f"{one}1"),
            (three, f"{two}1", two, third),
            (four, f"{two}2", two, f"{two}2"),
        ):
            if f"prod_{product}_cg_coeff" in self.arrays:
                out += [self.mix(mixed, left, one), self.product(product, mixed, right)]
        return out

    def mix(self, output: str, left: str, right: str) -> Stage:
        """Return a channel mix."""
        names = ("w_tile_left", "w_tile_right", "collect_to", "collect_from", "norm_out_factor")
        tables = {name: self[f"fc_{output}_{name}"] for name in names}
        norms = (number(self.arrays, f"fc_{output}_norm_left"), number(self.arrays, f"fc_{output}_norm_right"))
        self.n_rows[output] = tables["w_tile_left"].size
        return ChannelMix(output, left, right, tables, norms, self[f"fc_{output}_w_right"].shape[2], self.dtype)

    def product(self, output: str, left: str, right: str) -> Stage:
        """Return a coupling product."""
        names = ("m_sum_ind", "left_ind", "right_ind", "cg_coeff")
        columns = [self[f"prod_{output}_{name}"].reshape(-1) for name in names]
        self.n_rows[output] = int(number(self.arrays, f"prod_{output}_n_output_funcs"))
        row, first, second, coefficient = columns
        sizes = (self.n_rows[name] for name in (output, left, right))
        terms = CouplingTerms(row, first, second, coefficient, *sizes)
        return CouplingProduct(output, left, right, terms)

    def reduce(self, output: str) -> Stage:
        """Return a reduction: rows of the same weight group whose targets are the same rows belong together."""
        norm_map = self.arrays.get(f"{output}_norm_map")
        if norm_map is not None and not np.all(norm_map == 1.0):
            raise ValueError(f"`{output}_norm_map` is not 1: normalised reductions are not supported.")
        found: dict[tuple[int, ...], list[ReducePart]] = {}
        for tensor in text(self[f"{output}_instruction_names"]):
            for target, part in self._reduce_parts(output, tensor).items():
                found.setdefault(target, []).append(part)
        targets = sorted(found.items())
        rows = [row for target, _ in targets for row in target]
        if len(set(rows)) != len(rows):
            raise ValueError(f"`{output}_total_sum_ind_*` mixes rows of different degrees; the file is damaged.")
        self.n_rows[output] = len(rows)
        per_element = number(self.arrays, f"{output}_is_central_atom_type_dependent") != 0
        return FunctionReduce(output, targets, per_element=per_element)

    def _reduce_parts(self, output: str, tensor: str) -> dict[tuple[int, ...], ReducePart]:
        """Return what one input adds to each target (its rows in the result)."""
        source, group, target = (
            self[f"{output}_{table}_{tensor}"].reshape(-1) for table in ("collect_ind", "w_l_tile", "total_sum_ind")
        )
        by_group: dict[int, list[tuple[int, int]]] = {}
        for g, row, s in zip(group.tolist(), target.tolist(), source.tolist(), strict=True):
            by_group.setdefault(g, []).append((row, s))
        members: dict[tuple[int, ...], list[tuple[int, list[int]]]] = {}
        for g, pairs in by_group.items():
            members.setdefault(tuple(row for row, _ in pairs), []).append((g, [s for _, s in pairs]))
        key = f"{output}_reduce_{tensor}_W"
        norm = number(self.arrays, f"{output}_reduce_{tensor}_norm")
        return {
            rows: ReducePart(
                tensor,
                key,
                norm,
                rows=np.array([sources for _, sources in chosen], dtype=np.int64),
                groups=np.array([g for g, _ in chosen], dtype=np.int64),
                n_groups=self[key].shape[-1],
            )
            for rows, chosen in members.items()
        }

    def norm(self, prefix: str, source: str) -> Stage:
        """Return a norm of densities."""
        kind = int(number(self.arrays, f"{prefix}_type"))
        if kind not in (0, 1):
            raise ValueError(f"`{prefix}_type` = {kind} is not supported; 0 (all) and 1 (all but the first) are.")
        return DensityNorm(f"{source}_norm", source, f"{prefix}_scale", first=kind)

    def readout(self, inputs: list[str]) -> Stage:
        """Return the readout network."""
        code = int(number(self.arrays, "energy_mlp_activation"))
        if code not in range(len(ACTIVATION_CODES)):
            raise ValueError(f"`energy_mlp_activation` = {code} is unknown; 0 is silu and 1 is tanh.")
        return Readout(inputs, self.norms("energy_mlp"), ACTIVATION_CODES[code])
