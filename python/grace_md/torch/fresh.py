"""Arrays of a fresh weight file: keys, order, shapes and dtypes of published ones, random weights of unit variance."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grace_md.couplings import (
    CouplingTable,
    Tensor,
    couple,
    couple_published,
    harmonics,
    mix_table,
    reduce_table,
    tensor_of,
)

__all__ = ["Pair", "Sizes", "fresh_arrays"]

Pair = tuple[int, int]
Keep = Callable[[int, int], bool]  # (degree, parity) -> wanted
NAME_LENGTH = "S8"  # names of instructions are cut to 8 characters in published files


@dataclass(frozen=True)
class Sizes:
    """Sizes of a model; pairs are (layer 1, layer 2), whose second number is unused with one layer.

    Attributes
    ----------
    layers : 1 or 2
    n_rad : radial channels
    width : channels of the products
    lmax : largest degree: of the harmonics of both layers, of the products of layer 2
    n_basis : Chebyshev functions
    n_densities : inputs of the readout network; one more density enters the energy linearly
    message_lmax : largest degree of the message between the layers
    message_inner : channels of the reduction in front of the message
    max_order : factors of the longest product, 2 to 4
    embedding : length of the embedding of an element
    envelope : order p of the envelope
    hidden : widths of the hidden layers of the radial networks
    readout : width of the hidden layer of the readout
    """

    layers: int
    n_rad: Pair
    width: Pair
    n_basis: int
    n_densities: int
    lmax: Pair = (4, 3)
    message_lmax: int = 0
    message_inner: int = 12
    max_order: int = 4
    embedding: int = 128
    envelope: int = 16
    hidden: tuple[int, ...] = (64, 64)
    readout: int = 64

    def check(self) -> None:
        """Raise ValueError naming the first size that is impossible."""
        if self.layers not in (1, 2):
            raise ValueError(f"`layers` = {self.layers} is not supported; give 1 or 2.")
        if self.max_order not in (2, 3, 4):
            raise ValueError(f"`max_order` = {self.max_order} is not supported; give 2, 3 or 4.")
        positive: dict[str, tuple[int, ...]] = {
            "n_rad": tuple(self.n_rad[: self.layers]),
            "width": tuple(self.width[: self.layers]),
            "n_basis": (self.n_basis,),
            "n_densities": (self.n_densities,),
            "embedding": (self.embedding,),
            "hidden": self.hidden or (0,),
            "readout": (self.readout,),
            "message_inner": (self.message_inner,),
        }
        for name, values in positive.items():
            if min(values) < 1:
                raise ValueError(f"`{name}` = {values[0] if len(values) == 1 else list(values)} must be at least 1.")
        if min(self.lmax[: self.layers]) < 0 or self.message_lmax < 0:
            raise ValueError(
                f"`lmax` = {list(self.lmax[: self.layers])}, `message_lmax` = {self.message_lmax} must not be < 0."
            )
        if self.envelope < 2:
            raise ValueError(f"`envelope` = {self.envelope} must be at least 2.")
        if self.layers == 2 and self.width[0] != self.n_rad[0]:
            raise ValueError(
                f"`width` of layer 1 = {self.width[0]} must be its `n_rad` = {self.n_rad[0]} in two-layer models, "
                "whose AAA multiplies the bond basis itself."
            )
        if self.layers == 2 and self.message_lmax > self.lmax[0]:
            raise ValueError(f"`message_lmax` = {self.message_lmax} must not exceed `lmax` = {self.lmax[0]}.")


def scalars(degree: int, parity: int) -> bool:
    """Keep scalars."""
    return degree == 0 and parity == 1


def natural(lmax: int) -> Keep:
    """Keep degrees up to `lmax` with the parity of harmonics."""
    return lambda degree, parity: degree <= lmax and parity == (-1) ** degree


def both_parities(lmax: int) -> Keep:
    """Keep degrees up to `lmax` with either parity, but no pseudoscalars."""
    return lambda degree, parity: degree <= lmax and (degree > 0 or parity == 1)


def fresh_arrays(
    sizes: Sizes,
    elements: Sequence[str],
    cutoffs: NDArray[np.float64],
    *,
    rng: np.random.Generator,
    average_neighbors: float,
    output_scale: float,
    shifts: NDArray[np.float64],
) -> dict[str, NDArray[Any]]:
    """Return the arrays of a model; see `grace_md.torch.presets.preset_arrays`.

    Weights are normal with unit variance; the scales of the norms of two-layer models are zero, so that at first only
    the linear density of layer 1 counts.
    """
    sizes.check()
    writer = _Writer(sizes, elements, rng, 1.0 / average_neighbors)
    writer.header(cutoffs)
    (writer.one_layer if sizes.layers == 1 else writer.two_layers)()
    writer.arrays["shift_values"] = np.array(shifts, dtype=np.float64)
    writer.arrays["output_scale"] = np.array([output_scale])
    if sizes.layers == 2:
        writer.aliases()
    return writer.arrays


class _Writer:
    """Adds stages one by one, and remembers tensors and their channels."""

    def __init__(self, sizes: Sizes, elements: Sequence[str], rng: np.random.Generator, inverse: float) -> None:
        self.sizes, self.elements, self.rng, self.inverse = sizes, elements, rng, inverse
        self.arrays: dict[str, NDArray[Any]] = {}
        self.tensors: dict[str, tuple[Tensor, int]] = {}
        self.extended = sizes.layers == 2  # two-layer files have a few more keys of each stage

    def integers(self, **values: int) -> None:
        """Add scalars, int64 (1,)."""
        self.arrays.update({key: np.array([value], dtype=np.int64) for key, value in values.items()})

    def random(self, key: str, *shape: int) -> None:
        """Add weights."""
        self.arrays[key] = self.rng.normal(size=shape)

    def names(self, key: str, values: Sequence[str]) -> None:
        """Add names of instructions."""
        self.arrays[key] = np.array([value.encode() for value in values], dtype=NAME_LENGTH)

    def header(self, cutoffs: NDArray[np.float64]) -> None:
        """Add elements, embedding, basis and cutoffs."""
        sizes, has_pairs = self.sizes, bool(np.ptp(cutoffs) > 0.0)
        self.integers(n_elements=len(self.elements))
        self.arrays["element_names"] = np.array([name.encode() for name in self.elements], dtype="S2")
        self.integers(embedding_size=sizes.embedding, nradbase=sizes.n_basis)
        if has_pairs:
            self.integers(radial_basis_p=sizes.envelope)
            self.arrays["bond_cutoff_map"] = np.array(cutoffs)
        self.arrays["rcut"] = np.array([cutoffs.max()])
        self.integers(radial_basis_p=sizes.envelope)
        self.integers(has_bond_specific_cutoff=has_pairs, nn_dtype=0, lmax=sizes.lmax[0])
        if not self.extended:
            self.integers(nradmax=sizes.n_rad[0], mlp_rad_has_chem_emb=0)
        self.random("chem_embedding", len(self.elements), sizes.embedding)
        self.integers(chem_embedding_size=sizes.embedding)

    def network(self, prefix: str, widths: Sequence[int]) -> None:
        """Add a dense network."""
        for m, (n_in, n_out) in enumerate(pairwise(widths)):
            self.random(f"{prefix}_W{m}", n_in, n_out)
            self.arrays[f"{prefix}_norm{m}"] = np.array([1.0 / math.sqrt(n_in)])
        self.integers(**{f"{prefix}_n_layers": len(widths) - 1})

    def radial(self, prefix: str, n_rad: int) -> None:
        """Add a radial network: output index n (lmax + 1) + l."""
        lmax = self.sizes.lmax[0]
        self.network(prefix, [self.sizes.n_basis, *self.sizes.hidden, n_rad * (lmax + 1)])
        self.integers(**{f"{prefix}_n_rad_max": n_rad, f"{prefix}_lmax": lmax})
        self.integers(**{f"{prefix}_embed_j": 0, f"{prefix}_embed_i": 0})
        if self.extended:
            self.integers(**{f"{prefix}_has_chem_emb": 0})

    def basis(self, name: str, n_rad: int) -> None:
        """Add a single-particle basis."""
        self.arrays[f"{name}_inv_avg_n_neigh"] = np.array(self.inverse)
        self.random(f"{name}_lin_transform_W", self.sizes.embedding, n_rad)
        self.arrays[f"{name}_lin_transform_norm"] = np.array([1.0 / math.sqrt(self.sizes.embedding)])
        self.integers(**{f"{name}_indicator_l_depend": 0, f"{name}_sum_neighbors": 1})
        self.tensors[name] = harmonics(self.sizes.lmax[0]), n_rad

    def mix(self, name: str, left: str, right: str, n_out: int) -> None:
        """Add a channel mix, one matrix for each pair of groups."""
        (left_tensor, n_left), (right_tensor, n_right) = self.tensors[left], self.tensors[right]
        tables = mix_table(left_tensor, right_tensor, shared=False)
        n_pairs = int(tables["w_tile_right"].max()) + 1
        for side, n_in, n_groups in (("left", n_left, len(left_tensor.groups)), ("right", n_right, n_pairs)):
            self.random(f"fc_{name}_w_{side}", n_out, n_in, n_groups)
            self.arrays[f"fc_{name}_norm_{side}"] = np.array(1.0 / math.sqrt(n_in))
        self.arrays.update({f"fc_{name}_{key}": table for key, table in tables.items()})
        self.integers(**{f"fc_{name}_n_out": n_out, f"fc_{name}_left_coefs": 1})
        self.tensors[name] = left_tensor, n_out

    def product(self, name: str, left: str, right: str, keep: Keep, degree: int) -> None:
        """Add a coupling product; `degree`: the largest that `keep` keeps."""
        left_tensor, n_channels = self.tensors[left]
        table, tensor = couple_published(left_tensor, self.tensors[right][0], keep, same=left == right)
        self._couplings(f"prod_{name}", table, tensor, degree)
        self.integers(**{f"prod_{name}_lmax": degree, f"prod_{name}_Lmax": degree})
        self.tensors[name] = tensor, n_channels

    def _couplings(self, prefix: str, table: CouplingTable, tensor: Tensor, degree: int) -> None:
        if prefix == "YI":
            self.arrays["YI_lr_inds"] = np.stack([table.left, table.right], axis=1)
        else:
            self.arrays[f"{prefix}_left_ind"], self.arrays[f"{prefix}_right_ind"] = table.left, table.right
        self.arrays[f"{prefix}_m_sum_ind"], self.arrays[f"{prefix}_cg_coeff"] = table.row, table.coefficient
        self.integers(**{f"{prefix}_n_output_funcs": tensor.n_rows, f"{prefix}_n_cg_terms": len(table.row)})

    def products(self, name: str, n_out: int, second: tuple[Keep, int], higher: Sequence[tuple[Keep, int]]) -> None:
        """Add mixes and products on top of the basis `name`; what to keep of two factors, of three and four."""
        one, two, three, four = (name * k for k in range(1, 5))
        third = f"{one}1" if self.sizes.layers == 1 else one
        order = self.sizes.max_order
        self.mix(f"{one}1", one, one, n_out)
        self.product(two, f"{one}1", f"{one}1", *second)
        if order > 2:
            self.mix(f"{two}1", two, one, n_out)
            self.product(three, f"{two}1", third, *higher[0])
        if order > 3:
            self.mix(f"{two}2", two, one, n_out)
            self.product(four, f"{two}2", f"{two}2", *higher[1])

    def factors(self, name: str) -> list[str]:
        """Return the names of the basis and its products."""
        return [name * k for k in range(1, self.sizes.max_order + 1)]

    def reduce(self, name: str, inputs: Sequence[str], keep: Keep, n_out: int, *, per_element: bool) -> None:
        """Add a reduction of `inputs` to the kinds that pass `keep`."""
        kinds = {(g.degree, g.parity) for tensor in inputs for g in self.tensors[tensor][0].groups}
        target = tensor_of(kind for kind in kinds if keep(*kind))
        for key in inputs:
            tensor, n_in = self.tensors[key]
            source, tile, to = reduce_table(tensor, target)
            n_groups = int(tile.max()) + 1
            self.random(f"{name}_reduce_{key}_W", *([len(self.elements)] * per_element), n_out, n_in, n_groups)
            self.arrays[f"{name}_reduce_{key}_norm"] = np.array(1.0 / math.sqrt(n_in))
            self.arrays[f"{name}_collect_ind_{key}"], self.arrays[f"{name}_w_l_tile_{key}"] = source, tile
            self.arrays[f"{name}_total_sum_ind_{key}"] = to.reshape(-1, 1)
            self.integers(**{f"{name}_w_shape_{key}": n_groups, f"{name}_n_in_{key}": n_in})
        self.integers(**{f"{name}_n_out": n_out, f"{name}_is_central_atom_type_dependent": per_element})
        if per_element:
            self.integers(**{f"{name}_number_of_atom_types": len(self.elements)})
        if self.extended:
            self.arrays[f"{name}_norm_map"] = np.array(1.0)
            self.integers(**{f"{name}_n_funcs": target.n_rows, f"{name}_only_invar": target.n_rows == 1})
        self.names(f"{name}_instruction_names", inputs)
        self.tensors[name] = target, n_out

    def readout(self, *, tanh: bool) -> None:
        """Add the readout network."""
        self.network("energy_mlp", [self.sizes.n_densities, self.sizes.readout, 1])
        self.integers(energy_mlp_activation=tanh)

    def one_layer(self) -> None:
        """Add the stages of a one-layer model."""
        sizes = self.sizes
        self.radial("mlp_rad", sizes.n_rad[0])
        self.basis("A", sizes.n_rad[0])
        self.products("A", sizes.width[0], (natural(sizes.lmax[0]), sizes.lmax[0]), [(scalars, 0)] * 2)
        self.reduce("rho", self.factors("A"), scalars, sizes.n_densities + 1, per_element=True)
        self.readout(tanh=False)

    def norm(self, name: str, kind: int) -> None:
        """Add the norm of a set of densities: 0 of all, 1 of all but the first."""
        n_out = self.sizes.n_densities + 1
        self.arrays[f"{name}_scale"] = np.zeros(n_out - kind)
        self.integers(**{f"{name}_type": kind, f"{name}_n_out": n_out})

    def message_basis(self) -> None:
        """Add the basis that couples harmonics of bonds with the message of the neighbours."""
        message, n_channels = self.tensors["I"]
        table, tensor = couple(harmonics(self.sizes.lmax[0]), message, both_parities(self.sizes.lmax[1]))
        self._couplings("YI", table, tensor, self.sizes.lmax[1])
        self.integers(YI_n_rad_max=n_channels)
        self.arrays["YI_inv_avg_n_neigh"] = np.array(self.inverse)
        self.integers(YI_Lmax=self.sizes.lmax[1])
        self.tensors["YI"] = tensor, n_channels

    def two_layers(self) -> None:
        """Add the stages of a two-layer model, its readout reductions under the names of the model."""
        sizes, n_out = self.sizes, self.sizes.n_densities + 1
        (lmax, lmax2), message_lmax = sizes.lmax, sizes.message_lmax
        self.radial("mlp_rad_R", sizes.n_rad[0])
        self.basis("A", sizes.n_rad[0])
        higher = [(natural(degree), degree) for degree in (message_lmax, min(message_lmax, 1))]
        self.products("A", sizes.width[0], (natural(lmax), lmax), higher)
        self.reduce("I1", self.factors("A"), natural(message_lmax), sizes.message_inner, per_element=True)
        self.reduce("I", ["I1"], natural(message_lmax), sizes.n_rad[1], per_element=False)
        self.reduce("I_out_0", self.factors("A"), scalars, n_out, per_element=True)
        self.norm("I_out_0_LN", 1)
        self.radial("mlp_rad_R1", sizes.n_rad[1])
        self.basis("B0", sizes.n_rad[1])
        self.message_basis()
        self.reduce("B", ["YI", "B0"], both_parities(lmax2), sizes.width[1], per_element=False)
        every: Keep = lambda degree, parity: degree <= lmax2  # noqa: E731
        self.products("B", sizes.width[1], (every, lmax2), [(scalars, 0)] * 2)
        self.reduce("I_out_1", self.factors("B"), scalars, n_out, per_element=True)
        self.norm("I_1_LN", 0)
        self.readout(tanh=True)
        mixes = [[f"{x}1", f"{x * 2}1", f"{x * 2}2"][: sizes.max_order - 1] for x in "AB"]
        self.names("mlp_rad_names", ["R", "R1"])
        self.names("spb_names", ["A", "B0"])
        self.names("fc_names", [*mixes[0], *mixes[1]])
        self.names("prod_names", [*self.factors("A")[1:], *self.factors("B")[1:]])
        self.names("reduce_names", ["I1", "I", "I_out_0", "B", "I_out_1"])
        self.names("rms_names", ["I_out_0_", "I_1_LN"])

    def aliases(self) -> None:
        """Repeat the readout reductions and norms of a two-layer model under the fixed names that consumers read."""
        for alias, name in (("I_nl_LN", "I_out_0_LN"), ("rho", "I_out_0"), ("I_0_LN", "I_1_LN"), ("I2", "I_out_1")):
            copies = {key: self.arrays[key] for key in self.arrays if key.startswith(f"{name}_")}
            self.arrays.update({alias + key.removeprefix(name): values for key, values in copies.items()})
