"""Time of neighbour lists per atom, beside matscipy, vesin and ASE in the same run.

    python benchmarks/neighbors.py [--threads 1] [--repeats 5] [--json FILE]

`grace_md core` makes what the calculator uses, compressed rows with packed images; `grace_md python` returns i, j, S
and the vectors; the other codes return i, j, S. All lists are full and directed. vesin has one cutoff for all pairs: it
lists at the largest one and is not filtered afterwards. The least wall and processor times of the repeats are printed;
the ratio compares processor times, which other work on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--threads", type=int, default=1, help="threads of this code (the others have no such option)")
parser.add_argument("--repeats", type=int, default=5)
parser.add_argument("--largest", type=int, default=200_000, help="leave out systems with more atoms")
parser.add_argument("--json", type=Path, help="write the results to this file")
arguments = parser.parse_args()
os.environ.setdefault("OMP_NUM_THREADS", str(arguments.threads))

import ase.neighborlist  # noqa: E402
import numpy as np  # noqa: E402
from ase import Atoms  # noqa: E402
from ase.build import bulk  # noqa: E402

from grace_md import _core  # noqa: E402
from grace_md.neighbors import neighbor_list  # noqa: E402

LAVA = {"O": 0.61, "Si": 0.18, "Al": 0.06, "Fe": 0.04, "Mg": 0.04, "Ca": 0.03, "Na": 0.02, "K": 0.01, "Ti": 0.01}
LAVA_RADII = dict(zip(LAVA, np.linspace(5.0, 7.0, len(LAVA)), strict=True))  # element cutoffs, A; pairs take the mean


def crystal(n_cells: int) -> tuple[Atoms, dict[tuple[str, str], float]]:
    """Return shuffled, rattled bcc tungsten with 58 neighbours within 6 A."""
    atoms = bulk("W", "bcc", a=3.2, cubic=True) * (n_cells, n_cells, n_cells)
    atoms.rattle(0.1, seed=1)
    return atoms[np.random.default_rng(0).permutation(len(atoms))], {("W", "W"): 6.0}


def lava(n_atoms: int) -> tuple[Atoms, dict[tuple[str, str], float]]:
    """Return a random 9-element oxide at 0.075 atoms per cubic Angstrom."""
    rng = np.random.default_rng(0)
    edge = (n_atoms / 0.075) ** (1.0 / 3.0)
    atoms = Atoms(rng.choice(list(LAVA), n_atoms, p=list(LAVA.values())), rng.random((n_atoms, 3)) * edge)
    atoms.set_cell(np.eye(3) * edge)
    atoms.pbc = True
    names = list(LAVA)
    return atoms, {(a, b): 0.5 * (LAVA_RADII[a] + LAVA_RADII[b]) for k, a in enumerate(names) for b in names[k:]}


def thin_cell() -> tuple[Atoms, dict[tuple[str, str], float]]:
    """Return the 9-element oxide in a cell with an edge of 5.2 A, shorter than the cutoffs."""
    atoms, cutoffs = lava(203)
    edges = np.array([5.2, 20.4, 25.5])
    atoms.set_cell(np.diag(edges), scale_atoms=True)
    return atoms, cutoffs


def core_call(atoms: Atoms, cutoffs: dict[tuple[str, str], float]) -> Callable[[], int]:
    """Return the call that the calculator makes: packed compressed rows."""
    names = sorted(set(atoms.symbols))
    matrix = np.array([[cutoffs.get((a, b), cutoffs.get((b, a))) for b in names] for a in names])
    species = np.array([names.index(s) for s in atoms.symbols], dtype=np.int32)
    cell, pbc, first = atoms.cell[:][None], atoms.pbc[None], np.array([0, len(atoms)])
    positions = atoms.positions
    return lambda: _core.build_neighbors(positions, species, cell, pbc, first, matrix, 0.0, arguments.threads).n_pairs


def codes(atoms: Atoms, cutoffs: dict[tuple[str, str], float]) -> dict[str, Callable[[], int]]:
    """Name -> function that makes the list and returns the number of pairs."""
    calls = {
        "grace_md core": core_call(atoms, cutoffs),
        "grace_md python": lambda: len(neighbor_list(atoms, cutoffs, n_threads=arguments.threads)),
    }
    try:
        import vesin  # noqa: PLC0415 - optional

        search = vesin.NeighborList(cutoff=max(cutoffs.values()), full_list=True)
        calls["vesin"] = lambda: len(
            search.compute(points=atoms.positions, box=atoms.cell[:], periodic=True, quantities="ijS")[0]
        )
    except ImportError:
        print("vesin is not installed, left out")
    try:
        from matscipy.neighbours import neighbour_list  # noqa: PLC0415 - optional

        calls["matscipy"] = lambda: len(neighbour_list("ijS", atoms, cutoffs)[0])
    except ImportError:
        print("matscipy is not installed, left out")
    if len(atoms) <= 10_000:
        calls["ase"] = lambda: len(ase.neighborlist.neighbor_list("ijS", atoms, cutoffs)[0])
    return calls


def best_time(call: Callable[[], int], repeats: int) -> tuple[int, float, float]:
    """Return the number of pairs, and the least wall and processor time of the repeats in seconds."""
    n_pairs, best_wall, best_processor = call(), np.inf, np.inf
    for _ in range(repeats):
        wall, processor = time.perf_counter(), time.process_time()
        call()
        best_wall = min(best_wall, time.perf_counter() - wall)
        best_processor = min(best_processor, time.process_time() - processor)
    return n_pairs, best_wall, best_processor


def main() -> None:
    """Print the table and write the JSON file."""
    systems = {
        "bcc 1k": crystal(8),
        "bcc 10k": crystal(17),
        "bcc 100k": crystal(37),
        "lava 5k": lava(4983),
        "lava thin cell": thin_cell(),
    }
    results: list[dict[str, Any]] = []
    print(
        f"{'system':16s}{'code':18s}{'atoms':>8s}{'pairs/atom':>12s}{'us/atom':>10s}{'CPU us/atom':>13s}{'ratio':>8s}"
    )
    for name, (atoms, cutoffs) in systems.items():
        if len(atoms) > arguments.largest:
            continue
        own = None
        for code, call in codes(atoms, cutoffs).items():
            repeats = 1 if code == "ase" else arguments.repeats
            n_pairs, wall, processor = best_time(call, repeats)
            per_atom = 1e6 / len(atoms)
            own = own or processor
            print(
                f"{name:16s}{code:18s}{len(atoms):8d}{n_pairs / len(atoms):12.1f}{wall * per_atom:10.2f}"
                f"{processor * per_atom:13.2f}{processor / own:8.1f}"
            )
            results.append(
                {
                    "system": name,
                    "code": code,
                    "n_atoms": len(atoms),
                    "pairs_per_atom": n_pairs / len(atoms),
                    "us_per_atom": wall * per_atom,
                    "cpu_us_per_atom": processor * per_atom,
                }
            )
    if arguments.json:
        report = {
            "machine": platform.processor() or platform.machine(),
            "threads": arguments.threads,
            "results": results,
        }
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
