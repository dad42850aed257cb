#!/usr/bin/env python3
"""Steps per second of the lava melt in LAMMPS, with the starter model, on 1 and 2 MPI ranks.

    python benchmarks/lammps/run.py [--atoms 498 4983] [--ranks 1 2] [--precisions fp64 mixed] [--json FILE]

Starts `lmp` on in.lava with one thread per rank and reads the loop time of the last run: the whole step, with pair
style, neighbour lists, communication and integration. All kinds of runs take turns in rounds; the median is over the
repeats while other processes used less than 0.15 cores, or over all where there was none (marked with *): two ranks
wait for each other, so that one busy neighbour costs both.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import machine  # isort: skip - before numpy: sets the threads of its library

import argparse
import json
import os
import re
import resource
import subprocess
import tempfile
from typing import Any

import structures

from grace_md import GraceModel
from grace_md.workflows.composition import LAVA
from grace_md.workflows.quench_input import write_start
from grace_md.workflows.run_lammps import lammps_command

INPUT = Path(__file__).with_name("in.lava")
STARTER = "lava9_1l.npz"
# "Loop time of 3.2 on 1 procs for 100 steps with 498 atoms" and "Pair    | 3.1 | 3.1 | 3.1 |   0.0 | 98.00"
LOOP = re.compile(r"Loop time of ([\d.eE+-]+) on (\d+) procs for (\d+) steps with (\d+) atoms")
SHARE = re.compile(r"^(Pair|Neigh|Comm|Modify|Other)\s*\|.*\|\s*([\d.]+)\s*$", re.MULTILINE)


def parse_output(text: str) -> dict[str, Any]:
    """Return time and shares of the last run in the output of LAMMPS; ValueError if there is none."""
    loops = list(LOOP.finditer(text))
    if not loops:
        raise ValueError(f"LAMMPS printed no loop time; its last words: {text[-800:]}")
    seconds, ranks, steps, n_atoms = loops[-1].groups()
    return {
        "n_atoms": int(n_atoms),
        "ranks": int(ranks),
        "steps_per_second": int(steps) / float(seconds),
        "us_per_atom": 1e6 * float(seconds) / int(steps) / int(n_atoms),
        "percent": {name: float(share) for name, share in SHARE.findall(text[loops[-1].start() :])},
    }


def starter_model() -> Path:
    """Return the weight file that comes with the package."""
    import grace_md.data  # noqa: PLC0415 - only its folder is wanted

    return Path(grace_md.data.__file__).with_name(STARTER)


def measure(folder: Path, model: Path, n_atoms: int, ranks: int, precision: str, budget: float) -> dict[str, Any]:
    """Run LAMMPS for about `budget` seconds and return the parsed output."""
    start = folder / f"start_{n_atoms}.data"
    if not start.exists():
        write_start(start, structures.lava(n_atoms), list(LAVA))
    guess = 20e-6 * n_atoms / ranks  # seconds per step of the starter model
    steps = max(20, round(budget / guess))
    variables = {"start": start, "model": model, "precision": precision, "warm": max(5, steps // 10), "steps": steps}
    words = [word for name, value in variables.items() for word in ("-var", name, str(value))]
    command = [*lammps_command(ranks), "-in", str(INPUT), "-log", "none", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with machine.Watch() as watch:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"LAMMPS ended with code {done.returncode}: {(done.stdout + done.stderr)[-1500:]}")
    lammps = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    others = machine.others_share(watch.others * watch.wall, lammps, watch.wall)
    return {"precision": precision, "steps": steps, "others": others, **parse_output(done.stdout)}


def median(repeats: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the repeat of median speed among the quiet ones (all, if none was quiet)."""
    quiet = [repeat for repeat in repeats if repeat["others"] < machine.QUIET]
    ordered = sorted(quiet or repeats, key=lambda repeat: repeat["steps_per_second"])
    chosen = ordered[len(ordered) // 2]
    best = ordered[-1]["steps_per_second"]
    return {**chosen, "best_steps_per_second": best, "n_repeats": len(repeats), "n_quiet": len(quiet)}


def main() -> None:
    """Print the table and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=None, help="weight file; default: the starter model")
    parser.add_argument("--atoms", nargs="+", type=int, default=[498, 4983])
    parser.add_argument("--ranks", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--precisions", nargs="+", choices=["fp64", "mixed", "fp32"], default=["fp64", "mixed"])
    parser.add_argument("--seconds", type=float, default=5.0, help="rough length of one run")
    parser.add_argument("--repeats", type=int, default=3, help="rounds; all kinds of runs take turns")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    path = (options.model or starter_model()).resolve()
    model = GraceModel.load(path)
    head = machine.describe()
    print("\n".join(f"{key}: {value}" for key, value in head.items()))
    print(f"model: {model.name}, sha256 {model.sha256}\n")
    print(
        f"{'atoms':>7s}{'ranks':>7s}{'precision':>11s}{'steps/s':>10s}{'us/atom':>10s}{'speed-up':>10s}{'quiet':>7s}"
        "  % of time"
    )
    kinds = [
        (n, precision, ranks) for n in options.atoms for precision in options.precisions for ranks in options.ranks
    ]
    repeats: dict[tuple[int, str, int], list[dict[str, Any]]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.repeats):
            for n_atoms, precision, ranks in kinds:
                run = measure(Path(folder), path, n_atoms, ranks, precision, options.seconds)
                repeats[n_atoms, precision, ranks].append(run)
    rows = [median(repeats[kind]) for kind in kinds]
    for row in rows:
        first = next(r for r in rows if (r["n_atoms"], r["precision"]) == (row["n_atoms"], row["precision"]))
        row["speed_up"] = row["steps_per_second"] / first["steps_per_second"]
        shares = ", ".join(f"{name} {share:.1f}" for name, share in row["percent"].items())
        print(
            f"{row['n_atoms']:7d}{row['ranks']:7d}{row['precision']:>11s}{row['steps_per_second']:10.2f}"
            f"{row['us_per_atom']:10.1f}{row['speed_up']:10.2f}{row['n_quiet']:5d}/{row['n_repeats']}"
            f"{' ' if row['n_quiet'] else '*'} {shares}"
        )
    if options.json:
        report = {**head, "model": STARTER if options.model is None else path.name, "sha256": model.sha256}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({**report, "results": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
