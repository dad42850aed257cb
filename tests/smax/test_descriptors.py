"""SNAP and power-spectrum features: LAMMPS, a NumPy reference, differences, invariances, bad input."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from grace_md import _core
from grace_md.smax import snap_descriptors
from grace_md.smax.descriptors import Descriptor, SnapDescriptor, make_descriptor
from grace_md.smax.power_spectrum import PowerSpectrum
from snap_tools import lammps_snap, random_structures, reference
from tolerances import (
    SNAP,
    SNAP_DIFFERENCE,
    SNAP_GRADIENT,
    SNAP_INVARIANCE,
    SNAP_STEP,
    SUPERCELL,
    assert_close,
)

KINDS = ("snap centre", "snap pair", "ace centre", "ace pair", "snap pair root", "ace centre root")
ROOT = 1.0 / 6.0


def structure_of(n_atoms: int, seed: int) -> tuple[Any, Any, Any]:
    """First random structure with this number of atoms."""
    return next(s for s in random_structures(100, seed) if len(s[0]) == n_atoms)


def batch_of(structures: list[tuple[Any, Any, Any]], periodic: Any = (True, True, True)) -> Any:
    counts = [len(x) for x, _, _ in structures]
    return SimpleNamespace(
        positions=np.concatenate([x for x, _, _ in structures]),
        cells=np.array([h for _, h, _ in structures]),
        periodic=np.array([periodic] * len(structures)),
        first_atom=np.concatenate([[0], np.cumsum(counts)]),
        cutoffs=np.concatenate([c for _, _, c in structures]),
    )


def descriptor(kind: str) -> Descriptor:
    name, rule, *root = kind.split()
    power = ROOT if root else 1.0
    settings = SimpleNamespace(kind=name, twojmax=8, rfac0=0.99363, rmin0=0.0, cutoff_rule=rule, power=power)
    return make_descriptor(settings)


def features(kind: str, x: Any, cell: Any, cutoffs: Any, periodic: Any = (True, True, True)) -> Any:
    return descriptor(kind).values(batch_of([(x, cell, cutoffs)], periodic))


@pytest.mark.lammps
def test_components_are_those_of_lammps() -> None:
    structures = random_structures(24, seed=1)
    values = SnapDescriptor(cutoff_rule="pair").values(batch_of(structures))
    expected = np.concatenate([lammps_snap(*s)[0] for s in structures])
    assert any(cell[2, 2] < cutoffs.min() for _, cell, cutoffs in structures)  # self images
    assert np.abs(expected).max() > 10.0
    assert_close(values, expected, SNAP, what="B")


@pytest.mark.lammps
def test_gradients_are_those_of_lammps() -> None:
    rng = np.random.default_rng(3)
    for x, cell, cutoffs in random_structures(4, seed=2):
        snap = SnapDescriptor(cutoff_rule="pair")
        beta = rng.normal(size=(len(x), snap.n_features))
        snap.values(batch_of([(x, cell, cutoffs)]))
        dx, _ = snap.gradients(beta)
        _, slopes = lammps_snap(x, cell, cutoffs, derivatives=True)
        assert slopes is not None
        expected = np.einsum("tk,atxk->ax", beta, slopes)
        assert_close(dx, expected, SNAP_GRADIENT * max(1.0, np.abs(expected).max()), what="dx")


@pytest.mark.parametrize("pair_rule", [False, True])
@pytest.mark.parametrize("periodic", [(True, True, True), (True, False, True), (False, False, False)])
def test_components_are_those_of_the_formulas(pair_rule: bool, periodic: tuple[bool, bool, bool]) -> None:
    x, cell, cutoffs = structure_of(3, seed=5)
    rule = "pair" if pair_rule else "centre"
    values = features(f"snap {rule}", x, cell, cutoffs, periodic)
    assert_close(values, reference(x, cell, periodic, cutoffs, pair_rule=pair_rule), SNAP, what=rule)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("periodic", [(True, True, True), (False, True, False)])
def test_gradients_are_the_differences(kind: str, periodic: tuple[bool, bool, bool]) -> None:
    structures = [s for s in random_structures(12, seed=7) if 2 <= len(s[0]) <= 5][:3]
    assert len(structures) == 3
    made, batch = descriptor(kind), batch_of(structures, periodic)
    beta = np.random.default_rng(8).normal(size=(len(batch.positions), made.n_features))
    owner = np.repeat(np.arange(3), np.diff(batch.first_atom))

    def energy(positions: Any, cells: Any) -> float:
        return float(
            np.sum(beta * made.values(SimpleNamespace(**vars(batch) | {"positions": positions, "cells": cells})))
        )

    energy(batch.positions, batch.cells)
    dx, strain = made.gradients(beta)
    assert np.abs(dx).max() > 1.0
    for index in np.ndindex(*batch.positions.shape):
        step = np.zeros_like(batch.positions)
        step[index] = SNAP_STEP
        difference = energy(batch.positions + step, batch.cells) - energy(batch.positions - step, batch.cells)
        assert_close(dx[index], difference / (2 * SNAP_STEP), SNAP_DIFFERENCE * np.abs(dx).max(), what=f"dx{index}")
    for index in np.ndindex(3, 3, 3):
        e = np.zeros((3, 3, 3))
        e[index] = SNAP_STEP
        ends = [
            energy(np.einsum("ia,iab->ib", batch.positions, one[owner]), batch.cells @ one)
            for one in (np.eye(3) + e, np.eye(3) - e)
        ]
        difference = (ends[0] - ends[1]) / (2 * SNAP_STEP)
        assert_close(strain[index], difference, SNAP_DIFFERENCE * np.abs(strain).max(), what=f"strain{index}")


@pytest.mark.parametrize("kind", KINDS)
def test_features_do_not_depend_on_the_frame(kind: str) -> None:
    x, cell, cutoffs = structure_of(5, seed=11)
    rng = np.random.default_rng(12)
    values = features(kind, x, cell, cutoffs)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    rotation *= np.sign(np.linalg.det(rotation))
    order = np.roll(np.arange(len(x)), 1)
    lattice = np.array([[1, 1, 0], [0, 1, 0], [-1, 0, 1]])  # other vectors of the same lattice
    for name, changed in {
        "rotation": features(kind, x @ rotation, cell @ rotation, cutoffs),
        "translation": features(kind, x + rng.normal(size=3) * 5.0, cell, cutoffs),
        "images": features(kind, x + rng.integers(-2, 3, x.shape) @ cell, cell, cutoffs),
        "lattice": features(kind, x, lattice @ cell, cutoffs),
        "permutation": features(kind, x[order], cell, cutoffs[order])[np.argsort(order)],
    }.items():
        assert_close(changed, values, SNAP_INVARIANCE * np.abs(values).max(), what=name)
    assert np.abs(features(kind, x * [1.0, 1.0, 1.01], cell, cutoffs) - values).max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_supercells_have_the_same_features(kind: str) -> None:
    x, cell, cutoffs = structure_of(2, seed=13)
    values = features(kind, x, cell, cutoffs)
    offsets = np.array(list(np.ndindex(2, 1, 3))) @ cell
    many = np.concatenate([x + offset for offset in offsets])
    large = features(kind, many, np.diag([2, 1, 3]) @ cell, np.tile(cutoffs, 6))
    assert_close(large, np.tile(values, (6, 1)), SUPERCELL * np.abs(values).max(), what="supercell")


def test_batches_and_threads_change_no_bit() -> None:
    structures = random_structures(13, seed=17)
    kernel = _core.SnapKernel()
    batch = batch_of(structures)
    arguments = (batch.positions, batch.cells, batch.periodic, batch.first_atom, batch.cutoffs)
    beta = np.random.default_rng(18).normal(size=(len(batch.positions), kernel.n_features))
    values = kernel.descriptors(*arguments, n_threads=1)
    dx, strain = kernel.gradients(beta, n_threads=1)
    again = kernel.descriptors(*arguments, n_threads=3)
    assert np.array_equal(again, values)
    for one, other in zip(kernel.gradients(beta, n_threads=3), (dx, strain), strict=True):
        assert np.array_equal(one, other)
    for s, structure in enumerate(structures):
        own = slice(batch.first_atom[s], batch.first_atom[s + 1])
        alone = SnapDescriptor()
        assert np.array_equal(alone.values(batch_of([structure])), values[own])
        for one, other in zip(alone.gradients(beta[own]), (dx[own], strain[s : s + 1]), strict=True):
            assert np.array_equal(one, other)


def test_cutoff_rules_differ_and_agree_for_equal_cutoffs() -> None:
    x, cell, cutoffs = structure_of(5, seed=11)
    assert np.abs(features("snap centre", x, cell, cutoffs) - features("snap pair", x, cell, cutoffs)).max() > 0.1
    equal = np.full(len(x), 4.0)
    assert np.array_equal(features("snap centre", x, cell, equal), features("snap pair", x, cell, equal))


def test_an_atom_alone_and_nothing_at_all() -> None:
    alone = snap_descriptors(Atoms("H"), 3.0)
    assert_close(alone[0, :2], [1.0, 2.0], SNAP, what="B of an atom alone")  # traces of unit matrices
    assert snap_descriptors(Atoms(), 3.0).shape == (0, 55)
    assert snap_descriptors(Atoms("H"), 3.0, twojmax=6).shape == (1, 30)
    assert PowerSpectrum().values(batch_of([(np.zeros((1, 3)), np.eye(3) * 9, np.ones(1))])).any() == 0.0
    empty = SnapDescriptor()
    empty.values(batch_of([(np.zeros((0, 3)), np.eye(3), np.zeros(0))]))
    dx, strain = empty.gradients(np.zeros((0, 55)))
    assert dx.shape == (0, 3)
    assert not strain.any()


PLAIN = Atoms("H2", positions=[[0, 0, 0], [1, 1, 1]], cell=[4, 4, 4], pbc=True)


def changed(**attributes: Any) -> Atoms:
    atoms = PLAIN.copy()
    for name, value in attributes.items():
        setattr(atoms, name, value)
    return atoms


@pytest.mark.parametrize(
    ("atoms", "cutoffs", "options", "text"),
    [
        (changed(positions=[[0, 0, 0], [np.nan, 0, 0]]), 3.0, {}, "`positions` of atom 1 are not finite"),
        (changed(positions=[[1, 1, 1], [1, 1, 1]]), 3.0, {}, "`positions` of atoms 0 and 1 are in one place"),
        (changed(positions=[[0, 1, 1], [4, 1, 1]]), 3.0, {}, "are in one place"),
        (changed(cell=[[4, 0, 0], [0, 4, 0], [4, 4, 0]]), 3.0, {}, "`cell` has zero volume"),
        (changed(cell=[[4, 0, 0], [0, np.inf, 0], [0, 0, 4]]), 3.0, {}, "`cell` has a value that is not finite"),
        (changed(cell=[4, 4, 0]), 3.0, {}, "`cell` has zero length along direction 2"),
        (PLAIN, 0.0, {}, "`cutoffs` of atom 0 is 0 A, must be above 0 A"),
        (PLAIN, [3.0, np.nan], {}, "`cutoffs` of atom 1 is nan"),
        (PLAIN, [3.0, np.inf], {}, "`cutoffs` of atom 1 is inf"),
        (PLAIN, [3.0, 0.5], {"rmin0": 0.6}, "must be above 0.6 A"),
        (PLAIN, [3.0], {}, "`cutoffs` must be one number or have shape"),
        (PLAIN, 3.0, {"rfac0": 1.5}, "`rfac0` must be above 0 and at most 1"),
        (PLAIN, 3.0, {"rmin0": -1.0}, "`rmin0` must be finite and >= 0"),
        (PLAIN, 3.0, {"twojmax": 15}, "`twojmax` must be 0 .. 14"),
        (PLAIN, 3.0, {"cutoff_rule": "center"}, "`cutoff_rule` must be 'centre' or 'pair'"),
    ],
)
def test_bad_input_is_named(atoms: Atoms, cutoffs: Any, options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        snap_descriptors(atoms, cutoffs, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_need_values_and_the_right_shape(kind: str) -> None:
    made = descriptor(kind)
    with pytest.raises(ValueError, match="needs a call"):
        made.gradients(np.zeros((0, made.n_features)))
    made.values(batch_of(random_structures(1, seed=1)))
    with pytest.raises(ValueError, match="`beta` must have shape"):
        made.gradients(np.zeros((1, 3)))


def test_powers_change_large_features_only() -> None:
    x, cell, cutoffs = structure_of(8, seed=3)
    plain, root = (features(kind, x, cell, cutoffs) for kind in ("snap pair", "snap pair root"))
    assert_close(root, plain / (1.0 + plain**2) ** (0.5 * (1.0 - ROOT)), SNAP)
    large = np.abs(plain) > 100.0
    assert large.sum() > 30
    assert_close(root[large], np.sign(plain[large]) * np.abs(plain[large]) ** ROOT, 1e-4 * np.abs(plain[large]) ** ROOT)


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`descriptor.kind` must be one of snap, ace"):
        descriptor("soap centre")


@pytest.mark.lammps
def test_the_benchmark_runs(tmp_path: Path) -> None:
    from benchmark_tools import BENCHMARKS, run_script

    words = ("--neighbors", "12", "--candidates", "3", "--repeats", "1")
    run_script(str(BENCHMARKS / "snap.py"), *words, "--json", str(tmp_path / "snap.json"))
    rows = json.loads((tmp_path / "snap.json").read_text())["results"]
    assert [row["task"] for row in rows] == ["value", "value and adjoint"] * 2
    assert all(row["ratio"] > 0.0 and row["us_per_atom"] > 0.0 for row in rows)
