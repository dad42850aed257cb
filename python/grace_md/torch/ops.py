"""Multilinear forms of GRACE models as torch operators over the C++ core, differentiable to any order.

    A = bond_basis(R, Y, z, first_bond, bond_species)       # [n_atoms, n_harmonics, n_channels]
    P = coupling_product(left, right, terms)                # [n_atoms, n_rows, n_channels]
    YI = message_basis(R, Y, I, first_bond, neighbor, terms)

A form F(a, b, ...) is linear in each operand, so dF/da is the same form with the slot of a left free, and one operator
with an argument `slot` serves values, gradients and gradients of gradients. Nothing per bond and channel is stored but
the operands. Sums run in a fixed order: results do not depend on the number of threads (torch.get_num_threads()).

Tensors are contiguous, float32 or float64, channels last. On other devices than the CPU the plain formulas of
`grace_md.torch.plain_ops` compute the same.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from grace_md import _core
from grace_md.torch import plain_ops
from grace_md.torch.coupling_terms import ROWS, CouplingTerms
from grace_md.torch.op_tools import address, close_under_differentiation, real_dtype

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

__all__ = ["CouplingTerms", "bond_basis", "coupling_product", "message_basis"]

ATOMS = 0  # slot of the result of bond_basis (A, R, Y, z) and message_basis (YI, R, Y, I)


# ---- bond basis -----------------------------------------------------------------------------------------------------


def bond_basis(radial: Tensor, harmonics: Tensor, chemical: Tensor, first_bond: Tensor, bond_species: Tensor) -> Tensor:
    """Single-particle basis A[i, lm, n] = sum over the bonds b of atom i of R[b, l, n] Y[b, lm] z[s_b, n].

    Parameters
    ----------
    radial : [n_bonds, lmax + 1, n_channels]
        R; bonds are sorted by centre.
    harmonics : [n_bonds, (lmax + 1)^2]
        Y, slot l^2 + l + m.
    chemical : [n_elements, n_channels]
        z, with all constant factors.
    first_bond : int64 [n_atoms + 1]
        Bonds of atom i: first_bond[i] .. first_bond[i + 1] - 1.
    bond_species : int64 [n_bonds]
        Element s_b of the neighbour, a row of `chemical`.

    Returns
    -------
    [n_atoms, (lmax + 1)^2, n_channels]
    """
    n_elements = chemical.shape[0]
    result: Tensor = _bond_basis(None, radial, harmonics, chemical, first_bond, bond_species, n_elements, ATOMS)
    return result


def _bond_basis_shapes(
    atoms: Tensor | None,
    radial: Tensor | None,
    harmonics: Tensor | None,
    chemical: Tensor | None,
    first_bond: Tensor,
    bond_species: Tensor,
    n_elements: int,
) -> list[tuple[int, ...]]:
    """Return the shapes of A, R, Y and z, from two of the operands that are given."""
    first, rows = (harmonics, 1) if harmonics is not None else (atoms, 1)
    channels = next(t for t in (chemical, radial, atoms) if t is not None).shape[-1]
    n_rows = first.shape[rows] if first is not None and first.ndim > rows else 0
    degrees = math.isqrt(n_rows)
    if degrees < 1 or degrees * degrees != n_rows:
        raise ValueError(f"The number of harmonics must be (lmax + 1)^2, got {n_rows}.")
    n_atoms, n_bonds = first_bond.shape[0] - 1, bond_species.shape[0]
    return [
        (n_atoms, n_rows, channels),
        (n_bonds, degrees, channels),
        (n_bonds, n_rows),
        (n_elements, channels),
    ]


@torch.library.custom_op(
    "grace_md::bond_basis",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor? atoms, Tensor? radial, Tensor? harmonics, Tensor? chemical, Tensor first_bond, "
    "Tensor bond_species, int n_elements, int slot) -> Tensor",
)
def _bond_basis(
    atoms: Tensor | None,
    radial: Tensor | None,
    harmonics: Tensor | None,
    chemical: Tensor | None,
    first_bond: Tensor,
    bond_species: Tensor,
    n_elements: int,
    slot: int,
) -> Tensor:
    dtype = real_dtype(atoms=atoms, radial=radial, harmonics=harmonics, chemical=chemical)
    shapes = _bond_basis_shapes(atoms, radial, harmonics, chemical, first_bond, bond_species, n_elements)
    names = ("atoms", "radial", "harmonics", "chemical")
    operands = zip(names, (atoms, radial, harmonics, chemical), shapes, strict=True)
    a, r, y, z = (address(name, operand, dtype, shape) for name, operand, shape in operands)
    out = torch.empty(shapes[slot], dtype=dtype)
    n_atoms, n_rows, n_channels = shapes[ATOMS]
    _core.bond_basis(
        slot,
        dtype == torch.float64,
        a,
        r,
        y,
        z,
        out.data_ptr(),
        address("first_bond", first_bond, torch.int64, (n_atoms + 1,)),
        address("bond_species", bond_species, torch.int64, bond_species.shape),
        n_atoms=n_atoms,
        n_bonds=bond_species.shape[0],
        n_elements=n_elements,
        lmax=math.isqrt(n_rows) - 1,
        n_channels=n_channels,
        n_threads=torch.get_num_threads(),
    )
    return out


@_bond_basis.register_fake
def _(
    atoms: Tensor | None,
    radial: Tensor | None,
    harmonics: Tensor | None,
    chemical: Tensor | None,
    first_bond: Tensor,
    bond_species: Tensor,
    n_elements: int,
    slot: int,
) -> Tensor:
    shapes = _bond_basis_shapes(atoms, radial, harmonics, chemical, first_bond, bond_species, n_elements)
    like = next(t for t in (radial, harmonics, atoms) if t is not None)
    return like.new_empty(shapes[slot])


_bond_basis.register_kernel("cuda")(plain_ops.bond_basis)
close_under_differentiation(_bond_basis, 4)


# ---- coupling product -----------------------------------------------------------------------------------------------


def coupling_product(left: Tensor, right: Tensor, terms: CouplingTerms) -> Tensor:
    """Coupling product P[a, row, n] = sum over terms of c L[a, left, n] S[a, right, n].

    Parameters
    ----------
    left : [n_atoms, n_left, n_channels]
    right : [n_atoms, n_right, n_channels]
    terms : CouplingTerms

    Returns
    -------
    [n_atoms, n_rows, n_channels]
    """
    result: Tensor = _coupling_product(None, left, right, terms.terms, terms.coefficients, terms.sizes, ROWS)
    return result


def _product_shapes(operands: Sequence[Tensor | None], sizes: Sequence[int]) -> list[tuple[int, int, int]]:
    """Return the shapes of P, L and S."""
    given = next(t for t in operands if t is not None)
    if given.ndim != 3:
        raise ValueError(f"Operands must have shape [n_atoms, n_rows, n_channels], got {list(given.shape)}.")
    return [(given.shape[0], size, given.shape[2]) for size in sizes]


@torch.library.custom_op(
    "grace_md::coupling_product",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor? rows, Tensor? left, Tensor? right, Tensor terms, Tensor coefficients, int[] sizes, int slot)"
    " -> Tensor",
)
def _coupling_product(
    rows: Tensor | None,
    left: Tensor | None,
    right: Tensor | None,
    terms: Tensor,
    coefficients: Tensor,
    sizes: Sequence[int],
    slot: int,
) -> Tensor:
    dtype = real_dtype(rows=rows, left=left, right=right)
    shapes = _product_shapes((rows, left, right), sizes)
    n_terms = coefficients.shape[1]
    given = [
        (address(name, operand, dtype, shape), shape[1])
        for name, operand, shape in zip(("rows", "left", "right"), (rows, left, right), shapes, strict=True)
        if operand is not None
    ]
    out = torch.empty(shapes[slot], dtype=dtype)
    address("terms", terms, torch.int32, (3, n_terms, 3))
    address("coefficients", coefficients, torch.float64, (3, n_terms))
    _core.coupling_product(
        dtype == torch.float64,
        given[0][0],
        given[1][0],
        out.data_ptr(),
        terms[slot].data_ptr(),
        coefficients[slot].data_ptr(),
        n_terms=n_terms,
        n_atoms=out.shape[0],
        n_targets=sizes[slot],
        n_first=given[0][1],
        n_second=given[1][1],
        n_channels=out.shape[2],
        n_threads=torch.get_num_threads(),
    )
    return out


@_coupling_product.register_fake
def _(
    rows: Tensor | None,
    left: Tensor | None,
    right: Tensor | None,
    terms: Tensor,
    coefficients: Tensor,
    sizes: Sequence[int],
    slot: int,
) -> Tensor:
    like = next(t for t in (left, right, rows) if t is not None)
    return like.new_empty(_product_shapes((rows, left, right), sizes)[slot])


_coupling_product.register_kernel("cuda")(plain_ops.coupling_product)
close_under_differentiation(_coupling_product, 3)


# ---- message basis --------------------------------------------------------------------------------------------------


def message_basis(
    radial: Tensor, harmonics: Tensor, message: Tensor, first_bond: Tensor, neighbor: Tensor, terms: CouplingTerms
) -> Tensor:
    """Message basis YI[i, f, n] = sum over the bonds b of i and over terms of c R[b, l(y), n] Y[b, y] I[j_b, w, n].

    Parameters
    ----------
    radial : [n_bonds, lmax + 1, n_channels]
        R; bonds are sorted by centre.
    harmonics : [n_bonds, (lmax + 1)^2]
        Y, slot l^2 + l + m.
    message : [n_atoms, n_message_rows, n_channels]
        I of every atom.
    first_bond : int64 [n_atoms + 1]
    neighbor : int64 [n_bonds]
        Atom j_b at the end of each bond.
    terms : CouplingTerms
        Rows f, harmonics y as the left operand and message rows w as the right one.

    Returns
    -------
    [n_atoms, n_rows, n_channels]
    """
    given = (None, radial, harmonics, message)
    result: Tensor = _message_basis(*given, first_bond, neighbor, terms.terms, terms.coefficients, terms.sizes, ATOMS)
    return result


def _message_shapes(
    atoms: Tensor | None,
    radial: Tensor | None,
    message: Tensor | None,
    first_bond: Tensor,
    neighbor: Tensor,
    sizes: Sequence[int],
) -> list[tuple[int, ...]]:
    """Return the shapes of YI, R, Y and I."""
    n_atoms, n_bonds = first_bond.shape[0] - 1, neighbor.shape[0]
    channels = next(t for t in (radial, message, atoms) if t is not None).shape[-1]
    n_rows, n_harmonics, n_message_rows = sizes
    degrees = math.isqrt(n_harmonics)
    if degrees < 1 or degrees * degrees != n_harmonics:
        raise ValueError(f"The number of harmonics must be (lmax + 1)^2, got {n_harmonics}.")
    return [
        (n_atoms, n_rows, channels),
        (n_bonds, degrees, channels),
        (n_bonds, n_harmonics),
        (n_atoms, n_message_rows, channels),
    ]


@torch.library.custom_op(
    "grace_md::message_basis",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor? atoms, Tensor? radial, Tensor? harmonics, Tensor? message, Tensor first_bond, Tensor neighbor, "
    "Tensor terms, Tensor coefficients, int[] sizes, int slot) -> Tensor",
)
def _message_basis(
    atoms: Tensor | None,
    radial: Tensor | None,
    harmonics: Tensor | None,
    message: Tensor | None,
    first_bond: Tensor,
    neighbor: Tensor,
    terms: Tensor,
    coefficients: Tensor,
    sizes: Sequence[int],
    slot: int,
) -> Tensor:
    dtype = real_dtype(atoms=atoms, radial=radial, harmonics=harmonics, message=message)
    shapes = _message_shapes(atoms, radial, message, first_bond, neighbor, sizes)
    names = ("atoms", "radial", "harmonics", "message")
    operands = zip(names, (atoms, radial, harmonics, message), shapes, strict=True)
    yi, r, y, i = (address(name, operand, dtype, shape) for name, operand, shape in operands)
    out = torch.empty(shapes[slot], dtype=dtype)
    n_terms = coefficients.shape[1]
    _core.message_basis(
        slot,
        dtype == torch.float64,
        yi,
        r,
        y,
        i,
        out.data_ptr(),
        address("first_bond", first_bond, torch.int64, first_bond.shape),
        address("neighbor", neighbor, torch.int64, neighbor.shape),
        address("terms", terms, torch.int32, (3, n_terms, 3)),
        address("coefficients", coefficients, torch.float64, (3, n_terms)),
        n_terms=n_terms,
        n_atoms=shapes[ATOMS][0],
        n_bonds=neighbor.shape[0],
        n_rows=sizes[0],
        n_message_rows=sizes[2],
        lmax=math.isqrt(sizes[1]) - 1,
        n_channels=shapes[ATOMS][2],
        n_threads=torch.get_num_threads(),
    )
    return out


@_message_basis.register_fake
def _(
    atoms: Tensor | None,
    radial: Tensor | None,
    harmonics: Tensor | None,
    message: Tensor | None,
    first_bond: Tensor,
    neighbor: Tensor,
    terms: Tensor,
    coefficients: Tensor,
    sizes: Sequence[int],
    slot: int,
) -> Tensor:
    like = next(t for t in (radial, message, atoms) if t is not None)
    return like.new_empty(_message_shapes(atoms, radial, message, first_bond, neighbor, sizes)[slot])


_message_basis.register_kernel("cuda")(plain_ops.message_basis)
close_under_differentiation(_message_basis, 4)
