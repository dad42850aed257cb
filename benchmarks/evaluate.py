#!/usr/bin/env python3
"""Time per atom and step of GRACE models on a processor or a GPU, beside MACE in the same run.

    python benchmarks/evaluate.py --peer-python VENV_WITH_MACE/bin/python --json benchmarks/results/cpu.json
    python benchmarks/evaluate.py --device cuda --budget 200 --json benchmarks/results/gpu.json

The second form is evaluate_device.py; what follows is about the first.

Prints for every model, precision and number of threads: microseconds per atom and step (energy, forces and virial; the
neighbour list with a skin of 0.5 A is reused, as in dynamics), GFLOP/s of the minimal algorithm (operations.py) and its
share of the roofline, which is the rate of large matrix products with as many threads, measured in every round.

All cases, the roofline and MACE take turns in rounds, so that a change of clock or load meets all of them. A repeat
counts as quiet if other processes used less than 0.15 cores; the median and the minimum are over the quiet repeats, or
over all where no repeat was quiet (marked with *). A case that fails is left out of later rounds and written under
"errors"; the file is written after every round, and the exit code is 1 at the end if there were any.
"""

from __future__ import annotations

import machine  # isort: skip - before numpy: sets the threads of its library

import argparse
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import evaluate_device
import models
import numpy as np
import structures
from ase import Atoms
from operations import Operations, count
from peer import DTYPE, add_ratios, start_peer

from grace_md import GraceCalculator


@dataclass
class Case:
    """One model on one system with one precision and number of threads."""

    model: str
    system: str
    precision: str
    threads: int
    atoms: Atoms
    calculator: GraceCalculator
    operations: Operations
    neighbors: float
    seconds: float  # of one repeat
    series: machine.Series = field(default_factory=machine.Series)
    n_steps: int = 1

    def __post_init__(self) -> None:
        self.positions = structures.steps(self.atoms)
        self._step(0)  # makes the evaluator and the neighbour list
        with machine.Watch() as watch:
            self._step(1)
        self.n_steps = max(1, round(self.seconds / watch.wall))

    def _step(self, index: int) -> None:
        self.atoms.positions = self.positions[index % len(self.positions)]
        self.calculator.calculate(self.atoms, ["energy", "forces"], ["positions"])

    def measure(self) -> None:
        """Add one repeat."""
        with machine.Watch() as watch:
            for index in range(self.n_steps):
                self._step(index)
        self.series.add(watch.wall / self.n_steps, watch.processor / self.n_steps, watch.others)
        if not np.isfinite(self.calculator.results["energy"]):
            raise RuntimeError(f"The energy of {self.model} on {self.system} is not finite: these times mean nothing.")

    def row(self, peak: dict[tuple[str, int], float]) -> dict[str, Any]:
        """Return the line of the table."""
        result = self.series.summary(len(self.atoms))
        gflops = self.operations.step / result["us_per_atom_median"] * 1e-3
        return {
            "code": "grace_md",
            "model": self.model,
            "system": self.system,
            "n_atoms": len(self.atoms),
            "neighbors": self.neighbors,
            "precision": self.precision,
            "threads": self.threads,
            **result,
            "gflops": gflops,
            "roofline_share": gflops / peak[DTYPE[self.precision], self.threads],
            "operations": self.operations.as_dict(),
            "evaluator": self.calculator.description,
        }


def cases(options: argparse.Namespace, errors: machine.Errors) -> list[Case]:
    """Every combination that the options ask for."""
    every = []
    for name, model in models.load(options.models, options.models_from).items():
        element = "Fe" if "Fe" in model.elements else model.elements[0]
        systems = {"bcc": structures.bcc(options.bcc_atoms, element), "lava": structures.lava(options.lava_atoms)}
        for system in options.systems:
            atoms = systems[system]
            used = set(atoms.symbols)
            if not used <= set(model.elements):
                print(f"{name} does not know all elements of {system}: left out")
                continue
            neighbors = structures.count_neighbors(model, atoms)
            for precision in options.precisions:
                operations = count(model.arrays, neighbors, len(used), 8 if precision == "fp64" else 4)
                for threads in options.threads:
                    what = (name, system, precision, threads)
                    with errors.of(words_of(*what)):
                        calculator = GraceCalculator(model, precision=precision, threads=threads)
                        every.append(Case(*what, atoms.copy(), calculator, operations, neighbors, options.seconds))
    return every


def words_of(name: str, system: str, precision: str, threads: int) -> str:
    """What a case is called in messages."""
    return f"{name} {system} {precision} {threads} threads"


def print_counts(every: list[Case]) -> None:
    """Print the floor of every model and system: operations and bytes."""
    if not every:
        return
    print("\nfloor per atom and step: MFLOP forward (mixes, products, bonds) and in all; kB of memory; MB of weights")
    print(
        f"{'model':18s}{'system':8s}{'neighbors':>10s}{'mixes':>8s}{'products':>10s}{'bonds':>8s}{'step':>8s}{'kB':>8s}"
        f"{'MB':>8s}"
    )
    for case in every:
        if case.precision == every[0].precision and case.threads == every[0].threads:
            o = case.operations
            print(
                f"{case.model:18s}{case.system:8s}{case.neighbors:10.1f}{o.mixing / 1e6:8.2f}{o.products / 1e6:10.2f}"
                f"{o.bonds / 1e6:8.2f}{o.step / 1e6:8.2f}{o.bytes_memory / 1e3:8.2f}{o.bytes_weights / 1e6:8.2f}"
            )


def print_table(rows: list[dict[str, Any]], peak: dict[tuple[str, int], float]) -> None:
    """Print the times; the last column is MACE over this code at equal threads and storage precision."""
    rates = ", ".join(f"{dtype} x {n}: {rate:.1f}" for (dtype, n), rate in sorted(peak.items()))
    print(f"\nroofline, GFLOP/s of matrix products of size {machine.GEMM_SIZE} (dtype x threads): {rates}\n")
    print(
        f"{'system':7s}{'model':18s}{'precision':>9s}{'threads':>8s}{'us/atom':>10s}{'min':>9s}{'quiet':>7s}"
        f"{'GFLOP/s':>9s}{'share':>7s}{'MACE/this':>11s}"
    )
    for row in rows:
        mark = " " if row["n_quiet"] else "*"
        rate = f"{row['gflops']:9.1f}{100 * row['roofline_share']:6.0f}%" if "gflops" in row else f"{'':16s}"
        ratio = f"{row['mace_ratio']:11.0f}" if "mace_ratio" in row else ""
        name = row["model"] if "gflops" in row else f"{row['code']} ({row['n_atoms']} atoms)"
        print(
            f"{row['system']:7s}{name:18s}{row['precision']:>9s}{row['threads']:8d}{row['us_per_atom_median']:10.1f}"
            f"{row['us_per_atom_min']:9.1f}{row['n_quiet']:4d}/{row['n_repeats']}{mark}{rate}{ratio}"
        )


def parse() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu, or a GPU: cuda, cuda:N (emulated: to test this script)")
    parser.add_argument("--models", nargs="+", choices=list(models.PRESETS), help="default: all; on a GPU four of them")
    parser.add_argument("--models-from", type=Path, metavar="DIR", help="time the weight files of this folder instead")
    parser.add_argument("--systems", nargs="+", choices=["bcc", "lava"], default=["bcc", "lava"])
    parser.add_argument("--bcc-atoms", type=int, default=432)
    parser.add_argument("--lava-atoms", type=int, default=500)
    parser.add_argument("--precisions", nargs="+", choices=list(DTYPE), help="default: fp64 mixed; on a GPU mixed fp64")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--repeats", type=int, default=5, help="rounds")
    parser.add_argument("--seconds", type=float, default=0.25, help="length of one repeat (at least one step)")
    parser.add_argument("--peer-python", metavar="PATH", help="a Python with mace-torch and matscipy")
    parser.add_argument(
        "--peer-atoms", type=int, help="of its cells; default 128 (small ones favour it), on a GPU 4000"
    )
    parser.add_argument("--peer-repeats", type=int, default=3, help="rounds in which MACE takes part")
    parser.add_argument("--no-peer", action="store_true", help="without MACE")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results to FILE")
    evaluate_device.add_options(parser)
    return parser.parse_args()


def measure_round(every: list[Case], errors: machine.Errors) -> list[Case]:
    """Add a repeat to every case and return those that did not fail."""
    good = []
    for case in every:
        with errors.of(words_of(case.model, case.system, case.precision, case.threads)):
            case.measure()
            good.append(case)
    return good


def main() -> int:
    """Measure in rounds, print the table, write the file; 1 if a case failed."""
    options = parse()
    if options.device != "cpu":
        return evaluate_device.run(options)
    options.models = options.models or list(models.PRESETS)
    options.precisions = options.precisions or ["fp64", "mixed"]
    head, errors = machine.describe(), machine.Errors()
    print("\n".join(f"{key}: {value}" for key, value in head.items()))
    every = cases(options, errors)
    print_counts(every)
    peer = None
    with errors.of("MACE"):
        peer = start_peer(options, options.peer_atoms or 128)
    dtypes = sorted({DTYPE[precision] for precision in options.precisions})
    peer_cases = [(system, dtype, n) for system in options.systems for dtype in dtypes for n in options.threads]
    peak = dict.fromkeys(((dtype, n) for dtype in dtypes for n in options.threads), 0.0)
    rows: list[dict[str, Any]] = []
    for repeat in range(options.repeats):
        for key in peak:
            peak[key] = max(peak[key], machine.peak_gflops(*key))
        every = measure_round(every, errors)
        if peer is not None and repeat < options.peer_repeats:
            with errors.of("MACE"):
                for peer_case in peer_cases:
                    peer.measure(*peer_case)
        rows = [case.row(peak) for case in every] + (peer.rows() if peer is not None else [])
        add_ratios(rows)
        machine.write(
            options.json,
            {
                **head,
                "load_average_end": machine.describe()["load_average"],
                "options": machine.words(options),
                "roofline_gflops": {f"{dtype} x {n}": rate for (dtype, n), rate in peak.items()},
                "peer": peer.information if peer else None,
                "results": rows,
                "errors": errors.found,
            },
        )
        print(f"round {repeat + 1} of {options.repeats} done", flush=True)
    if peer is not None:
        peer.close()
    print_table(rows, peak)
    return errors.status


if __name__ == "__main__":
    sys.exit(main())
