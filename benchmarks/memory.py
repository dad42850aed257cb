#!/usr/bin/env python3
"""Peak memory of one evaluation of 100,000 atoms, neighbour list with a skin of 0.5 A included.

    python benchmarks/memory.py [--model 1L-large] [--atoms 100000] [--precision fp64] [--json FILE]
    python benchmarks/memory.py --device cuda [--cases 1L-large:10000000 2L-large:2000000] [--budget 90] [--json FILE]

CPU: a child process makes a rattled bcc crystal (58 neighbours within 6 A) with the nine elements of the lava at random
places, evaluates energies, forces and virials twice through GraceCalculator and reports the largest resident memory
that the system saw (getrusage), Python, numpy and ASE included. The exit code is 1 above the target of 2 GB.

GPU: whether so many atoms fit on the card, and how many would. Each case evaluates a tenth of the atoms, then all of
them, once with a new list and once more; the memory that grows with the atoms is the difference. What the card refuses
is a result, not an error: "fits" is false, and "reason" says by how much. The exit code is 1 if a case fails otherwise.
This part does not need ASE.
"""

from __future__ import annotations

import machine  # isort: skip - before numpy: sets the threads of its library

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import models
import numpy as np
import structures

from grace_md import GraceModel
from grace_md._core import Evaluator

TARGET_BYTES = 2e9
GPU_CASES = ["1L-large:10000000", "2L-large:2000000"]
GPU_SECONDS_PER_ATOM = 1e-5  # of the tenth of a case, a guess; it tells how long all atoms take
REFUSED = "out of GPU memory"  # so begins the sentence about what does not fit


def peak_bytes() -> int:
    """Return the largest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # kilobytes except on macOS


def measure(model: str, n_atoms: int, precision: str, threads: int) -> dict[str, float]:
    """Evaluate and return what it took."""
    from grace_md import GraceCalculator  # noqa: PLC0415 - needs ASE

    atoms = structures.many_elements(n_atoms)
    calculator = GraceCalculator(GraceModel(models.build(model), model), precision=precision, threads=threads)
    before, began = peak_bytes(), time.perf_counter()
    for _ in range(2):
        calculator.calculate(atoms, ["energy", "forces"], ["positions"])
        atoms.positions += structures.STEP
    if not np.isfinite(calculator.results["forces"]).all():
        raise RuntimeError("The forces are not finite: the memory of such a run means nothing.")
    return {
        "n_atoms": len(atoms),
        "bytes_before": before,
        "bytes_peak": peak_bytes(),
        "bytes_per_atom": (peak_bytes() - before) / len(atoms),
        "seconds": time.perf_counter() - began,
    }


def crystal(model: GraceModel, n_atoms: int) -> dict[str, Any]:
    """Arguments of compute_structures for a bcc crystal of all elements, without the objects of ASE."""
    positions, edge = structures.sites(n_atoms)
    random = np.random.default_rng(1)
    positions += structures.RATTLE * random.normal(size=positions.shape)
    return {
        "positions": positions,
        "cells": np.eye(3)[None] * edge,
        "periodic": np.ones((1, 3), dtype=bool),
        "species": random.integers(len(model.elements), size=len(positions), dtype=np.int32),
        "first_atom": [0, len(positions)],
        "skin": 0.5,
    }


def two_steps(evaluator: Evaluator, case: dict[str, Any]) -> dict[str, Any]:
    """Evaluate with a new list and once more, and return times and memory."""
    n, times = len(case["species"]), []
    for _ in range(2):
        began = time.perf_counter()
        raw = evaluator.compute_structures(**case)
        times.append(time.perf_counter() - began)
    if not np.isfinite(raw["forces"]).all():
        raise RuntimeError("The forces are not finite: the memory of such a run means nothing.")
    return {
        "n_atoms": n,
        "us_per_atom_with_list": 1e6 * times[0] / n,
        "us_per_atom": 1e6 * times[1] / n,
        "bytes_device": evaluator.workspace_bytes,
    }


def measure_device(row: dict[str, Any], device: str, chunksize: int, budget: machine.Budget) -> None:
    """Evaluate a tenth of the atoms of a case and all of them; `fits` stays None where the time is up before."""
    name, n_atoms, per_atom = row["model"], row["n_atoms"], GPU_SECONDS_PER_ATOM
    model = GraceModel(models.build(name), name)
    try:
        evaluator = Evaluator(model.spec, precision=row["precision"], device=device, chunk=chunksize)
        row["evaluator"] = evaluator.description
        for n in (max(2, n_atoms // 10), n_atoms):
            if not budget.allows(f"{name}:{n}", per_atom * n):
                return
            began = time.perf_counter()
            row["sizes"].append(two_steps(evaluator, crystal(model, n)))
            per_atom = (time.perf_counter() - began) / n
    except ValueError as error:
        if not str(error).startswith(REFUSED):
            raise
        row.update(fits=False, reason=str(error))
        return
    tenth, every = row["sizes"]
    grown = every["bytes_device"] - tenth["bytes_device"]
    row.update(every, fits=True, bytes_per_atom=grown / max(1, every["n_atoms"] - tenth["n_atoms"]))


def print_device(row: dict[str, Any], total: int | None) -> None:
    """Print a case, and add to it how many atoms would fit into `total` bytes."""
    name = f"{row['model']} {row['precision']}"
    for size in row["sizes"]:
        print(
            f"{name}: {size['n_atoms']} atoms in {size['bytes_device'] / 1e9:.3g} GB, {size['us_per_atom']:.3f} us/atom"
            f", {size['us_per_atom_with_list']:.3f} with a new list"
        )
    if row["fits"] is False:
        print(f"{name}: {row['n_atoms']} atoms do NOT fit: {row['reason']}")
    elif row["fits"]:
        most = ""
        if isinstance(total, int) and row["bytes_per_atom"] > 0:
            fixed = row["bytes_device"] - row["bytes_per_atom"] * row["n_atoms"]
            row["atoms_that_fit"] = int((0.95 * total - fixed) / row["bytes_per_atom"])
            most = f"; about {row['atoms_that_fit'] / 1e6:.1f} million atoms fit on this card"
        print(f"{name}: {row['bytes_per_atom']:.0f} B for each atom{most}", flush=True)


def on_device(options: argparse.Namespace) -> int:
    """Run the cases of a GPU."""
    for word in options.cases:
        name, _, n_atoms = word.partition(":")
        if name not in models.PRESETS or not n_atoms.isdigit():
            raise SystemExit(f"`--cases` holds MODEL:ATOMS with a model of {', '.join(models.PRESETS)}, got {word!r}")
    head = machine.describe_device(options.device)
    print("\n".join(f"{key}: {value}" for key, value in head.items()))
    budget, errors = machine.Budget(options.budget), machine.Errors()
    report: dict[str, Any] = {**head, "results": [], "errors": errors.found, "left_out": budget.left_out}
    for word in options.cases:
        name, _, n_atoms = word.partition(":")
        row = {
            "model": name,
            "precision": options.precision or "mixed",
            "n_atoms": int(n_atoms),
            "fits": None,
            "sizes": [],
        }
        report["results"].append(row)
        with errors.of(word):
            measure_device(row, head["device"], options.chunksize, budget)
        print_device(row, head.get("card", {}).get("memory_bytes"))
        machine.write(options.json, report)
    budget.report()
    return errors.status


def main() -> int:
    """Run the measurement and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu, or a GPU: cuda, cuda:N (emulated: to test this script)")
    parser.add_argument("--model", choices=list(models.PRESETS), default="1L-large")
    parser.add_argument("--atoms", type=int, default=100_000)
    parser.add_argument("--precision", choices=["fp64", "mixed", "fp32"], help="default: fp64; on a GPU mixed")
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    parser.add_argument("--cases", nargs="+", metavar="MODEL:ATOMS", default=GPU_CASES, help="on a GPU")
    parser.add_argument("--chunksize", type=int, default=0, help="on a GPU: atoms that share the work space")
    parser.add_argument("--budget", type=float, help="on a GPU: seconds that all cases may take")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.device != "cpu":
        return on_device(options)
    precision = options.precision or "fp64"
    if options.child:
        print(json.dumps(measure(options.model, options.atoms, precision, options.threads)))
        return 0
    command = [sys.executable, *sys.argv, "--child"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    good = result["bytes_peak"] < TARGET_BYTES
    print(
        f"{options.model} {precision}, {result['n_atoms']} atoms: peak {result['bytes_peak'] / 1e6:.0f} MB "
        f"({result['bytes_before'] / 1e6:.0f} MB before, {result['bytes_per_atom']:.0f} B per atom), "
        f"{'below' if good else 'ABOVE'} the target of {TARGET_BYTES / 1e9:.0f} GB"
    )
    machine.write(options.json, {**machine.describe(), "model": options.model, "precision": precision, **result})
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
