"""Named tolerances, each with its reason, and the comparison that every test uses."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

# Double precision against the reference implementation and between implementations of this project.
ENERGY_PER_ATOM = 1e-10  # eV; leaving out the 1e-10 A^2 of the bond length already costs 0.6 to 3e-10
FORCE = 1e-9  # eV/A, plus FORCE_RELATIVE; the envelope cancels near the rim of the cutoff: 1.3e-10 is seen there
FORCE_RELATIVE = 1e-11
VIRIAL = 1e-8  # eV
STRESS = 1e-10  # eV/A^3: the virial of the small cells of the fixtures over their volume
STAGE_RELATIVE = 1e-12  # one stage against the NumPy oracle, relative to the largest entry

# Central differences: truncation falls as h^2, rounding grows as 1/h.
STEP = 1e-4  # A; near the best step of a model with energies of order 10 eV
STRAIN_STEP = 2e-5  # dimensionless; an atom at the rim moves by 6 A times as much
DIFFERENCE_FORCE = 1e-6  # eV/A: measured up to 3e-8 on the models of the tests
DIFFERENCE_VIRIAL = 1e-5  # eV
DIFFERENCE_RELATIVE = 1e-6

# Exact symmetries in double precision.
INVARIANCE_ENERGY = 1e-11  # eV per atom
INVARIANCE_FORCE = 1e-10  # eV/A
HARMONICS = 1e-13  # of order one to ten

# Files.
EXTXYZ_DIGITS = 1e-7  # eV, A, eV/A^3: extended XYZ files have 8 decimals per atom


def assert_close(actual: ArrayLike, expected: ArrayLike, atol: float, rtol: float = 0.0, what: str = "") -> None:
    """Fail unless |actual - expected| <= atol + rtol |expected| everywhere, with equal shapes and without NaN."""
    actual, expected = np.asarray(actual, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape} instead of {expected.shape}"
    with np.errstate(invalid="ignore"):  # inf - inf: the comparison below fails, as it should
        error = np.abs(actual - expected)
        allowed = atol + rtol * np.abs(expected)
        good = error <= allowed  # false for NaN
    if not np.all(good):
        worst = np.unravel_index(np.argmax(np.where(good, -1.0, np.nan_to_num(error, nan=np.inf))), error.shape)
        raise AssertionError(
            f"{what}: {np.count_nonzero(~good)} of {good.size} values differ; worst at {tuple(map(int, worst))}: "
            f"{actual[worst]!r} instead of {expected[worst]!r}, error {error[worst]:.3e} > {allowed[worst]:.3e}"
        )
