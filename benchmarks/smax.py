#!/usr/bin/env python3
"""Entropy-maximised structures per second and core, where the time goes, and how much entropy is gained.

    python benchmarks/smax.py --json benchmarks/results/cpu_smax.json
    python benchmarks/smax.py --preset single:Sn --candidates 64 --workers 1 --accepted 50
    python benchmarks/smax.py --device cuda --batches 32 128 512 --workers 1 8 16       # descriptors on a GPU

Three measurements:

search  batches of candidates in this process after a seed phase, decisions included: candidates and accepted structures
        per second of processor time, and the shares of the descriptor kernel (values and gradients), of the update
        algebra of ln det, and of all else (drawing, cores, optimiser, checks, decisions).
run     `grace_md.smax.generate` to a folder, with 1 and more workers: what comes out per second of wall time and per
        second of processor time of the workers, and what commits to the disk cost.
gain    ln det of a seed phase and so many accepted structures of one element (preset single), and of equally many
        random ones with relaxed cores; acceptance after the seed phase.

Acceptance falls while a set grows, until `statistics.restart_after`. Searches are timed right after the seed phase,
where it is highest; for runs, the second half of the accepted structures is given on its own, and the extrapolation to
the 916,388 structures of the paper multiplies the processor time per accepted structure of that half. Take three times
`restart_after` structures or more, so that it stands for what follows; without restarts it is a lower bound.
"""

from __future__ import annotations

import machine  # isort: skip - before numpy: sets the threads of its library

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the kernel: figures are per core

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from grace_md.smax import objective
from grace_md.smax.acceptance import commit, decide
from grace_md.smax.config import SmaxConfig
from grace_md.smax.descriptors import make_descriptor
from grace_md.smax.generation import generate
from grace_md.smax.presets import preset
from grace_md.smax.run_settings import RunSettings
from grace_md.smax.search import Found, search
from grace_md.smax.state import load_state
from grace_md.smax.statistics import EntropyState

PAPER_STRUCTURES = 916_388
TARGET = 3.0  # accepted structures per second and core


class Parts:
    """Processor time by part of the search."""

    def __init__(self) -> None:
        self.seconds = {"kernel": 0.0, "algebra": 0.0}

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            begin = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[part] += time.process_time() - begin

        return call

    def descriptor(self, config: SmaxConfig, device: str) -> Any:
        made = make_descriptor(config.descriptor, device)
        return type(
            "Timed",
            (),
            {
                "n_features": made.n_features,
                "values": staticmethod(self.timed("kernel", made.values)),
                "gradients": staticmethod(self.timed("kernel", made.gradients)),
            },
        )()


def seeded(config: SmaxConfig, batch: int, device: str) -> tuple[EntropyState, int]:
    """Statistics at the end of a seed phase, and the first candidate after it."""
    state, used = EntropyState.empty(make_descriptor(config.descriptor).n_features), 0
    while state.seeding:
        for found in search(config, None, range(used, used + batch), device=device):
            used += 1
            if state.seeding and decide(state, found, config).accepted:
                commit(state, found, config)
    return state, used


def take(state: EntropyState, results: list[Found], config: SmaxConfig) -> int:
    """Decide on candidates; return how many were accepted."""
    accepted = 0
    for found in results:
        if decide(state, found, config).accepted:
            commit(state, found, config)
            accepted += 1
    return accepted


def measure_search(config: SmaxConfig, candidates: int, batch: int, device: str) -> dict[str, Any]:
    parts = Parts()
    state, first = seeded(config, batch, device)
    kept, objective.entropy_gain = objective.entropy_gain, parts.timed("algebra", objective.entropy_gain)
    descriptor = parts.descriptor(config, device)
    results: list[Found] = []
    accepted = 0
    try:
        with machine.Watch() as watch:
            for begin in range(first, first + candidates, batch):
                indices = range(begin, begin + batch)
                found = search(config, state.snapshot(config.statistics), indices, descriptor=descriptor)
                accepted += take(state, found, config)
                results += found
    finally:
        objective.entropy_gain = kept
    atoms = np.array([len(found.candidate) for found in results])
    evaluations = np.array([found.evaluations for found in results])
    kernel, algebra = (parts.seconds[part] / watch.processor for part in ("kernel", "algebra"))
    return {
        "batch": batch,
        "candidates": len(results),
        "accepted": accepted,
        "acceptance": accepted / len(results),
        "mean_atoms": float(atoms.mean()),
        "evaluations_per_candidate": float(evaluations.mean()),
        "seconds_per_candidate": watch.processor / len(results),
        "us_per_atom_and_evaluation": 1e6 * parts.seconds["kernel"] / float(atoms @ evaluations),
        "accepted_per_core_second": accepted / watch.processor,
        "share_kernel": kernel,
        "share_algebra": algebra,
        "share_other": 1.0 - kernel - algebra,
        "failed_checks": dict(Counter(found.reason for found in results if found.reason is not None)),
        "wall_seconds": watch.wall,
        "others": watch.others,
    }


def second_half(log: Path) -> dict[str, float]:
    """Acceptance and accepted structures per second of processor time, over the second half of a run."""
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    last = lines[-1]
    start = {"step": 0, "decided": 0, "core_seconds": 0.0}
    first = [start, *(line for line in lines if line["step"] <= last["step"] / 2)][-1]
    accepted = last["step"] - first["step"]
    return {
        "late_acceptance": accepted / (last["decided"] - first["decided"]),
        "late_accepted_per_core_second": accepted / (last["core_seconds"] - first["core_seconds"]),
    }


def measure_run(config: SmaxConfig, accepted: int, workers: int, batch: int, device: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="grace_md_smax_") as folder:
        begin = time.perf_counter()
        run = RunSettings(batch=batch, device=device)
        generate(config, Path(folder) / "run", accepted, run=run, workers=workers, say=lambda _: None)
        wall = time.perf_counter() - begin
        state, _ = load_state(Path(folder) / "run")
        stored = sum(card.bytes for card in state.cards)
        late = second_half(Path(folder) / "run" / "metrics.jsonl")
    return {
        "workers": workers,
        "batch": batch,
        "accepted": state.accepted,
        "seeded": state.seeded,
        "acceptance": state.accepted / state.decided,
        "evaluations_per_candidate": state.evaluations / state.decided,
        "log_det": state.whole().log_det("atom"),
        "wall_seconds": wall,
        "core_seconds": state.core_seconds,
        "commit_seconds": state.commit_seconds,
        "accepted_per_second": state.accepted / wall,
        "accepted_per_core_second": state.accepted / state.core_seconds,
        "maximised_per_core_second": (state.accepted - state.seeded) / state.core_seconds,
        "bytes_per_structure": stored / state.accepted,
        **late,
    }


def measure_gain(config: SmaxConfig, accepted: int, batch: int, device: str) -> dict[str, Any]:
    entropy, used = seeded(config, batch, device)
    seed, tried, kept = entropy.config.count, 0, 0
    while kept < accepted:
        found = search(config, entropy.snapshot(config.statistics), range(used, used + batch), device=device)
        used += batch
        for item in found:
            tried += kept < accepted
            if kept < accepted and decide(entropy, item, config).accepted:
                commit(entropy, item, config)
                kept += 1
    random = EntropyState.empty(entropy.atom.n_features)
    index = 0
    while random.config.count < seed + accepted:
        for item in search(config, None, range(index, index + batch), device=device):
            if item.reason is None and random.config.count < seed + accepted:
                random.add(item.features)
        index += batch
    return {
        "seed_structures": seed,
        "accepted": accepted,
        "entropy_log_det": entropy.atom.log_det(),
        "random_log_det": random.atom.log_det(),
        "gain": entropy.atom.log_det() - random.atom.log_det(),
        "entropy_dimension": entropy.atom.effective_dimension(),
        "random_dimension": random.atom.effective_dimension(),
        "acceptance": accepted / tried,
    }


def print_report(report: dict[str, Any]) -> None:
    for row in report["search"]:
        mark = " " if row["others"] < machine.QUIET else "*"
        print(
            f"search  batch {row['batch']:3d}: {row['accepted_per_core_second']:.2f} accepted/s/core{mark}, acceptance "
            f"{100 * row['acceptance']:.0f} %, {row['mean_atoms']:.1f} atoms, {row['evaluations_per_candidate']:.1f} "
            f"evaluations of {row['us_per_atom_and_evaluation']:.0f} us/atom; kernel {100 * row['share_kernel']:.0f} "
            f"%, algebra {100 * row['share_algebra']:.0f} %, other {100 * row['share_other']:.0f} %"
        )
    for row in report["run"]:
        print(
            f"run     {row['workers']} workers, {row['accepted']} structures, {row['seeded']} of seed phases: "
            f"{row['accepted_per_second']:.2f} accepted/s, {row['accepted_per_core_second']:.2f} per core of searches, "
            f"{row['maximised_per_core_second']:.2f} without seeds (second half "
            f"{row['late_accepted_per_core_second']:.2f}, acceptance {100 * row['late_acceptance']:.1f} %), commits "
            f"{100 * row['commit_seconds'] / row['wall_seconds']:.1f} % of the time, "
            f"{row['bytes_per_structure']:.0f} B each"
        )
    for row in report["gain"]:
        print(
            f"gain    {row['seed_structures']} random and {row['accepted']} accepted structures of {row['element']}: "
            f"ln det {row['entropy_log_det']:.1f}, random "
            f"{row['random_log_det']:.1f}: {row['gain']:+.1f}; acceptance {100 * row['acceptance']:.0f} %"
        )
    if "core_hours_of_the_paper" in report:
        hours = report["core_hours_of_the_paper"]
        print(
            f"{PAPER_STRUCTURES} structures at the rate of the second half: {hours:.0f} core-hours, {hours / 16:.1f} h "
            f"on 16 such cores; target {TARGET:g} accepted/s/core"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--candidates", type=int, default=512, help="of each search")
    parser.add_argument("--batches", type=int, nargs="*", default=[16, 32, 64], help="candidates side by side")
    parser.add_argument("--run-batch", type=int, default=RunSettings().batch, help="of runs: candidates of a task")
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2], help="of runs")
    parser.add_argument("--accepted", type=int, default=300, help="structures of each run")
    parser.add_argument("--element", default="Sn", help="of the gain")
    parser.add_argument("--gain", type=int, default=300, help="structures accepted for the gain; 0: not measured")
    parser.add_argument("--device", default="cpu", help="of the descriptors: cpu, cuda or cuda:N")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    config = preset(options.preset)
    head = machine.describe() if options.device == "cpu" else machine.describe_device(options.device)
    errors = machine.Errors()
    report: dict[str, Any] = {"machine": head, "options": machine.words(options)}
    report |= {"search": [], "run": [], "gain": [], "errors": errors.found}
    for batch in options.batches:
        with errors.of(f"search, batch {batch}"):
            report["search"].append(measure_search(config, options.candidates, batch, options.device))
        machine.write(options.json, report)
    for workers in options.workers:
        with errors.of(f"run, {workers} workers"):
            report["run"].append(measure_run(config, options.accepted, workers, options.run_batch, options.device))
            late = min(row["late_accepted_per_core_second"] for row in report["run"])
            report["core_hours_of_the_paper"] = PAPER_STRUCTURES / late / 3600.0
        machine.write(options.json, report)
    if options.gain:
        with errors.of(f"gain of {options.element}"):
            found = measure_gain(preset(f"single:{options.element}"), options.gain, RunSettings().batch, options.device)
            report["gain"].append({"element": options.element, **found})
        machine.write(options.json, report)
    print_report(report)
    machine.write(options.json, report)
    return errors.status


if __name__ == "__main__":
    sys.exit(main())
