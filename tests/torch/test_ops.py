"""Operators of training: against einsum, gradients of gradients, threads, single precision, wrong input."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from grace_md.torch import ops, plain_ops  # noqa: E402
from tolerances import OPERATOR_RELATIVE, OPERATOR_RELATIVE_FLOAT, assert_close  # noqa: E402


class Form:
    """One multilinear form with random operands: `operator(*operands, *others, slot)` and an oracle by einsum."""

    def __init__(self, name: str, operands: list[Any], others: tuple[Any, ...], oracle: Any) -> None:
        self.operator = getattr(torch.ops.grace_md, name).default
        self.plain = getattr(plain_ops, name)
        self.operands, self.others, self.oracle = operands, others, oracle
        self.slots = range(len(operands))

    def arguments(self, slot: int, operands: list[Any] | None = None) -> tuple[Any, ...]:
        given = list(operands or self.operands)
        given[slot] = None
        return (*given, *self.others, slot)

    def call(self, slot: int, operands: list[Any] | None = None) -> Any:
        return self.operator(*self.arguments(slot, operands))


def bonds(n_atoms: int, n_bonds: int, random: Any) -> tuple[Any, Any]:
    """Random centres, sorted, and first_bond; atoms without bonds occur."""
    center = np.sort(random.integers(0, max(n_atoms, 1), n_bonds))
    first = np.searchsorted(center, np.arange(n_atoms + 1))
    return torch.from_numpy(center), torch.from_numpy(first)


def normal(random: Any, dtype: Any, *shape: int) -> Any:
    return torch.empty(shape, dtype=dtype).copy_(torch.from_numpy(random.normal(size=shape)))


def bond_basis_form(n_atoms: int, n_bonds: int, lmax: int, n_channels: int, dtype: Any = torch.float64) -> Form:
    random, n_elements = np.random.default_rng(n_channels), 3
    center, first = bonds(n_atoms, n_bonds, random)
    species = torch.from_numpy(random.integers(0, n_elements, n_bonds))
    n_rows = (lmax + 1) ** 2
    sizes = [
        (n_atoms, n_rows, n_channels),
        (n_bonds, lmax + 1, n_channels),
        (n_bonds, n_rows),
        (n_elements, n_channels),
    ]
    operands = [normal(random, dtype, *size) for size in sizes]
    degree = np.zeros((lmax + 1, n_rows))
    for row in range(n_rows):
        degree[math.isqrt(row), row] = 1.0
    incidence = np.zeros((n_atoms, n_bonds))
    incidence[center, np.arange(n_bonds)] = 1.0
    chosen = np.zeros((n_bonds, n_elements))
    chosen[np.arange(n_bonds), species] = 1.0
    letters = ("iwn", "bln", "bw", "en")

    def oracle(slot: int) -> Any:
        others = [k for k in range(4) if k != slot]
        text = ",".join([*(letters[k] for k in others), "lw", "ib", "be"]) + "->" + letters[slot]
        tables = [torch.from_numpy(table) for table in (degree, incidence, chosen)]
        return torch.einsum(text, *(operands[k].double() for k in others), *tables)

    return Form("bond_basis", operands, (first, species, n_elements), oracle)


def product_form(n_atoms: int, rows: tuple[int, int, int], n_channels: int, dtype: Any = torch.float64) -> Form:
    random, n_terms = np.random.default_rng(n_channels), 5 * max(rows) if min(rows) else 0
    columns = [random.integers(0, max(size, 1), n_terms) for size in rows]
    coefficient = random.normal(size=n_terms)
    terms = ops.CouplingTerms(*columns, coefficient, *rows)
    operands = [normal(random, dtype, n_atoms, size, n_channels) for size in rows]
    dense = np.zeros(rows)
    np.add.at(dense, tuple(columns), coefficient)
    letters = "fpq"

    def oracle(slot: int) -> Any:
        others = [k for k in range(3) if k != slot]
        text = "fpq," + ",".join(f"a{letters[k]}n" for k in others) + f"->a{letters[slot]}n"
        return torch.einsum(text, torch.from_numpy(dense), *(operands[k].double() for k in others))

    return Form("coupling_product", operands, (terms.terms, terms.coefficients, list(rows)), oracle)


def message_form(n_atoms: int, n_bonds: int, lmax: int, rows: tuple[int, int], n_channels: int, dtype: Any) -> Form:
    random, (n_rows, n_message_rows), n_harmonics = np.random.default_rng(n_channels), rows, (lmax + 1) ** 2
    center, first = bonds(n_atoms, n_bonds, random)
    neighbor = torch.from_numpy(random.integers(0, max(n_atoms, 1), n_bonds))
    sizes = [n_rows, n_harmonics, n_message_rows]
    columns = [random.integers(0, size, 4 * n_rows) for size in sizes]
    coefficient = random.normal(size=4 * n_rows)
    terms = ops.CouplingTerms(*columns, coefficient, *sizes)
    shapes = [(n_atoms, n_rows), (n_bonds, lmax + 1), (n_bonds, n_harmonics), (n_atoms, n_message_rows)]
    operands = [normal(random, dtype, *shape, *([] if k == 2 else [n_channels])) for k, shape in enumerate(shapes)]
    dense = np.zeros(sizes)
    np.add.at(dense, tuple(columns), coefficient)
    degree = np.array([math.isqrt(row) for row in range(n_harmonics)])
    letters = ("bfn", "byn", "by", "bwn")

    def oracle(slot: int) -> Any:
        given = [operand.double() for operand in operands]
        values = [given[0][center], given[1][:, degree], given[2], given[3][neighbor]]
        others = [k for k in range(4) if k != slot]
        text = "fyw," + ",".join(letters[k] for k in others) + "->" + letters[slot]
        result = torch.einsum(text, torch.from_numpy(dense), *(values[k] for k in others))
        if slot == 2:
            return result
        axis, index = (1, torch.from_numpy(degree)) if slot == 1 else (0, center if slot == 0 else neighbor)
        return torch.zeros(operands[slot].shape, dtype=torch.float64).index_add(axis, index, result)

    others = (first, neighbor, terms.terms, terms.coefficients, sizes)
    return Form("message_basis", operands, others, oracle)


# (atoms, bonds, lmax, channels): channel counts below, at and between the widths of vectors; no bonds; no atoms
BASIS = [(5, 30, 4, 1), (3, 9, 0, 7), (40, 500, 3, 19), (6, 41, 5, 42), (4, 0, 2, 8), (0, 0, 1, 33), (2, 13, 8, 4)]
MESSAGES = [(5, 30, 4, (9, 4), 1), (3, 9, 0, (2, 1), 7), (40, 500, 3, (31, 9), 19), (6, 41, 4, (190, 16), 42)]
MESSAGES += [(4, 0, 2, (3, 4), 8), (0, 0, 1, (2, 4), 33), (2, 13, 8, (20, 5), 4)]
PRODUCTS = [(5, (7, 4, 9), 1), (3, (2, 9, 25), 7), (11, (30, 25, 25), 19), (2, (5, 5, 5), 106), (0, (3, 2, 2), 8)]


def forms(dtype: Any = torch.float64) -> list[Any]:
    basis = [pytest.param(bond_basis_form(*size, dtype), id=f"bond_basis{size}") for size in BASIS]
    basis += [pytest.param(message_form(*size, dtype), id=f"message_basis{size}") for size in MESSAGES]
    return basis + [pytest.param(product_form(*size, dtype), id=f"product{size}") for size in PRODUCTS]


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("form", forms())
def test_every_slot_is_that_of_einsum(form: Form) -> None:
    for slot in form.slots:
        actual, expected = form.call(slot), form.oracle(slot)
        assert actual.dtype == torch.float64
        largest = float(expected.abs().max()) if expected.numel() else 0.0
        assert_close(actual, expected, OPERATOR_RELATIVE * largest, what=f"slot {slot}")


@pytest.mark.parametrize("form", forms(torch.float32))
def test_single_precision(form: Form) -> None:
    for slot in form.slots:
        actual, expected = form.call(slot), form.oracle(slot)
        assert actual.dtype == torch.float32
        largest = float(expected.abs().max()) if expected.numel() else 0.0
        assert_close(actual, expected, OPERATOR_RELATIVE_FLOAT * largest, what=f"slot {slot}")


SMALL = [
    pytest.param(bond_basis_form(3, 7, 2, 2), id="bond_basis"),
    pytest.param(bond_basis_form(2, 0, 1, 3), id="bond_basis without bonds"),
    pytest.param(message_form(3, 7, 2, (5, 3), 2, torch.float64), id="message_basis"),
    pytest.param(message_form(2, 0, 1, (3, 4), 3, torch.float64), id="message_basis without bonds"),
    pytest.param(product_form(2, (4, 3, 5), 3), id="product"),
    pytest.param(product_form(0, (4, 3, 5), 3), id="product without atoms"),
]


@pytest.mark.parametrize("form", SMALL)
def test_gradients_of_gradients(form: Form) -> None:
    for slot in form.slots:
        others = [k for k in form.slots if k != slot]

        def function(*tensors: Any, slot: int = slot, others: list[int] = others) -> Any:
            given = dict(zip(others, tensors, strict=True))
            return form.call(slot, [given.get(k) for k in form.slots])

        inputs = [form.operands[k].clone().requires_grad_() for k in others]
        assert torch.autograd.gradcheck(function, inputs)
        assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize("form", SMALL)
def test_torch_accepts_the_operators(form: Form) -> None:
    """Schema, fake kernels, autograd registration and tracing, as torch checks them."""
    operands = [t.clone().requires_grad_() for t in form.operands]
    for slot in form.slots:
        torch.library.opcheck(form.operator, form.arguments(slot, operands))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_threads_do_not_change_a_bit(dtype: Any) -> None:
    before = torch.get_num_threads()
    try:
        big = (301, 4000, 3)
        message = message_form(*big, (31, 9), 18, dtype)
        for form in (bond_basis_form(*big, 18, dtype), message, product_form(301, (20, 16, 16), 18, dtype)):
            for slot in form.slots:
                results = []
                for n_threads in (1, 2, 5):
                    torch.set_num_threads(n_threads)
                    results.append(form.call(slot))
                assert torch.equal(results[0], results[1])
                assert torch.equal(results[0], results[2])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("form", [*SMALL, *forms()[:3]])
def test_plain_formulas_are_the_same_operators(form: Form) -> None:
    for slot in form.slots:
        plain, expected = form.plain(*form.arguments(slot)), form.oracle(slot)
        largest = float(expected.abs().max()) if expected.numel() else 0.0
        assert_close(plain, expected, OPERATOR_RELATIVE * largest, what=f"slot {slot}")


def test_unused_slots_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forces need the gradients of R and Y only: the slot of z, which has a gradient too, must not be computed."""
    slots: list[int] = []
    core = ops._core.bond_basis
    monkeypatch.setattr(ops._core, "bond_basis", lambda slot, *a, **k: (slots.append(slot), core(slot, *a, **k))[1])
    form = bond_basis_form(4, 20, 2, 5)
    _, radial, harmonics, chemical = (t.clone().requires_grad_() for t in form.operands)
    inner = radial * 1.0
    total = form.call(0, [None, inner, harmonics, chemical]).sum()
    torch.autograd.grad(total, (inner, harmonics), create_graph=True)
    assert sorted(slots) == [0, 1, 2]


def make(**changes: Any) -> tuple[Any, ...]:
    form = bond_basis_form(3, 7, 1, 4)
    names = ("radial", "harmonics", "chemical", "first_bond", "bond_species")
    arguments = dict(zip(names, (*form.operands[1:], *form.others[:2]), strict=True))
    return tuple((arguments | changes).values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"radial": torch.zeros(7, 3, 4, dtype=torch.float64)},
            r"`radial` must have shape \[7, 2, 4\], got \[7, 3, 4\]",
        ),
        ({"harmonics": torch.zeros(7, 5, dtype=torch.float64)}, r"\(lmax \+ 1\)\^2, got 5"),
        ({"harmonics": torch.zeros(7, 4)}, "all be float32 or all float64"),
        ({"harmonics": torch.zeros(4, 7, dtype=torch.float64).T}, "`harmonics` is not contiguous"),
        ({"first_bond": torch.tensor([0, 5, 3, 7])}, "`first_bond` must not decrease, got 5 then 3"),
        ({"first_bond": torch.tensor([0, 5, 5, 6])}, "must end with the number of bonds 7, got 6"),
        ({"first_bond": torch.tensor([0, 5, 5, 7], dtype=torch.int32)}, "`first_bond` must be torch.int64"),
        ({"bond_species": torch.tensor([0, 1, 2, 3, 0, 0, 0])}, r"`bond_species` must be 0 .. 2, got 3 at 3"),
    ],
)
def test_wrong_operands_of_the_bond_basis(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ops.bond_basis(*make(**changes))


def test_wrong_operands_of_the_product() -> None:
    terms = ops.CouplingTerms([0, 1], [0, 1], [1, 0], [1.0, 2.0], 2, 2, 3)
    left, right = torch.zeros(4, 2, 5), torch.zeros(4, 3, 5)
    assert ops.coupling_product(left, right, terms).shape == (4, 2, 5)
    with pytest.raises(ValueError, match=r"`right` must have shape \[4, 3, 5\], got \[4, 2, 5\]"):
        ops.coupling_product(left, left, terms)
    with pytest.raises(ValueError, match="all be float32 or all float64"):
        ops.coupling_product(left, right.double(), terms)
    with pytest.raises(ValueError, match="outside of"):
        ops.CouplingTerms([0, 2], [0, 1], [1, 0], [1.0, 2.0], 2, 2, 3)


def test_wrong_operands_of_the_message_basis() -> None:
    form = message_form(3, 7, 1, (2, 4), 5, torch.float64)
    first, neighbor, terms, coefficients, sizes = form.others
    call = torch.ops.grace_md.message_basis
    _, radial, harmonics, message = form.operands
    with pytest.raises(ValueError, match=r"`message` must have shape \[3, 4, 5\], got \[3, 3, 5\]"):
        call(None, radial, harmonics, message[:, 1:], first, neighbor, terms, coefficients, sizes, 0)
    with pytest.raises(ValueError, match=r"`neighbor` must be 0 .. 2, got 3"):
        call(None, radial, harmonics, message, first, neighbor.clone().fill_(3), terms, coefficients, sizes, 0)
    with pytest.raises(ValueError, match=r"harmonic 7, which must be 0 .. 3"):
        call(None, radial, harmonics, message, first, neighbor, terms.clone().fill_(7), coefficients, [8, 4, 4], 0)


def test_terms_keep_their_coefficients_in_double() -> None:
    terms = ops.CouplingTerms([0], [0], [0], [1.0 / 3.0], 1, 1, 1).to(torch.float32)
    assert terms.coefficients.dtype == torch.float64
    assert float(terms.coefficients[0, 0]) == 1.0 / 3.0
