#!/usr/bin/env python3
"""Time per atom and step of GRACE models on this processor, beside MACE in the same run.

    python benchmarks/evaluate.py --peer-python VENV_WITH_MACE/bin/python --json benchmarks/results/cpu.json

Prints for every model, precision and number of threads: microseconds per atom and step (energy, forces and virial; the
neighbour list with a skin of 0.5 A is reused, as in dynamics), GFLOP/s of the minimal algorithm (operations.py) and its
share of the roofline, which is the rate of large matrix products with as many threads, measured in every round.

All cases, the roofline and MACE take turns in rounds, so that a change of clock or load meets all of them. A repeat
counts as quiet if other processes used less than 0.15 cores; the median and the minimum are over the quiet repeats, or
over all where no repeat was quiet (marked with *).
"""

from __future__ import annotations

import machine  # isort: skip - before numpy: sets the threads of its library

import argparse
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import models
import numpy as np
import structures
from ase import Atoms
from operations import Operations, count

from grace_md import GraceCalculator, GraceModel
from grace_md._core import build_neighbors

DTYPE = {"fp64": "float64", "mixed": "float32", "fp32": "float32"}


@dataclass
class Series:
    """Repeats of one measurement: seconds per step, seconds of processor, and cores that others used."""

    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    others: list[float] = field(default_factory=list)

    def add(self, wall: float, processor: float, others: float) -> None:
        """Add one repeat."""
        self.wall.append(wall)
        self.processor.append(processor)
        self.others.append(others)

    def summary(self, n_atoms: int) -> dict[str, Any]:
        """Return median and minimum over the quiet repeats, in microseconds per atom."""
        quiet = np.array(self.others) < machine.QUIET
        chosen = quiet if quiet.any() else np.ones_like(quiet)
        wall, processor = (1e6 / n_atoms * np.array(values)[chosen] for values in (self.wall, self.processor))
        return {
            "us_per_atom_median": float(np.median(wall)),
            "us_per_atom_min": float(wall.min()),
            "cpu_us_per_atom_median": float(np.median(processor)),
            "n_repeats": len(quiet),
            "n_quiet": int(quiet.sum()),
        }


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
    series: Series = field(default_factory=Series)
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


class Peer:
    """MACE in a Python process of its own (mace_peer.py); times come from inside that process."""

    def __init__(self, python: str) -> None:
        script = Path(__file__).with_name("mace_peer.py")
        self._process = subprocess.Popen(
            [python, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.information = self._answer()
        self.series: dict[tuple[str, str, int], Series] = {}
        self.n_atoms: dict[str, int] = {}
        self.neighbors: dict[str, float] = {}

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"MACE did not answer; run {self._process.args} by hand to see why.")
        return dict(json.loads(line))

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send one request and return the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def add_system(self, name: str, atoms: Atoms) -> None:
        """Send a structure."""
        self.n_atoms[name] = len(atoms)
        self.ask(
            system=name,
            numbers=atoms.numbers.tolist(),
            positions=atoms.positions.tolist(),
            cell=atoms.cell.array.tolist(),
        )

    def measure(self, system: str, dtype: str, threads: int) -> None:
        """Add one repeat; the first one of a kind is a warm-up."""
        new = (system, dtype, threads) not in self.series
        series = self.series.setdefault((system, dtype, threads), Series())
        for _ in range(1 + new):
            with machine.Watch() as watch:
                answer = self.ask(system=system, dtype=dtype, threads=threads)
        if not np.isfinite(answer["energy"]):
            raise RuntimeError("The energy of MACE is not finite: these times mean nothing.")
        self.neighbors[system] = answer["n_edges"] / self.n_atoms[system]
        own = answer["processor"] + watch.processor
        busy = watch.others * watch.wall + watch.processor
        series.add(answer["wall"], answer["processor"], machine.others_share(busy, own, watch.wall))

    def rows(self) -> list[dict[str, Any]]:
        """Return the lines of the table."""
        return [
            {
                "code": "MACE",
                "model": "MACE-MP-0 medium sizes, random weights",
                "system": system,
                "n_atoms": self.n_atoms[system],
                "neighbors": self.neighbors[system],
                "precision": dtype,
                "threads": threads,
                **series.summary(self.n_atoms[system]),
            }
            for (system, dtype, threads), series in self.series.items()
        ]

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)


def load_models(options: argparse.Namespace) -> dict[str, GraceModel]:
    """Return the models to time: generated presets, or every readable file of a folder."""
    if options.models_from is None:
        return {name: GraceModel(models.build(name), name) for name in options.models}
    found = {}
    for path in sorted([*options.models_from.glob("*.npz"), *options.models_from.glob("*/model.npz")]):
        name = path.parent.name if path.name == "model.npz" else path.stem
        try:
            found[name] = GraceModel.load(path)
        except ValueError as error:
            print(f"{name} is left out: {error}")
    if not found:
        raise SystemExit(f"`--models-from` {options.models_from} holds neither *.npz nor */model.npz that can be read.")
    return found


def cases(options: argparse.Namespace) -> Iterator[Case]:
    """Every combination that the options ask for."""
    for name, model in load_models(options).items():
        element = "Fe" if "Fe" in model.elements else model.elements[0]
        systems = {"bcc": structures.bcc(options.bcc_atoms, element), "lava": structures.lava(options.lava_atoms)}
        for system in options.systems:
            atoms = systems[system]
            used = set(atoms.symbols)
            if not used <= set(model.elements):
                print(f"{name} does not know all elements of {system}: left out")
                continue
            neighbors = count_neighbors(model, atoms)
            for precision in options.precisions:
                operations = count(model.arrays, neighbors, len(used), 8 if precision == "fp64" else 4)
                for threads in options.threads:
                    calculator = GraceCalculator(model, precision=precision, threads=threads)
                    yield Case(
                        name,
                        system,
                        precision,
                        threads,
                        atoms.copy(),
                        calculator,
                        operations,
                        neighbors,
                        options.seconds,
                    )


def count_neighbors(model: GraceModel, atoms: Atoms) -> float:
    """Return the neighbours per atom within the pair cutoffs."""
    species = np.array([model.elements.index(symbol) for symbol in atoms.symbols], dtype=np.int32)
    pairs = build_neighbors(
        atoms.positions,
        species,
        atoms.cell.array[None],
        atoms.pbc[None],
        np.array([0, len(atoms)]),
        model.pair_cutoffs,
    )
    return pairs.n_pairs / len(atoms)


def start_peer(options: argparse.Namespace) -> Peer | None:
    """Start MACE, if there is one."""
    python = options.peer_python or (sys.executable if importlib.util.find_spec("mace") else None)
    if options.no_peer or python is None:
        print("MACE is left out; give `--peer-python PATH`, a Python with mace-torch and matscipy, to time it.")
        return None
    peer = Peer(python)
    for system in options.systems:
        make = structures.bcc if system == "bcc" else structures.lava
        peer.add_system(system, make(options.peer_atoms))
    versions = ", ".join(f"{name} {version}" for name, version in peer.information["versions"].items())
    print(f"peer: {versions}; {peer.information['n_parameters']} parameters, random weights")
    return peer


def print_counts(every: list[Case]) -> None:
    """Print the floor of every model and system: operations and bytes."""
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
        name = row["model"] if "gflops" in row else f"MACE ({row['n_atoms']} atoms)"
        print(
            f"{row['system']:7s}{name:18s}{row['precision']:>9s}{row['threads']:8d}{row['us_per_atom_median']:10.1f}"
            f"{row['us_per_atom_min']:9.1f}{row['n_quiet']:4d}/{row['n_repeats']}{mark}{rate}{ratio}"
        )


def add_ratios(rows: list[dict[str, Any]]) -> None:
    """Add the time of MACE over that of this code, medians, at equal system, threads and storage precision."""
    mace = {(r["system"], r["precision"], r["threads"]): r for r in rows if r["code"] == "MACE"}
    for row in rows:
        other = mace.get((row["system"], DTYPE.get(row["precision"], ""), row["threads"]))
        if row["code"] == "grace_md" and other is not None:
            row["mace_ratio"] = other["us_per_atom_median"] / row["us_per_atom_median"]


def parse() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(models.PRESETS), default=list(models.PRESETS))
    parser.add_argument("--models-from", type=Path, metavar="DIR", help="time the weight files of this folder instead")
    parser.add_argument("--systems", nargs="+", choices=["bcc", "lava"], default=["bcc", "lava"])
    parser.add_argument("--bcc-atoms", type=int, default=432)
    parser.add_argument("--lava-atoms", type=int, default=500)
    parser.add_argument("--precisions", nargs="+", choices=list(DTYPE), default=["fp64", "mixed"])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--repeats", type=int, default=5, help="rounds")
    parser.add_argument("--seconds", type=float, default=0.25, help="length of one repeat (at least one step)")
    parser.add_argument("--peer-python", metavar="PATH", help="a Python with mace-torch and matscipy")
    parser.add_argument("--peer-atoms", type=int, default=128, help="atoms of the peer's cells: small ones favour it")
    parser.add_argument("--peer-repeats", type=int, default=3, help="rounds in which MACE takes part")
    parser.add_argument("--no-peer", action="store_true", help="without MACE")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results to FILE")
    return parser.parse_args()


def main() -> None:
    """Measure in rounds, print the table, write the file."""
    options = parse()
    head = machine.describe()
    print("\n".join(f"{key}: {value}" for key, value in head.items()))
    every = list(cases(options))
    print_counts(every)
    peer = start_peer(options)
    dtypes = sorted({DTYPE[precision] for precision in options.precisions})
    peer_cases = [(system, dtype, n) for system in options.systems for dtype in dtypes for n in options.threads]
    peak = dict.fromkeys(((dtype, n) for dtype in dtypes for n in options.threads), 0.0)
    for repeat in range(options.repeats):
        for key in peak:
            peak[key] = max(peak[key], machine.peak_gflops(*key))
        for case in every:
            case.measure()
        if peer is not None and repeat < options.peer_repeats:
            for key in peer_cases:
                peer.measure(*key)
        print(f"round {repeat + 1} of {options.repeats} done", flush=True)
    rows = [case.row(peak) for case in every]
    if peer is not None:
        rows += peer.rows()
        peer.close()
    add_ratios(rows)
    print_table(rows, peak)
    if options.json:
        report = {
            **head,
            "load_average_end": machine.describe()["load_average"],
            "options": {key: value.name if isinstance(value, Path) else value for key, value in vars(options).items()},
            "roofline_gflops": {f"{dtype} x {n}": rate for (dtype, n), rate in peak.items()},
            "peer": peer.information if peer else None,
            "results": rows,
        }
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
