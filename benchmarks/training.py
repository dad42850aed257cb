#!/usr/bin/env python3
"""Time and memory of one training step: forward, forces, stress and the gradient of their loss to all weights.

    python benchmarks/training.py --json benchmarks/results/cpu_training.json
    python benchmarks/training.py --models 1L-large --backends core --structures 8 --precisions fp32
    python benchmarks/training.py --device cuda --models 1L-large 2L-medium --structures 64 --precisions fp32

Backend "core" (operators of the C++ core, no graph through the geometry) beside "torch" (plain torch, automatic
differentiation from positions) for the architecture of the shipped model and for published presets with random weights.
Neighbour lists and the numbers of bonds that no weight enters are made once, as in training with cached lists. Each
case runs in a process of its own, for its peak memory; cases take turns in rounds. On a GPU, where the operators of the
core are plain formulas, memory is what torch allocated, and a step ends when the device has done it.

On the CPU, for backend "core", a second table shows every operator as it is called in one step: time, GFLOP/s, bytes
that must be moved, and the share of its floor, which is the larger of operations / rate of large matrix products and
bytes / rate of a copy that does not fit the caches, both measured in the same process.
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

import numpy as np
import structures
from training_operators import OperatorTimes

STARTER = {"preset": "1L-small", "lmax": 3, "n_rad": 16, "width": 24, "n_densities": 8, "embedding": 32}
MODELS = ["starter", "1L-small", "1L-large", "2L-medium"]
ATOMS = 54  # per structure, 3^3 cubic cells of bcc
COPY_BYTES = 128 << 20


def copy_rate() -> float:
    """Bytes read and written per second by one thread that copies more than the caches hold."""
    source, target = np.ones((2, COPY_BYTES // 8))
    best = np.inf
    for _ in range(5):
        start = time.perf_counter()
        np.copyto(target, source)
        best = min(best, time.perf_counter() - start)
    return 2.0 * COPY_BYTES / best


def peak_bytes(device: str) -> int:
    """Largest memory so far: resident memory of this process, or what torch has allocated on a GPU."""
    if device != "cpu":
        import torch  # noqa: PLC0415 - children only

        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Step:
    """One model and batch, and the training step on them."""

    def __init__(self, options: argparse.Namespace) -> None:
        import torch  # noqa: PLC0415 - children only
        from models import ELEMENTS  # noqa: PLC0415

        from grace_md.torch import GracePotential, batch_from_atoms  # noqa: PLC0415

        torch.set_num_threads(options.threads)
        self.torch = torch
        dtype = {"fp32": torch.float32, "fp64": torch.float64}[options.precision]
        self.model = GracePotential.from_preset(
            STARTER if options.model == "starter" else options.model,
            elements=ELEMENTS,
            cutoffs=6.0,
            dtype=dtype,
            average_neighbors=58.0,
        )
        self.model.backend = options.backend
        atoms = structures.many_elements(ATOMS)
        cells = [atoms.copy() for _ in range(options.structures)]
        for k, cell in enumerate(cells):
            cell.rattle(structures.RATTLE, seed=k)
        self.batch = batch_from_atoms(cells, self.model.elements, self.model.pair_cutoffs).to(options.device)
        self.model.to(options.device)
        self.on_gpu = options.device != "cpu"
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]

    def __call__(self) -> None:
        torch = self.torch
        out = self.model(self.batch, forces=True, stress=True, create_graph=True)
        per_atom = out.energy / ATOMS
        loss = (per_atom * per_atom).mean() + (out.forces**2).mean() + (out.stress**2).mean()
        torch.autograd.grad(loss, self.parameters, allow_unused=True)
        if self.on_gpu:
            torch.cuda.synchronize()


def child(options: argparse.Namespace) -> None:
    """Serve one case: a repeat for every line on the standard input, a JSON line for each; at the end its summary."""
    step = Step(options)
    device = options.device
    before = peak_bytes(device)
    step()
    n_atoms = step.batch.n_atoms
    found = {
        "n_atoms": n_atoms,
        "n_bonds": step.batch.n_bonds,
        "peak_bytes_of_steps": peak_bytes(device) - before,
    }
    found["peak_bytes"] = peak_bytes(device)
    print(json.dumps(found), flush=True)
    for line in sys.stdin:
        if line.strip() == "operators":
            rates = (
                1e9 * machine.peak_gflops(DTYPE[options.precision], options.threads),
                copy_rate() * options.threads,
            )
            with OperatorTimes() as times:
                step()
                times.start()
                for _ in range(options.repeats):
                    step()
            print(json.dumps(times.rows(n_atoms, options.repeats, *rates)), flush=True)
            continue
        with machine.Watch() as watch:
            step()
        print(json.dumps([watch.wall, watch.processor, watch.others]), flush=True)


DTYPE = {"fp32": "float32", "fp64": "float64"}


class Case:
    """A child process and the repeats that it has measured."""

    def __init__(self, options: argparse.Namespace, **case: Any) -> None:
        shared = ("device", "structures", "threads", "repeats")
        arguments = {**{name: getattr(options, name) for name in shared}, **case}
        command = [sys.executable, __file__, "--child"]
        for key, value in arguments.items():
            command += [f"--{key}", str(value)]
        self.case, self.series = case, machine.Series()
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.sizes = self._read()

    def _read(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process of {self.case} ended early")
        return json.loads(line)

    def ask(self, what: str = "") -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        return self._read()

    def repeat(self) -> None:
        self.series.add(*self.ask())

    def row(self) -> dict[str, Any]:
        return {**self.case, **self.sizes, **self.series.summary(self.sizes["n_atoms"])}

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def compare(rows: dict[str, dict[str, Any]]) -> None:
    """Add how much slower and larger plain torch is."""
    core, torch = rows["core"], rows["torch"]
    core["torch_over_core_time"] = torch["us_per_atom_median"] / core["us_per_atom_median"]
    core["torch_over_core_memory"] = torch["peak_bytes_of_steps"] / max(core["peak_bytes_of_steps"], 1)


def print_results(rows: list[dict[str, Any]]) -> None:
    print(
        f"{'model':11s}{'precision':>10s}{'backend':>9s}{'us/atom':>10s}{'min':>9s}{'cpu':>9s}{'MB':>8s}{'kB/atom':>9s}"
    )
    for row in rows:
        mark = " " if row["n_quiet"] else "*"
        print(
            f"{row['model']:11s}{row['precision']:>10s}{row['backend']:>9s}{row['us_per_atom_median']:10.1f}"
            f"{row['us_per_atom_min']:9.1f}{row['cpu_us_per_atom_median']:9.1f}{row['peak_bytes'] / 1e6:8.0f}"
            f"{row['peak_bytes_of_steps'] / row['n_atoms'] / 1e3:9.1f}{mark}"
            + (f"  torch/core {row['torch_over_core_time']:.1f}" if "torch_over_core_time" in row else "")
        )


def print_operators(case: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    print(f"\n{case['model']} {case['precision']}: operators of one step")
    print(f"{'operator':34s}{'calls':>6s}{'us/atom':>9s}{'GFLOP/s':>9s}{'GB/s':>7s}{'floor':>8s}{'share':>7s}")
    for row in rows:
        print(
            f"{row['operator']:34s}{row['calls']:6.0f}{row['us_per_atom']:9.2f}{row['gflops']:9.1f}{row['gbytes']:7.1f}"
            f"{row['floor_us_per_atom']:8.2f}{100 * row['share_of_floor']:6.0f}%"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--backends", nargs="+", default=["core", "torch"], choices=["core", "torch"])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "fp64"], choices=["fp32", "fp64"])
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--structures", type=int, default=6, help=f"of {ATOMS} atoms each in a batch")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path)
    for name in ("child", "model", "backend", "precision"):
        parser.add_argument(
            f"--{name}", help=argparse.SUPPRESS, **({"action": "store_true"} if name == "child" else {})
        )
    options = parser.parse_args()
    if options.child:
        child(options)
        return
    report: dict[str, Any] = {"machine": machine.describe(), "options": machine.words(options), "results": []}
    report["operators"] = []
    for model in options.models:
        for precision in options.precisions:
            cases = [Case(options, model=model, precision=precision, backend=name) for name in options.backends]
            for _ in range(options.repeats):
                for case in cases:
                    case.repeat()
            rows = [case.row() for case in cases]
            if {row["backend"] for row in rows} == {"core", "torch"}:
                compare({row["backend"]: row for row in rows})
            report["results"] += rows
            print_results(rows)
            for case in cases:
                if case.case["backend"] == "core" and options.device == "cpu":
                    operators = case.ask("operators")
                    print_operators(case.case, operators)
                    report["operators"].append({**case.case, "rows": operators})
                case.close()
            machine.write(options.json, report)


if __name__ == "__main__":
    main()
