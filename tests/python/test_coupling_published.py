"""Coupling tables made from scratch against those of published weight files, row by row."""

from __future__ import annotations

import numpy as np
import pytest

from grace_md.couplings import couple, couple_published, harmonics, label, mix_table, reduce_table, tensor_of
from reference_data import load_reference
from tolerances import COUPLING

ONE_LAYER = ("lava9_1l", "full/1L_small_4el")
TWO_LAYERS = ("2L_large_elemcut", "full/2L_small")


def scalars(degree: int, parity: int) -> bool:
    return degree == 0 and parity == 1


def natural(lmax: int):
    return lambda degree, parity: degree <= lmax and parity == (-1) ** degree


def both(lmax: int):
    return lambda degree, parity: degree <= lmax and (degree > 0 or parity == 1)


def published_tables(arrays) -> dict:
    """Every product of the model of a weight file: name -> (table, tensor), made from sizes only."""
    lmax = int(arrays["lmax"][0])
    basis = harmonics(lmax)
    tables = {"A": (None, basis), "AA": couple_published(basis, basis, natural(lmax), same=True)}
    pairs = tables["AA"][1]
    two_layers = "YI_lr_inds" in arrays
    degree = int(arrays["prod_AAA_Lmax"][0])
    tables["AAA"] = couple_published(pairs, basis, natural(degree) if two_layers else scalars, same=False)
    tables["AAAA"] = couple_published(pairs, pairs, natural(min(degree, 1)) if two_layers else scalars, same=True)
    if two_layers:
        lmax2 = int(arrays["YI_Lmax"][0])
        tables["YI"] = couple(harmonics(lmax), harmonics(degree), both(lmax2))
        kinds = [(0, 1), *((degree, parity) for degree in range(1, lmax2 + 1) for parity in (-1, 1))]
        second = tensor_of(kinds)
        tables["B"] = (None, second)
        tables["BB"] = couple_published(second, second, lambda degree, _: degree <= lmax2, same=True)
        tables["BBB"] = couple_published(tables["BB"][1], second, scalars, same=False)
        tables["BBBB"] = couple_published(tables["BB"][1], tables["BB"][1], scalars, same=True)
    return tables


@pytest.mark.parametrize("name", [*ONE_LAYER, *TWO_LAYERS])
def test_products_are_those_of_the_file_term_by_term(name: str) -> None:
    arrays = load_reference(name).arrays
    tables = published_tables(arrays)
    compared = 0
    for product, (table, _) in tables.items():
        if table is None:
            continue
        prefix = product if product == "YI" else f"prod_{product}"
        left, right = (
            arrays["YI_lr_inds"].T if product == "YI" else (arrays[f"{prefix}_{s}_ind"] for s in ("left", "right"))
        )
        assert np.array_equal(table.row, arrays[f"{prefix}_m_sum_ind"]), product
        assert np.array_equal(table.left, left), product
        assert np.array_equal(table.right, right), product
        assert np.all(np.abs(table.coefficient - arrays[f"{prefix}_cg_coeff"]) <= COUPLING), product
        compared += 1
    assert compared == (7 if "YI" in tables else 3)


@pytest.mark.parametrize("name", [*ONE_LAYER, *TWO_LAYERS])
def test_mixes_and_reductions_are_those_of_the_file(name: str) -> None:
    arrays = load_reference(name).arrays
    tensors = {product: tensor for product, (_, tensor) in published_tables(arrays).items()}
    for mix in ("A1", "AA1", "AA2", "B1", "BB1", "BB2"):
        if f"fc_{mix}_w_left" not in arrays:
            continue
        tables = mix_table(tensors[mix[:-1]], tensors[mix[0]], shared=False)
        for key, table in tables.items():
            assert np.all(np.abs(table - arrays[f"fc_{mix}_{key}"]) <= COUPLING), (mix, key)
    targets = {"rho": tensor_of([(0, 1)]), "I2": tensor_of([(0, 1)])}
    if "B" in tensors:
        tensors["B0"] = tensors["A"]
        targets["B"] = tensors["B"]
        targets["I1"] = harmonics(int(arrays["prod_AAA_Lmax"][0]))
    for reduction, target in targets.items():
        for tensor in [name.decode() for name in arrays.get(f"{reduction}_instruction_names", [])]:
            expected = (f"{reduction}_{key}_{tensor}" for key in ("collect_ind", "w_l_tile", "total_sum_ind"))
            for table, key in zip(reduce_table(tensors[tensor], target), expected, strict=True):
                assert np.array_equal(table, arrays[key].reshape(-1)), key


def test_sizes_of_published_products() -> None:
    """Rows, groups and terms for lmax 4 (docs/theory.md, Products)."""
    basis = harmonics(4)
    table, pairs = couple_published(basis, basis, natural(4), same=True)
    assert (pairs.n_rows, len(pairs.groups), len(table.row)) == (141, 27, 623)
    for keep, same, sizes in (
        (scalars, False, (14, 50)),
        (natural(1), False, (107, 547)),
        (natural(3), False, (637, 3161)),
        (scalars, True, (69, 335)),
        (natural(1), True, (378, 2138)),
    ):
        table, tensor = couple_published(pairs, pairs if same else basis, keep, same=same)
        assert (tensor.n_rows, len(table.row)) == sizes


def test_a_tensor_of_both_parities_reads_only_its_first_copies() -> None:
    second = tensor_of([(0, 1), *((degree, parity) for degree in (1, 2, 3) for parity in (-1, 1))])
    table, tensor = couple_published(second, second, lambda degree, _: degree <= 3, same=True)
    read = {(second.groups[g].degree, second.groups[g].parity) for g in second.tile()[np.unique(table.left)]}
    assert read == {(0, 1), (1, -1), (2, -1), (3, -1)}
    kinds = [(group.degree, group.parity) for group in tensor.groups]
    counts = {kind: kinds.count(kind) for kind in kinds}
    assert counts == {(0, 1): 4, (1, -1): 1, (1, 1): 2, (2, -1): 1, (2, 1): 6, (3, -1): 1, (3, 1): 3}


def test_histories_are_written_as_products() -> None:
    assert label(3) == "3"
    assert label(((1, 1, 2), 2, 0)) == "((11)22)0"
