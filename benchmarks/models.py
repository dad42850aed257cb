#!/usr/bin/env python3
"""Random-weight models with the exact sizes of the published presets: python benchmarks/models.py FOLDER.

    1L-small 1L-medium 1L-large 2L-small 2L-medium 2L-large    nine elements of the lava, one cutoff of 6 A

Time depends on sizes and coupling tables, never on the values of weights, so random weights are as good as published
ones and nothing has to be downloaded. The tables come from the generator of the test models (tools/), after which
duplicate couplings are removed as in the published presets; `SIZES` has the counts that must come out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

from generate_test_models import SCALARS, Keep, Model, both_parities, finish_two_layers, natural

from grace_md import GraceModel
from grace_md.couplings import CouplingTable, Tensor, couple

ELEMENTS = ["O", "Si", "Al", "Fe", "Ca", "Na", "Mg", "K", "Ti"]
CUTOFF = 6.0  # A
N_SAMPLES = 40  # random vectors on which couplings are compared
PROPORTIONAL = 1e-9  # 1 - |cosine| of two couplings that are the same function

# Rows and terms of each coupling: product of the paper's presets, all with lmax 4.
_ONE_LAYER = {"AA": (141, 623), "AAA": (14, 50), "AAAA": (69, 335)}
_SECOND = {"BB": (76, 264), "BBB": (11, 37), "BBBB": (38, 156)}
_TWO_LAYERS = {"AA": (141, 623), "AAA": (107, 547), "AAAA": (378, 2138), "YI": (62, 165), **_SECOND}
_TWO_LAYERS_LARGE = {"AA": (141, 623), "AAA": (637, 3161), "AAAA": (378, 2138), "YI": (190, 877), **_SECOND}
SIZES = {
    "1L-small": _ONE_LAYER,
    "1L-medium": _ONE_LAYER,
    "1L-large": _ONE_LAYER,
    "2L-small": _TWO_LAYERS,
    "2L-medium": _TWO_LAYERS,
    "2L-large": _TWO_LAYERS_LARGE,
}


@dataclass(frozen=True)
class Preset:
    """Sizes of one preset; names as in the model files of the reference implementation."""

    n_rad: int  # radial channels of layer 1
    width: int  # channels of the products of layer 1
    n_basis: int  # Chebyshev functions
    n_densities: int  # inputs of the readout network; one more enters linearly
    n_rad2: int = 0  # radial and message channels of layer 2; 0: one layer
    width2: int = 0
    message_lmax: int = 0


PRESETS = {
    "1L-small": Preset(32, 32, 8, 10),
    "1L-medium": Preset(32, 64, 8, 12),
    "1L-large": Preset(42, 64, 10, 16),
    "2L-small": Preset(32, 32, 8, 12, 32, 32, 1),
    "2L-medium": Preset(42, 42, 10, 16, 32, 64, 1),
    "2L-large": Preset(42, 42, 10, 16, 32, 64, 3),
}
LMAX, LMAX2 = 4, 3  # of the bonds; of the second layer's products
MESSAGE_INNER = 12  # channels of the reduction in front of the message
INVERSE_NEIGHBORS = 0.02


class PresetModel(Model):
    """The generator of test models at full size, without the couplings that repeat another one.

    Published tables were made for products of one tensor with itself. There, for example, (A_l A_l)_0 A_1 and
    (A_l A_1)_l A_l are one function, and only the one with the fewest terms is kept. The rule: give tensors of one
    degree, whatever their parity, the same random values, evaluate all couplings, and drop those proportional to a
    shorter one. Couplings with an odd sum of degrees vanish for vectors of one direction and are always kept.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.values: dict[str, NDArray[np.float64]] = {}  # tensor -> [N_SAMPLES, n_rows]

    def sample(self, name: str) -> None:
        """Give a tensor random values, equal for groups of equal degree."""
        random = np.random.default_rng(7)
        by_degree = [random.normal(size=(N_SAMPLES, 2 * degree + 1)) for degree in range(LMAX + 1)]
        self.values[name] = np.concatenate([by_degree[g.degree] for g in self.tensors[name][0].groups], axis=1)

    def mix(self, name: str, left: str, right: str, n_out: int) -> None:
        """Add a channel mix with a matrix of its own for each group, on both sides, as in the presets."""
        super().mix(name, left, right, n_out)
        groups, n_in = self.tensors[left][0], self.tensors[right][1]
        self.arrays[f"fc_{name}_w_tile_right"] = groups.tile()[self.arrays[f"fc_{name}_collect_to"]]
        self.random(f"fc_{name}_w_right", n_out, n_in, len(groups.groups))
        self.values[name] = self.values[left]

    def normaliser(self, key: str, *, per_element: bool) -> None:
        """Add 1 / (average number of neighbours)."""
        del per_element
        self.arrays[key] = np.array(INVERSE_NEIGHBORS)

    def product(self, name: str, left: str, right: str, keep: Keep, *, first_copies: bool = False) -> None:
        """Add a product without duplicates; `first_copies` reads only the first group of each degree.

        BB of the second layer does so: its tables tell groups by degree and history, not by parity.
        """
        left_tensor, n_channels = self.tensors[left]
        right_tensor = self.tensors[right][0]
        if first_copies:
            groups = {group.degree: group for group in reversed(left_tensor.groups)}
            left_tensor = right_tensor = Tensor(tuple(groups[degree] for degree in sorted(groups)))
        elif left_tensor == right_tensor:
            right_tensor = left_tensor  # one object: couple() then takes each pair once
        table, tensor = couple(left_tensor, right_tensor, keep)
        values = coupled(table, tensor, left_tensor, right_tensor, self.values[left], self.values[right])
        if not first_copies:
            table, tensor, values = without_duplicates(table, tensor, values)
        self.values[name] = values
        self.tensors[name] = tensor, n_channels
        columns = {"left_ind": table.left, "right_ind": table.right, "m_sum_ind": table.row}
        self.arrays.update({f"prod_{name}_{key}": column for key, column in columns.items()})
        self.arrays[f"prod_{name}_cg_coeff"] = table.coefficient
        degree = tensor.groups[-1].degree
        self.integers(**{f"prod_{name}_n_output_funcs": tensor.n_rows, f"prod_{name}_n_cg_terms": len(table.row)})
        self.integers(**{f"prod_{name}_Lmax": degree, f"prod_{name}_lmax": degree})


def coupled(
    table: CouplingTable,
    tensor: Tensor,
    left: Tensor,
    right: Tensor,
    left_values: NDArray[np.float64],
    right_values: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the product [N_SAMPLES, n_rows]; zero where the three degrees have an odd sum."""
    degrees = [
        {row: group.degree for group in operand.groups for row in group.rows} for operand in (tensor, left, right)
    ]
    columns = zip(degrees, (table.row, table.left, table.right), strict=True)
    total = sum(np.array([degree[row] for row in rows]) for degree, rows in columns)
    terms = np.where(total % 2 == 0, table.coefficient, 0.0) * left_values[:, table.left] * right_values[:, table.right]
    values = np.zeros((N_SAMPLES, tensor.n_rows))
    np.add.at(values.T, table.row, terms.T)
    return values


def without_duplicates(
    table: CouplingTable, tensor: Tensor, values: NDArray[np.float64]
) -> tuple[CouplingTable, Tensor, NDArray[np.float64]]:
    """Keep, of the groups whose values are proportional to each other, the one with the fewest terms."""
    group_of_term = tensor.tile()[table.row]
    n_terms = np.bincount(group_of_term, minlength=len(tensor.groups))
    seen: dict[tuple[int, int], list[NDArray[np.float64]]] = {}
    kept = []
    for index in np.argsort(n_terms, kind="stable"):
        group = tensor.groups[index]
        vector = values[:, group.rows].ravel()
        norm = np.linalg.norm(vector)
        if norm > 0.0:
            vector = vector / norm
            others = seen.setdefault((group.degree, group.parity), [])
            if any(abs(vector @ other) > 1 - PROPORTIONAL for other in others):
                continue
            others.append(vector)
        kept.append(int(index))
    kept.sort()
    rows = np.concatenate([np.array(tensor.groups[index].rows) for index in kept])
    new_row = np.full(tensor.n_rows, -1, dtype=np.int32)
    new_row[rows] = np.arange(len(rows))
    chosen = np.isin(group_of_term, kept)
    short = CouplingTable(
        new_row[table.row[chosen]], table.left[chosen], table.right[chosen], table.coefficient[chosen]
    )
    groups = tuple(
        type(group)(group.degree, group.parity, int(new_row[group.first]))
        for group in (tensor.groups[index] for index in kept)
    )
    return short, Tensor(groups), values[:, rows]


def build(name: str, elements: list[str] | None = None, cutoff: float = CUTOFF) -> dict[str, NDArray[Any]]:
    """Return the arrays of a weight file with the sizes of preset `name` and random weights (fixed seed).

    Raises
    ------
    RuntimeError
        If the coupling tables do not have the published sizes.
    """
    preset, elements = PRESETS[name], elements or ELEMENTS
    model = PresetModel(
        seed=list(PRESETS).index(name),
        elements=elements,
        cutoffs=np.full((len(elements), len(elements)), cutoff),
        embedding=128,
        n_basis=preset.n_basis,
        envelope=16,
        hidden=64,
    )
    model.integers(lmax=LMAX)
    (_second_layer if preset.n_rad2 else _one_layer)(model, preset)
    found = table_sizes(model.arrays)
    if found != SIZES[name]:
        raise RuntimeError(f"The coupling tables of {name} have the sizes {found} instead of {SIZES[name]}.")
    return model.arrays


def _first_layer(model: PresetModel, preset: Preset, radial: str, third: str, keep: tuple[Keep, Keep]) -> None:
    """A and its products; `keep` of AAA and AAAA, `third`: the right operand of AAA."""
    model.radial(radial, preset.n_rad, LMAX)
    model.basis("A", preset.n_rad, LMAX, per_element=False)
    model.sample("A")
    model.mix("A1", "A", "A", preset.width)
    model.product("AA", "A1", "A1", natural(LMAX))
    model.mix("AA1", "AA", "A", preset.width)
    model.product("AAA", "AA1", third, keep[0])
    model.mix("AA2", "AA", "A", preset.width)
    model.product("AAAA", "AA2", "AA2", keep[1])


def _one_layer(model: PresetModel, preset: Preset) -> None:
    model.integers(nradmax=preset.n_rad)
    _first_layer(model, preset, "mlp_rad", "A1", (SCALARS, SCALARS))
    model.reduce("rho", ["A", "AA", "AAA", "AAAA"], SCALARS, preset.n_densities + 1, per_element=True)
    model.readout(preset.n_densities + 1, tanh=False)
    model.output()


def _second_layer(model: PresetModel, preset: Preset) -> None:
    first, n_out = ["A", "AA", "AAA", "AAAA"], preset.n_densities + 1
    _first_layer(model, preset, "mlp_rad_R", "A", (natural(preset.message_lmax), natural(1)))
    model.reduce("I1", first, natural(preset.message_lmax), MESSAGE_INNER, per_element=True)
    model.reduce("I", ["I1"], natural(preset.message_lmax), preset.n_rad2, per_element=False)
    model.reduce("rho", first, SCALARS, n_out, per_element=True)
    model.radial("mlp_rad_R1", preset.n_rad2, LMAX)
    model.basis("B0", preset.n_rad2, LMAX, per_element=False)
    model.message_basis("YI", LMAX, both_parities(LMAX2), per_element=False)
    model.reduce("B", ["YI", "B0"], both_parities(LMAX2), preset.width2, per_element=False)
    model.sample("B")
    model.mix("B1", "B", "B", preset.width2)
    model.product("BB", "B1", "B1", both_parities(LMAX2), first_copies=True)
    model.mix("BB1", "BB", "B", preset.width2)
    model.product("BBB", "BB1", "B", SCALARS)
    model.mix("BB2", "BB", "B", preset.width2)
    model.product("BBBB", "BB2", "BB2", SCALARS)
    model.reduce("I2", ["B", "BB", "BBB", "BBBB"], SCALARS, n_out, per_element=True)
    finish_two_layers(model, n_out)


def table_sizes(arrays: dict[str, NDArray[Any]]) -> dict[str, tuple[int, int]]:
    """Return (rows, terms) of every coupling of a weight file, in the order of evaluation."""
    sizes = {}
    for name in ("AA", "AAA", "AAAA", "YI", "BB", "BBB", "BBBB"):
        prefix = name if name == "YI" else f"prod_{name}"
        if f"{prefix}_cg_coeff" in arrays:
            sizes[name] = (int(np.ravel(arrays[f"{prefix}_n_output_funcs"])[0]), len(arrays[f"{prefix}_cg_coeff"]))
    return sizes


def load(names: Iterable[str], folder: Path | None = None) -> dict[str, GraceModel]:
    """Return generated presets by name, or every readable weight file of a folder (*.npz and */model.npz)."""
    if folder is None:
        return {name: GraceModel(build(name), name) for name in names}
    found = {}
    for path in sorted([*folder.glob("*.npz"), *folder.glob("*/model.npz")]):
        name = path.parent.name if path.name == "model.npz" else path.stem
        try:
            found[name] = GraceModel.load(path)
        except ValueError as error:
            print(f"{name} is left out: {error}")
    if not found:
        raise SystemExit(f"`--models-from` {folder} holds neither *.npz nor */model.npz that can be read.")
    return found


def main() -> None:
    """Write the models and print their sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name in PRESETS:
        path, arrays = folder / f"{name}.npz", build(name)
        np.savez(path, **arrays)  # type: ignore[arg-type]
        sizes = " ".join(f"{key} {rows}/{terms}" for key, (rows, terms) in table_sizes(arrays).items())
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB; rows/terms {sizes}")


if __name__ == "__main__":
    main()
