"""The generator of coupling tables, and the test models made with it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from grace_md import couplings as coupling_tables
from grace_md.reference import real_spherical_harmonics
from tolerances import COUPLING

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import check_coupling_tables  # noqa: E402
import generate_test_models  # noqa: E402

LMAX = 4


def couplings(parity: int) -> list[tuple[int, int, int]]:
    degrees = range(LMAX + 1)
    return [
        (a, b, c)
        for a in degrees
        for b in degrees
        for c in degrees
        if abs(a - b) <= c <= a + b and (a + b + c) % 2 == parity
    ]


def test_even_couplings_turn_two_harmonics_into_one() -> None:
    """Two harmonics of one direction give Y_LM: docs/theory.md over |c|, whose sign is (-1)^((l1+l2-L)/2)."""
    directions = np.random.default_rng(5).normal(size=(20, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    harmonics = real_spherical_harmonics(directions, LMAX)[0]
    part = {degree: harmonics[:, degree**2 : (degree + 1) ** 2] for degree in range(LMAX + 1)}
    for a, b, c in couplings(parity=0):
        found = np.einsum("sx,sy,xyz->sz", part[a], part[b], coupling_tables.real_coupling(a, b, c))
        assert np.all(np.abs(found - part[c]) <= COUPLING), (a, b, c)


def test_odd_couplings_are_antisymmetric_and_keep_their_norm() -> None:
    assert len(couplings(parity=1)) > 20
    for a, b, c in couplings(parity=1):
        tensor = coupling_tables.real_coupling(a, b, c)
        assert abs((tensor**2).sum() - (2 * c + 1)) <= COUPLING, (a, b, c)
        if a == b:
            assert np.all(np.abs(tensor + tensor.transpose(1, 0, 2)) <= COUPLING), (a, b, c)


def test_sizes_of_published_models() -> None:
    """AA of lmax 4: 141 rows, 623 terms; YI: 62 rows, 165 terms (message lmax 1), 190 and 877 (3)."""
    basis = coupling_tables.harmonics(4)
    table, tensor = coupling_tables.couple(basis, basis, generate_test_models.natural(4))
    assert (tensor.n_rows, len(tensor.groups), table.row.size) == (141, 27, 623)
    for message_lmax, sizes in ((1, (62, 165)), (3, (190, 877))):
        message = coupling_tables.harmonics(message_lmax)
        table, tensor = coupling_tables.couple(basis, message, generate_test_models.both_parities(3))
        assert (tensor.n_rows, table.row.size) == sizes


@pytest.mark.parametrize("name", generate_test_models.models())
def test_models_are_those_of_the_generator(name: str) -> None:
    expected = generate_test_models.models()[name]
    with np.load(ROOT / "tests" / "data" / "models" / name) as archive:
        assert set(archive.files) == set(expected)
        for key, array in expected.items():
            stored = archive[key]
            assert (stored.dtype, stored.shape) == (array.dtype, array.shape), key
            if array.dtype.kind == "f":
                assert np.all(np.abs(stored - array) <= COUPLING), key
            else:
                assert np.array_equal(stored, array), key


def test_tables_of_a_trained_model_follow_the_rule() -> None:
    path = ROOT / "python" / "grace_md" / "data" / "lava9_1l.npz"
    with np.load(path) as archive:
        differences = check_coupling_tables.check_file({key: archive[key] for key in archive.files})
    assert set(differences) == {"AA", "AAA", "AAAA"}
    for product, difference in differences.items():
        assert difference <= COUPLING, product


def test_a_wrong_coefficient_is_found() -> None:
    arrays = dict(generate_test_models.models()["tiny_1l.npz"])
    arrays["prod_AA_cg_coeff"] = arrays["prod_AA_cg_coeff"].copy()
    arrays["prod_AA_cg_coeff"][7] += 0.01
    assert check_coupling_tables.check_file(arrays)["AA"] > COUPLING
