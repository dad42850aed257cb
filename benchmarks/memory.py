#!/usr/bin/env python3
"""Peak memory of one evaluation of 100,000 atoms, neighbour list with a skin of 0.5 A included.

    python benchmarks/memory.py [--model 1L-large] [--atoms 100000] [--precision fp64] [--json FILE]
    python benchmarks/memory.py --device cuda [--cases 1L-large:10000000 2L-large:2000000] [--budget 90] [--json FILE]

CPU: a child process makes a rattled bcc crystal (58 neighbours within 6 A) with the nine elements of the lava at random
places, evaluates energies, forces and virials twice through GraceCalculator and reports the largest resident memory
that the system saw (getrusage), Python, numpy and ASE included. The exit code is 1 above the target of 2 GB.

GPU: whether so many atoms fit on the card, and how many would. Each case evaluates a tenth of the atoms, then all of
them, once with a new list and once more; the memory that grows with the atoms is the difference. The exit code is 1
if a case does not fit.
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

from grace_md import GraceCalculator, GraceModel
from grace_md._core import Evaluator

TARGET_BYTES = 2e9
GPU_CASES = ["1L-large:10000000", "2L-large:2000000"]
GPU_SECONDS_PER_ATOM = 1.5e-5  # of all steps of a case and the making of its atoms, with a wide margin


def peak_bytes() -> int:
    """Return the largest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # kilobytes except on macOS


def measure(model: str, n_atoms: int, precision: str, threads: int) -> dict[str, float]:
    """Evaluate and return what it took."""
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
    edge = max(1, round((n_atoms / 2) ** (1 / 3)))
    axis = np.arange(edge)
    corners = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    sites = np.array([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]])
    positions = structures.LATTICE_CONSTANT * (corners[:, None, :] + sites).reshape(-1, 3)
    random = np.random.default_rng(1)
    positions += structures.RATTLE * random.normal(size=positions.shape)
    return {
        "positions": positions,
        "cells": np.eye(3)[None] * structures.LATTICE_CONSTANT * edge,
        "periodic": np.ones((1, 3), dtype=bool),
        "species": random.integers(len(model.elements), size=len(positions), dtype=np.int32),
        "first_atom": [0, len(positions)],
        "skin": 0.5,
    }


def measure_device(device: str, name: str, n_atoms: int, precision: str, chunksize: int) -> dict[str, Any]:
    """Evaluate a tenth of the atoms and all of them."""
    model = GraceModel(models.build(name), name)
    evaluator = Evaluator(model.spec, precision=precision, device=device, chunk=chunksize)
    found: dict[str, Any] = {"model": name, "precision": precision, "evaluator": evaluator.description}
    counts, used, step = [], [], 0.0
    for n in (max(2, n_atoms // 10), n_atoms):
        case = crystal(model, n)
        counts.append(len(case["species"]))
        try:
            evaluator.compute_structures(**case)
            began = time.perf_counter()
            raw = evaluator.compute_structures(**case)
            step = time.perf_counter() - began
        except ValueError as error:
            return {**found, "n_atoms": counts[-1], "fits": False, "reason": str(error)}
        if not np.isfinite(raw["forces"]).all():
            raise RuntimeError("The forces are not finite: the memory of such a run means nothing.")
        used.append(evaluator.workspace_bytes)
    return {
        **found,
        "n_atoms": counts[1],
        "fits": True,
        "bytes_device": used[1],
        "bytes_per_atom": (used[1] - used[0]) / max(1, counts[1] - counts[0]),
        "us_per_atom": 1e6 * step / counts[1],
    }


def on_device(options: argparse.Namespace) -> int:
    """Run the cases of a GPU."""
    head = machine.describe_device(options.device)
    print("\n".join(f"{key}: {value}" for key, value in head.items()))
    budget, rows = machine.Budget(options.budget), []
    total = head.get("card", {}).get("memory_bytes")
    for word in options.cases:
        name, _, n_atoms = word.partition(":")
        if name not in models.PRESETS or not n_atoms.isdigit():
            raise SystemExit(f"`--cases` holds MODEL:ATOMS with a model of {', '.join(models.PRESETS)}, got {word!r}")
        if not budget.allows(word, GPU_SECONDS_PER_ATOM * int(n_atoms)):
            continue
        row = measure_device(head["device"], name, int(n_atoms), options.precision or "mixed", options.chunksize)
        if not row["fits"]:
            print(f"{name}: {row['n_atoms']} atoms do NOT fit: {row['reason']}")
        else:
            fixed = row["bytes_device"] - row["bytes_per_atom"] * row["n_atoms"]
            most = ""
            if isinstance(total, int) and row["bytes_per_atom"] > 0:
                row["atoms_that_fit"] = int((0.95 * total - fixed) / row["bytes_per_atom"])
                most = f"; about {row['atoms_that_fit'] / 1e6:.1f} million atoms fit on this card"
            print(
                f"{name} {row['precision']}: {row['n_atoms']} atoms in {row['bytes_device'] / 1e9:.3g} GB, "
                f"{row['bytes_per_atom']:.0f} B for each, {row['us_per_atom']:.3f} us/atom{most}"
            )
        rows.append(row)
    budget.report()
    machine.write(options.json, {**head, "results": rows, "left_out": budget.left_out})
    return 0 if all(row["fits"] for row in rows) else 1


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
