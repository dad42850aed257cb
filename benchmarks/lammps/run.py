#!/usr/bin/env python3
"""Steps per second of the lava melt in LAMMPS, with the starter model, on 1 and 2 MPI ranks, or on a GPU.

    python benchmarks/lammps/run.py [--atoms 498 4983] [--ranks 1 2] [--precisions fp64 mixed] [--json FILE]
    python benchmarks/lammps/run.py --device cuda [--atoms 4983 100000] [--budget 120] [--json FILE]

Starts `lmp` on in.lava with one thread per rank and reads the loop time of the last run: the whole step, with pair
style, neighbour lists, communication and integration. All kinds of runs take turns in rounds; the median is over the
repeats while other processes used less than 0.15 cores, or over all where there was none (marked with *): two ranks
wait for each other, so that one busy neighbour costs both.

On a GPU (several ranks share it, or take the GPUs of the node in turn) kinds run from small to large until `--budget`
seconds are used. `--preset 1L-large` takes a model of published size with random weights; its atoms hardly move (time
step 1e-9 fs), so that lists are not made again.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import machine  # isort: skip - before numpy: sets the threads of its library

import argparse
import os
import re
import resource
import subprocess
import tempfile
import time
from typing import Any

import models
import numpy as np
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


# Guess of the time of a step: per step and per atom, seconds.
GUESS = {"cpu": (1e-5, 2e-5), "cuda": (1e-3, 1e-6), "emulated": (0.1, 3e-2)}


def guess(device: str, n_atoms: int, ranks: int) -> float:
    """Seconds that a step of the starter model may take."""
    per_step, per_atom = GUESS.get(device.partition(":")[0], GUESS["cuda"])
    return per_step + per_atom * n_atoms / ranks


def measure(folder: Path, model: Path, kind: tuple[int, str, int], options: argparse.Namespace) -> dict[str, Any]:
    """Run LAMMPS with (atoms, precision, ranks) for about `options.seconds` and return the parsed output."""
    n_atoms, precision, ranks = kind
    start = folder / f"start_{n_atoms}.data"
    if not start.exists():
        write_start(start, structures.lava(n_atoms), list(LAVA))
    steps = options.steps or max(20, round(options.seconds / guess(options.device, n_atoms, ranks)))
    variables = {"start": start, "model": model, "precision": precision, "warm": max(5, steps // 10), "steps": steps}
    variables["device"] = options.device.removeprefix("cuda:")
    if options.preset:
        variables |= {"relax": "no", "dt": 1e-6}
    words = [word for name, value in variables.items() for word in ("-var", name, str(value))]
    command = [*lammps_command(ranks), "-in", str(INPUT), "-log", "none", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with machine.Watch() as watch:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"LAMMPS ended with code {done.returncode}: {(done.stdout + done.stderr)[-1500:]}")
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


def parse() -> argparse.Namespace:
    """Return the options of the command line, with the defaults of the device."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu, or a GPU: cuda, cuda:N (emulated: to test this script)")
    parser.add_argument("--model", type=Path, default=None, help="weight file; default: the starter model")
    parser.add_argument("--preset", choices=list(models.PRESETS), help="a model of this size with random weights")
    parser.add_argument("--atoms", nargs="+", type=int, help="default: 498 4983; on a GPU 4983 100000")
    parser.add_argument("--ranks", nargs="+", type=int, help="default: 1 2; on a GPU 1")
    parser.add_argument("--precisions", nargs="+", choices=["fp64", "mixed", "fp32"], help="default: fp64 mixed")
    parser.add_argument("--seconds", type=float, default=5.0, help="rough length of one run")
    parser.add_argument("--steps", type=int, default=0, help="instead: steps of one run")
    parser.add_argument("--repeats", type=int, default=3, help="rounds; all kinds of runs take turns")
    parser.add_argument("--budget", type=float, help="seconds that all may take; default: no limit")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    on_cpu = options.device == "cpu"
    options.atoms = options.atoms or ([498, 4983] if on_cpu else [4983, 100_000])
    options.ranks = options.ranks or ([1, 2] if on_cpu else [1])
    options.precisions = options.precisions or (["fp64", "mixed"] if on_cpu else ["mixed", "fp64"])
    return options


def measure_all(
    options: argparse.Namespace, model: Path, folder: Path, budget: machine.Budget, report: dict[str, Any]
) -> machine.Errors:
    """Measure in rounds; the medians go to the report, which is written after every run. A kind fails only once."""
    kinds = [
        (n, precision, ranks) for n in options.atoms for precision in options.precisions for ranks in options.ranks
    ]
    errors = machine.Errors()
    report["errors"] = errors.found
    repeats: dict[tuple[int, str, int], list[dict[str, Any]]] = {kind: [] for kind in kinds}
    lasted: dict[tuple[int, str, int], float] = {}
    failed: set[tuple[int, str, int]] = set()
    for round_number in range(options.repeats):
        for kind in kinds:
            n_atoms, precision, ranks = kind
            what = f"round {round_number + 1} of {n_atoms} atoms, {precision}, {ranks} ranks"
            if kind in failed or not budget.allows(what, lasted.get(kind, 2.0 * options.seconds + 1e-4 * n_atoms)):
                continue
            began = time.monotonic()
            failed.add(kind)
            with errors.of(what):
                repeats[kind].append(measure(folder, model, kind, options))
                failed.remove(kind)
            lasted[kind] = time.monotonic() - began
            report["results"] = with_speed_up([median(runs) for runs in repeats.values() if runs])
            machine.write(options.json, report)
    return errors


def with_speed_up(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add the speed over that of the first number of ranks."""
    for row in rows:
        first = next(r for r in rows if (r["n_atoms"], r["precision"]) == (row["n_atoms"], row["precision"]))
        row["speed_up"] = row["steps_per_second"] / first["steps_per_second"]
    return rows


def main() -> int:
    """Print the table and write the file; 1 if a run failed."""
    options = parse()
    budget = machine.Budget(options.budget)
    with tempfile.TemporaryDirectory() as folder:
        path = (options.model or starter_model()).resolve()
        if options.preset:
            path = Path(folder) / f"{options.preset}.npz"
            np.savez(path, **models.build(options.preset))  # type: ignore[arg-type]
        model = GraceModel.load(path)
        head = machine.describe() if options.device == "cpu" else machine.describe_device(options.device)
        print("\n".join(f"{key}: {value}" for key, value in head.items()))
        print(f"model: {model.name}, sha256 {model.sha256}\n")
        name = STARTER if options.model is None and options.preset is None else path.name
        report: dict[str, Any] = {**head, "model": name, "sha256": model.sha256, "results": []}
        report["left_out"] = budget.left_out
        errors = measure_all(options, path, Path(folder), budget, report)
    print(
        f"{'atoms':>7s}{'ranks':>7s}{'precision':>11s}{'steps/s':>10s}{'us/atom':>10s}{'speed-up':>10s}{'quiet':>7s}"
        "  % of time"
    )
    for row in report["results"]:
        shares = ", ".join(f"{name} {share:.1f}" for name, share in row["percent"].items())
        print(
            f"{row['n_atoms']:7d}{row['ranks']:7d}{row['precision']:>11s}{row['steps_per_second']:10.2f}"
            f"{row['us_per_atom']:10.3g}{row['speed_up']:10.2f}{row['n_quiet']:5d}/{row['n_repeats']}"
            f"{' ' if row['n_quiet'] else '*'} {shares}"
        )
    budget.report()
    machine.write(options.json, report)  # what was left out after the last run
    return errors.status


if __name__ == "__main__":
    sys.exit(main())
