"""Named tolerances, each with its reason, and the comparison that every test uses."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

# Double precision against the reference implementation and between implementations of this project.
ENERGY_PER_ATOM = 1e-10  # eV; leaving out the 1e-10 A^2 of the bond length already costs 0.6 to 3e-10
# The reference implementation loses digits in its envelope just inside the cutoff, and the norms of two-layer models
# amplify that for a lone pair of atoms: 7e-11 eV and 3.3e-10 eV/A are seen there, elsewhere 1e-13.
FORCE = 1e-9  # eV/A, plus FORCE_RELATIVE
FORCE_RELATIVE = 1e-11
VIRIAL = 1e-8  # eV
ATOMIC_ENERGY = 5e-10  # eV of one atom: the reference's envelope cancels near the rim, 1.5e-10 is seen; sums do better
STRESS = 1e-10  # eV/A^3: the virial of the small cells of the fixtures over their volume
STAGE_RELATIVE = 1e-12  # one stage against the NumPy oracle, relative to the largest entry

# Central differences: truncation falls as h^2, rounding grows as 1/h.
STEP = 2e-5  # A; balances the two for energies of order 10 eV that change over 0.1 A
STRAIN_STEP = 1e-5  # dimensionless; an atom at the rim moves by 6 A times as much
DIFFERENCE_FORCE = 3e-7  # eV/A; errors up to 2.2e-8 were measured, a tenth of the allowance
DIFFERENCE_VIRIAL = 1e-5  # eV
DIFFERENCE_RELATIVE = 1e-7
DIFFERENCE_FOURTH_ORDER = 1e-8  # relative, five-point formula; up to 2.4e-10 was measured

# Exact symmetries in double precision.
INVARIANCE_ENERGY = 1e-11  # eV per atom
INVARIANCE_FORCE = 1e-10  # eV/A
HARMONICS = 1e-13  # of order one to ten
COUPLING = 1e-13  # coupling coefficients, of order one; rounding of a few factorials and square roots

# Neighbour vectors of atoms a few cells away: sums of a few lattice vectors.
NEIGHBOR_VECTOR = 1e-10  # A

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


# LAMMPS runs.
RANKS = 1e-10  # eV, eV/A: other ranks, lists and message routes only change the order of sums; up to 1e-12 is seen
TRAJECTORY = 1e-9  # the same after 25 steps of a hot melt, which amplify it
MIXED_ENERGY_PER_ATOM = 1e-5  # eV, float network against double
MIXED_FORCE_RELATIVE = 1e-4  # of the largest force
DRIFT = 1e-5  # eV per atom and ps
ENERGY_FLUCTUATION = 2e-3  # eV per atom: 1 fs steps in a melt
PRINTED = 1e-7  # relative: thermo prints eight digits

# The C++ evaluator in double precision against itself: other threads, chunks, instruction sets, selections and lists
# only change the order of sums.
SUMMATION = 1e-12  # eV, eV/A
TABLE_ENERGY = 1e-10  # eV per atom, radial tables against the networks; up to 9e-12 is seen
TABLE_FORCE = 5e-9  # eV/A; up to 1e-9 is seen: the slope of the tables is right to 5e-10 of its largest value
TABLE_VIRIAL = 2e-8  # eV; up to 4e-9 is seen
TABLE_REPORT = 2e-9  # relative errors that a table may report of itself
DIFFERENCE_TABLE = 1e-8  # eV/A, and relative, five-point formula with STEP_FIVE: up to 5e-9 of truncation
STEP_FIVE = 3e-4  # A
STAGE_RELATIVE_FLOAT = 1e-5  # one stage in single precision, relative to the largest entry
STRAIN_FIVE = 2e-4  # dimensionless step of the five-point formula
DIFFERENCE_STRESS = 1e-9  # eV/A^3, five-point formula
LOCAL_STRESS = 1e-8  # eV, virials of single atoms from five-point differences of single bonds
RIM_ENERGY = 5e-9  # eV: change of an atomic energy within 1e-3 A of the cutoff, cubic in depth; up to 1e-9 is seen
NVE_FLUCTUATION = 3e-4  # eV per atom, rms, 1 fs steps at 2000 K; 8e-5 is seen
NVE_DRIFT_SHORT = 3e-4  # eV per atom and ps over 0.5 ps: two standard errors at a fluctuation of 8e-5; 1.6e-4 is seen
NVE_MOMENTUM = 1e-9  # amu A / (ASE time), of 60 atoms after 500 steps

# Operators of the training layer against einsum, relative to the largest entry.
OPERATOR_RELATIVE = 1e-12  # sums of up to a few hundred products in another order; 1e-15 is seen
OPERATOR_RELATIVE_FLOAT = 2e-6  # the same in single precision; up to 3e-7 is seen

# Models in torch.
TORCH_FORCE = 1e-10  # eV/A, both backends and the core: other orders of sums
TORCH_GRADIENT = 1e-10  # gradients of losses by weights, relative to the largest of a weight; up to 1e-11 is seen
TORCH_GRADIENT_DIFFERENCE = 1e-7  # the same against five-point differences along the tangent; up to 9e-9 is seen
TORCH_GRADIENT_FLOAT = 3e-4  # the same in single precision, norm of the error over the norm; up to 3e-5 is seen

# Entropy-maximised structures.
ENTROPY_ALGEBRA = 1e-8  # ln det against covariances formed anew, and gradients, relative; up to 1e-10 is seen
ENTROPY_RIDGE = 1e-6  # ln det at condition numbers of 1e8 to 1e10; 6e-8 is seen
ENTROPY_MERGE = 1e-12  # statistics merged in another order, relative to the largest entry
ENTROPY_DIFFERENCE = 1e-6  # relative to the largest derivative: central differences with ENTROPY_STEP; 1e-8 is seen
ENTROPY_STEP = 1e-5  # A, and of features in units of their spread
CORE_RELATIVE = 1e-12  # repulsion of cores against a sum over explicit images
REDUCED_CELL = 1e-9  # A: lengths of vectors of a lattice in another basis
REPEATED_SEARCH = 1e-12  # A, relative: the same search in the same company
CHANCE = 1e-3  # p values of tests of random laws with fixed seeds: below it, the law is wrong
# Sums over the same structures in another order, relative to the standard deviations of the features. Features of up to
# 1e3 have standard deviations of order one to ten, so that rounding is at 1e-13; cells are read and summed up again.
SMAX_MERGED = 1e-9
# Bispectrum components and power spectra, of order 1 to 1000.
SNAP = 1e-10  # against LAMMPS and the formulas in NumPy; up to 1e-12 is seen
SNAP_GRADIENT = 1e-11  # relative to the largest, against LAMMPS
SNAP_STEP = 1e-5  # A, and dimensionless: central differences
SNAP_DIFFERENCE = 1e-6  # relative to the largest; up to 3e-9 is seen
SNAP_INVARIANCE = 1e-12  # relative to the largest: rotations, images, order of the sums
SUPERCELL = 1e-12  # the same
