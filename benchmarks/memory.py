#!/usr/bin/env python3
"""Peak memory of one evaluation of 100,000 atoms, neighbour list with a skin of 0.5 A included.

    python benchmarks/memory.py [--model 1L-large] [--atoms 100000] [--precision fp64] [--json FILE]

A child process makes a rattled bcc crystal (58 neighbours within 6 A) with the nine elements of the lava at random
places, evaluates energies, forces and virials twice through GraceCalculator and reports the largest resident memory
that the system saw (getrusage), Python, numpy and ASE included. The exit code is 1 above the target of 2 GB.
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

import models
import numpy as np
import structures

from grace_md import GraceCalculator, GraceModel
from grace_md.workflows.composition import LAVA, scale_composition

TARGET_BYTES = 2e9


def peak_bytes() -> int:
    """Return the largest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # kilobytes except on macOS


def measure(model: str, n_atoms: int, precision: str, threads: int) -> dict[str, float]:
    """Evaluate and return what it took."""
    atoms = structures.bcc(n_atoms)
    composition = scale_composition(LAVA, len(atoms))
    symbols = np.repeat(list(composition), list(composition.values()))
    atoms.symbols = np.random.default_rng(0).permutation(symbols)
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


def main() -> int:
    """Run the measurement in a child and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=list(models.PRESETS), default="1L-large")
    parser.add_argument("--atoms", type=int, default=100_000)
    parser.add_argument("--precision", choices=["fp64", "mixed", "fp32"], default="fp64")
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options.model, options.atoms, options.precision, options.threads)))
        return 0
    command = [sys.executable, *sys.argv, "--child"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    good = result["bytes_peak"] < TARGET_BYTES
    print(
        f"{options.model} {options.precision}, {result['n_atoms']} atoms: peak {result['bytes_peak'] / 1e6:.0f} MB "
        f"({result['bytes_before'] / 1e6:.0f} MB before, {result['bytes_per_atom']:.0f} B per atom), "
        f"{'below' if good else 'ABOVE'} the target of {TARGET_BYTES / 1e9:.0f} GB"
    )
    if options.json:
        report = {**machine.describe(), "model": options.model, "precision": options.precision, **result}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
