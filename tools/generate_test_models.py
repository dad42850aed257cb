#!/usr/bin/env python3
"""Write the kB-sized random models of tests/data/models (seeded; no physics): python tools/generate_test_models.py.

They have every feature of published weight files at the smallest useful size, in the layout of docs/ (weight files):

    tiny_1l.npz        one layer, one cutoff, one neighbour normaliser, no shifts, silu
    tiny_1l_pairs.npz  one layer, pair cutoffs, a normaliser per element, shifts, output scale, tanh
    tiny_1l_order2.npz one layer, products up to AA only
    tiny_2l.npz        two layers, pair cutoffs, a normaliser per element, shifts, output scale, tanh
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grace_md.couplings import Tensor, couple, harmonics, mix_table, reduce_table, tensor_of

Keep = Callable[[int, int], bool]  # (degree, parity) -> wanted
SCALARS: Keep = lambda degree, parity: degree == 0 and parity == 1  # noqa: E731


def natural(lmax: int) -> Keep:
    """Keep degrees up to `lmax` with the parity of harmonics."""
    return lambda degree, parity: degree <= lmax and parity == (-1) ** degree


def both_parities(lmax: int) -> Keep:
    """Keep degrees up to `lmax` with either parity, but no pseudoscalars."""
    return lambda degree, parity: degree <= lmax and (degree > 0 or parity == 1)


@dataclass
class Model:
    """Arrays of a weight file, and the tensors (groups, channels) made so far."""

    seed: int
    elements: list[str]
    cutoffs: NDArray[np.float64]  # [n_elements, n_elements] A
    embedding: int = 3
    n_basis: int = 4
    envelope: int = 5
    hidden: int = 6
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    tensors: dict[str, tuple[Tensor, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        has_pairs = bool(np.ptp(self.cutoffs) > 0)
        self.integers(n_elements=len(self.elements), embedding_size=self.embedding, nradbase=self.n_basis)
        self.integers(radial_basis_p=self.envelope, has_bond_specific_cutoff=has_pairs, nn_dtype=0)
        self.integers(chem_embedding_size=self.embedding)
        self.arrays["element_names"] = np.array([symbol.encode() for symbol in self.elements], dtype="S2")
        self.arrays["rcut"] = np.array([self.cutoffs.max()])
        if has_pairs:
            self.arrays["bond_cutoff_map"] = self.cutoffs
        self.random("chem_embedding", len(self.elements), self.embedding)

    def integers(self, **values: int) -> None:
        """Add scalars stored as int64 [1]."""
        self.arrays.update({key: np.array([value], dtype=np.int64) for key, value in values.items()})

    def random(self, key: str, *shape: int) -> None:
        """Add normally distributed weights of unit variance."""
        self.arrays[key] = self.rng.normal(size=shape)

    def network(self, prefix: str, widths: list[int]) -> None:
        """A perceptron without biases; weights of unit variance and a norm 1 / sqrt(n_in) per layer."""
        for i, (n_in, n_out) in enumerate(pairwise(widths)):
            self.random(f"{prefix}_W{i}", n_in, n_out)
            self.arrays[f"{prefix}_norm{i}"] = np.array([1 / math.sqrt(n_in)])
        self.integers(**{f"{prefix}_n_layers": len(widths) - 1})

    def radial(self, prefix: str, n_channels: int, lmax: int) -> None:
        """Add a radial network: output index n * (lmax + 1) + l."""
        self.network(prefix, [self.n_basis, self.hidden, self.hidden, n_channels * (lmax + 1)])
        self.integers(**{f"{prefix}_n_rad_max": n_channels, f"{prefix}_lmax": lmax})
        self.integers(**{f"{prefix}_{flag}": 0 for flag in ("has_chem_emb", "embed_i", "embed_j")})

    def normaliser(self, key: str, *, per_element: bool) -> None:
        """Add 1 / (average number of neighbours), a number or a column [n_elements, 1]."""
        column = 1 / self.rng.uniform(2, 4, size=(len(self.elements), 1))
        self.arrays[key] = column if per_element else np.array(column[0, 0])

    def basis(self, name: str, n_channels: int, lmax: int, *, per_element: bool) -> None:
        """Add a single-particle basis."""
        self.random(f"{name}_lin_transform_W", self.embedding, n_channels)
        self.arrays[f"{name}_lin_transform_norm"] = np.array([1 / math.sqrt(self.embedding)])
        self.integers(**{f"{name}_indicator_l_depend": 0, f"{name}_sum_neighbors": 1})
        self.normaliser(f"{name}_inv_avg_n_neigh", per_element=per_element)
        self.tensors[name] = harmonics(lmax), n_channels

    def mix(self, name: str, left: str, right: str, n_out: int) -> None:
        """Add a channel mix of the tensors `left` and `right`."""
        tables = mix_table(self.tensors[left][0], self.tensors[right][0])
        self.arrays.update({f"fc_{name}_{key}": table for key, table in tables.items()})
        for side, operand in (("left", left), ("right", right)):
            tensor, n_in = self.tensors[operand]
            self.random(f"fc_{name}_w_{side}", n_out, n_in, len(tensor.groups))
            self.arrays[f"fc_{name}_norm_{side}"] = np.array(1 / math.sqrt(n_in))
        self.integers(**{f"fc_{name}_n_out": n_out, f"fc_{name}_left_coefs": 1})
        self.tensors[name] = self.tensors[left][0], n_out

    def product(self, name: str, left: str, right: str, keep: Keep) -> None:
        """Add a coupling product."""
        (left_tensor, n_channels), (right_tensor, _) = self.tensors[left], self.tensors[right]
        table, tensor = couple(left_tensor, right_tensor, keep)
        columns = {"left_ind": table.left, "right_ind": table.right, "m_sum_ind": table.row}
        self.arrays.update({f"prod_{name}_{key}": column for key, column in columns.items()})
        self.arrays[f"prod_{name}_cg_coeff"] = table.coefficient
        self.integers(**{f"prod_{name}_n_output_funcs": tensor.n_rows, f"prod_{name}_n_cg_terms": len(table.row)})
        degree = tensor.groups[-1].degree  # the format stores the output degree twice
        self.integers(**{f"prod_{name}_Lmax": degree, f"prod_{name}_lmax": degree})
        self.tensors[name] = tensor, n_channels

    def message_basis(self, name: str, lmax: int, keep: Keep, *, per_element: bool) -> None:
        """Add the basis that couples harmonics of bonds with the message of the neighbours."""
        message, n_channels = self.tensors["I"]
        table, tensor = couple(harmonics(lmax), message, keep)
        self.arrays[f"{name}_lr_inds"] = np.stack([table.left, table.right], axis=1)
        self.arrays[f"{name}_m_sum_ind"], self.arrays[f"{name}_cg_coeff"] = table.row, table.coefficient
        self.integers(**{f"{name}_n_output_funcs": tensor.n_rows, f"{name}_n_cg_terms": len(table.row)})
        self.integers(**{f"{name}_n_rad_max": n_channels, f"{name}_Lmax": tensor.groups[-1].degree})
        self.normaliser(f"{name}_inv_avg_n_neigh", per_element=per_element)
        self.tensors[name] = tensor, n_channels

    def reduce(self, name: str, inputs: list[str], keep: Keep, n_out: int, *, per_element: bool) -> None:
        """Add a reduction of `inputs` to the kinds that pass `keep`."""
        kinds = {(g.degree, g.parity) for tensor in inputs for g in self.tensors[tensor][0].groups}
        target = tensor_of(kind for kind in kinds if keep(*kind))
        for key in inputs:
            tensor, n_in = self.tensors[key]
            source, tile, to = reduce_table(tensor, target)
            n_groups = int(tile.max()) + 1
            self.random(f"{name}_reduce_{key}_W", *([len(self.elements)] * per_element), n_out, n_in, n_groups)
            self.arrays[f"{name}_reduce_{key}_norm"] = np.array(1 / math.sqrt(n_in))
            self.arrays[f"{name}_collect_ind_{key}"], self.arrays[f"{name}_w_l_tile_{key}"] = source, tile
            self.arrays[f"{name}_total_sum_ind_{key}"] = to.reshape(-1, 1)
            self.integers(**{f"{name}_w_shape_{key}": n_groups, f"{name}_n_in_{key}": n_in})
        self.integers(**{f"{name}_n_out": n_out, f"{name}_is_central_atom_type_dependent": per_element})
        if per_element:
            self.integers(**{f"{name}_number_of_atom_types": len(self.elements)})
        self.arrays[f"{name}_instruction_names"] = np.array([key.encode() for key in inputs], dtype="S8")
        self.tensors[name] = target, n_out

    def readout(self, n_densities: int, *, tanh: bool) -> None:
        """Add the readout network over all densities but the first."""
        self.network("energy_mlp", [n_densities - 1, self.hidden, 1])
        self.integers(energy_mlp_activation=tanh)

    def output(self) -> None:
        """Add an output scale and shifts."""
        self.arrays["output_scale"] = np.array([1.7])
        self.arrays["shift_values"] = self.rng.normal(size=len(self.elements))


def one_layer(model: Model, n_rad: int, width: int, *, order: int = 4, full: bool = False) -> dict[str, NDArray[Any]]:
    """One-layer model; `full` adds a normaliser per element, tanh, shifts and an output scale."""
    lmax, n_densities = 2, 5
    model.integers(lmax=lmax, nradmax=n_rad)
    model.radial("mlp_rad", n_rad, lmax)
    model.basis("A", n_rad, lmax, per_element=full)
    model.mix("A1", "A", "A", width)
    model.product("AA", "A1", "A1", natural(lmax))
    if order > 2:
        model.mix("AA1", "AA", "A", width)
        model.product("AAA", "AA1", "A1", SCALARS)
        model.mix("AA2", "AA", "A", width)
        model.product("AAAA", "AA2", "AA2", SCALARS)
    model.reduce("rho", ["A", "AA", "AAA", "AAAA"][:order], SCALARS, n_densities, per_element=True)
    model.readout(n_densities, tanh=full)
    if full:
        model.output()
    return model.arrays


def two_layers(model: Model) -> dict[str, NDArray[Any]]:
    """Two-layer model with the wiring and the names of published files."""
    lmax, lmax1, message_lmax, n_rad, n_rad1, width1, n_densities = 2, 2, 1, 4, 2, 3, 4
    model.integers(lmax=lmax)
    model.radial("mlp_rad_R", n_rad, lmax)
    model.basis("A", n_rad, lmax, per_element=True)
    model.mix("A1", "A", "A", n_rad)
    model.product("AA", "A1", "A1", natural(lmax))
    model.mix("AA1", "AA", "A", n_rad)
    model.product("AAA", "AA1", "A", natural(message_lmax))
    model.mix("AA2", "AA", "A", n_rad)
    model.product("AAAA", "AA2", "AA2", natural(message_lmax))
    first = ["A", "AA", "AAA", "AAAA"]
    model.reduce("I1", first, natural(message_lmax), 3, per_element=True)
    model.reduce("I", ["I1"], natural(message_lmax), n_rad1, per_element=False)
    model.reduce("rho", first, SCALARS, n_densities, per_element=True)

    model.radial("mlp_rad_R1", n_rad1, lmax1)
    model.basis("B0", n_rad1, lmax1, per_element=True)
    model.message_basis("YI", lmax1, both_parities(lmax1), per_element=False)
    model.reduce("B", ["YI", "B0"], both_parities(lmax1), width1, per_element=False)
    model.mix("B1", "B", "B", width1)
    model.product("BB", "B1", "B1", natural(lmax1))
    model.mix("BB1", "BB", "B", width1)
    model.product("BBB", "BB1", "B", SCALARS)
    model.mix("BB2", "BB", "B", width1)
    model.product("BBBB", "BB2", "BB2", SCALARS)
    model.reduce("I2", ["B", "BB", "BBB", "BBBB"], SCALARS, n_densities, per_element=True)
    finish_two_layers(model, n_densities)
    return model.arrays


def finish_two_layers(model: Model, n_densities: int) -> None:
    """Add what every two-layer file has after its stages: norms, readout, lists of names and output."""
    for reduction in ("I1", "I", "rho", "B", "I2"):
        tensor = model.tensors[reduction][0]
        model.arrays[f"{reduction}_norm_map"] = np.array(1.0)
        model.integers(**{f"{reduction}_n_funcs": tensor.n_rows, f"{reduction}_only_invar": tensor.n_rows == 1})
    for name, kind in (("I_nl_LN", 1), ("I_0_LN", 0)):
        model.random(f"{name}_scale", n_densities - kind)
        model.integers(**{f"{name}_type": kind, f"{name}_n_out": n_densities})
    model.readout(n_densities, tanh=True)
    names = {
        "mlp_rad": ["R", "R1"],
        "spb": ["A", "B0"],
        "fc": ["A1", "AA1", "AA2", "B1", "BB1", "BB2"],
        "prod": ["AA", "AAA", "AAAA", "BB", "BBB", "BBBB"],
        "reduce": ["I1", "I", "rho", "B", "I2"],
        "rms": ["I_nl_LN", "I_0_LN"],
    }
    for index, values in names.items():
        model.arrays[f"{index}_names"] = np.array([value.encode() for value in values], dtype="S8")
    model.output()


def models() -> dict[str, dict[str, NDArray[Any]]]:
    """Return the arrays of every test model by file name."""
    lava = np.array([[4.0, 4.3, 4.6], [4.3, 4.5, 4.9], [4.6, 4.9, 5.2]])
    return {
        "tiny_1l.npz": one_layer(Model(1, ["Mo", "Nb"], np.full((2, 2), 5.0)), 4, 6),
        "tiny_1l_pairs.npz": one_layer(Model(2, ["O", "Si", "Fe"], lava), 4, 6, full=True),
        "tiny_1l_order2.npz": one_layer(Model(3, ["Al"], np.full((1, 1), 4.5)), 3, 3, order=2),
        "tiny_2l.npz": two_layers(Model(4, ["O", "Fe"], lava[::2, ::2])),
    }


def main() -> None:
    """Write all models into the folder of the command line."""
    folder = Path(__file__).resolve().parents[1] / "tests" / "data" / "models"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=folder)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, arrays in models().items():
        np.savez(folder / name, **arrays)  # type: ignore[arg-type]
        print(f"{folder / name}: {len(arrays)} arrays, {(folder / name).stat().st_size} bytes")


if __name__ == "__main__":
    main()
