"""Descriptors on a GPU: time per atom and call beside one core of this machine, and kernels beside their floors.

Called by `snap.py --device`. A call is what an optimiser makes: positions in host memory to features or gradients in
host memory, neighbours included; wall time, medians. Kernel times are between events around each launch, in calls of
their own. Floors are counted: operations, and bytes through the shared memory of the multiprocessors, which the kernels
need more of than of anything else (csrc/grace/snap_cuda/kernels.hpp).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import machine
import numpy as np
from snap import (
    CANDIDATE,
    FLOPS_PAIR_ADJOINT,
    FLOPS_PAIR_VALUE,
    FLOPS_TERM,
    TERMS_ADJOINT,
    TERMS_VALUE,
    VOLUME,
    least_time,
    random_atoms,
)

from grace_md._core import SnapKernel

AGREEMENT = 1e-12  # of values and gradients on CPU and GPU, relative to the largest
DIFFERENT = 64  # structures; larger batches repeat them
CORE_CANDIDATES = 64
ELEMENTS = 310  # numbers of U that are made for each pair
TERM_BYTES = 2 * 16  # two elements of U
COEFFICIENTS = 880  # of an atom; all lanes of a warp read the same one, which takes a cycle of 128 B
LANES, CYCLE_BYTES = 32, 128


class Floor(NamedTuple):
    """Per atom and per pair: operations, and bytes through shared memory."""

    flop_atom: float
    flop_pair: float
    shared_atom: float
    shared_pair: float

    def of(self, pairs: float) -> tuple[float, float]:
        """Operations and bytes per atom with so many pairs."""
        return self.flop_atom + pairs * self.flop_pair, self.shared_atom + pairs * self.shared_pair


FLOORS = {
    "snap_densities": Floor(0.0, FLOPS_PAIR_VALUE, 0.0, 2 * 8 * ELEMENTS),
    "snap_bispectrum": Floor(FLOPS_TERM * TERMS_VALUE, 0.0, TERM_BYTES * TERMS_VALUE, 0.0),
    "snap_adjoints": Floor(FLOPS_TERM * TERMS_ADJOINT, 0.0, TERM_BYTES * TERMS_ADJOINT, 0.0),
    "snap_pair_gradients": Floor(0.0, FLOPS_PAIR_ADJOINT, 0.0, COEFFICIENTS / 2 * CYCLE_BYTES / LANES),
}


def median_time(call: Callable[[], object], repeats: int) -> float:
    """Median wall time, seconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def batch_of(candidates: int) -> tuple[Any, ...]:
    """So many structures of 14 atoms, as SnapKernel takes them."""
    positions, cells = random_atoms(min(candidates, DIFFERENT), CANDIDATE, 0.3)
    copies = -(-candidates // DIFFERENT)
    positions = np.tile(positions, (copies, 1))[: candidates * CANDIDATE]
    cells = np.tile(cells, (copies, 1, 1))[:candidates]
    return positions, cells, np.ones((candidates, 3), bool), np.arange(candidates + 1) * CANDIDATE


def compare(kernel: SnapKernel, core: SnapKernel, batch: tuple[Any, ...], cutoffs: Any, beta: Any) -> float:
    """Return the largest difference between GPU and CPU, relative to the largest value of its kind."""
    results = []
    for each in (kernel, core):
        results.append((each.descriptors(*batch, cutoffs, n_threads=1), *each.gradients(beta, n_threads=1)))
    differences = [
        np.abs(found - expected).max() / np.abs(expected).max() for found, expected in zip(*results, strict=True)
    ]
    return float(np.max(differences))  # NaN if one is


def measure(device: str, candidates: int, neighbors: int, repeats: int) -> dict[str, Any]:
    """One size of batch: times on the device and on a core, and the kernels.

    The kernels come last, and the object is used for nothing else: it times every launch once it has begun to.
    """
    kernel = SnapKernel(device=device)
    cutoff = float(np.cbrt(neighbors * VOLUME / (4.0 / 3.0 * np.pi)))
    core = SnapKernel()
    small = batch_of(min(candidates, CORE_CANDIDATES))
    n_small = len(small[0])
    beta = np.tile(np.random.default_rng(1).normal(size=kernel.n_features), (n_small, 1))
    cutoffs = np.full(n_small, cutoff)
    difference = compare(kernel, core, small, cutoffs, beta)

    def core_step() -> None:
        core.descriptors(*small, cutoffs, n_threads=1)
        core.gradients(beta, n_threads=1)

    core_seconds = least_time(core_step, min(repeats, 3)) / n_small
    batch = batch_of(candidates)
    n = len(batch[0])
    cutoffs, beta = np.full(n, cutoff), np.tile(beta[:1], (n, 1))

    def step() -> None:
        kernel.descriptors(*batch, cutoffs, n_threads=1)
        kernel.gradients(beta, n_threads=1)

    step()
    value = median_time(lambda: kernel.descriptors(*batch, cutoffs, n_threads=1), repeats)
    both = median_time(step, repeats)
    pairs = kernel.n_pairs / n
    kernel.start_profile()
    step()
    kernels = [
        {
            "kernel": name,
            "launches": launches,
            "ns_per_atom": 1e9 * seconds / n,
            **dict(zip(("flop_per_atom", "shared_bytes_per_atom"), FLOORS[name].of(pairs), strict=True)),
        }
        if name in FLOORS
        else {"kernel": name, "launches": launches, "ns_per_atom": 1e9 * seconds / n}
        for name, launches, seconds in kernel.profile()
    ]
    return {
        "candidates": candidates,
        "atoms": n,
        "neighbors": pairs,
        "difference": difference,
        "us_value": 1e6 * value,
        "us_value_and_adjoint": 1e6 * both,
        "us_per_atom": 1e6 * both / n,
        "core_us_per_atom": 1e6 * core_seconds,
        "ratio": core_seconds * n / both,
        "kernels": kernels,
    }


def print_row(row: dict[str, Any], peak: float) -> None:
    """Print the times of a row and its kernels; `peak` is the rate of multiply-adds."""
    print(
        f"{row['candidates']:10d}{row['neighbors']:7.1f}{row['us_value']:10.0f}{row['us_value_and_adjoint']:10.0f}"
        f"{row['us_per_atom']:9.3f}{row['core_us_per_atom']:14.2f}{row['ratio']:8.1f}"
    )
    for part in row["kernels"]:
        floor = ""
        if "flop_per_atom" in part and part["ns_per_atom"] > 0.0:
            floor = f"  {100 * part['flop_per_atom'] / part['ns_per_atom'] / (1e-9 * peak):.0f} % of FMA"
        print(
            f"{'':10s}  {part['kernel']:22s}{part['launches']:4d} x {part['ns_per_atom']:9.2f} ns/atom{floor}",
            flush=True,
        )


def run(options: argparse.Namespace) -> int:
    """Print the tables and write the JSON file, after every row; 1 if a row failed or differs from the CPU."""
    errors = machine.Errors()
    report: dict[str, Any] = {
        "machine": machine.describe_device(options.device),
        "options": machine.words(options),
        "device": SnapKernel(device=options.device).device,
        "ceilings": machine.ceilings(options.device, errors, 1e-6 if "emulated" in options.device else 0.05),
        "results": [],
        "errors": errors.found,
    }
    peak = report["ceilings"]["fma_double"]
    print(f"{report['device']}: {1e-12 * peak:.2f} TFLOP/s of multiply-adds in double\n")
    head = ("candidates", "pairs", "us value", "us both", "us/atom", "core us/atom", "ratio")
    print("{:>10s}{:>7s}{:>10s}{:>10s}{:>9s}{:>14s}{:>8s}".format(*head))
    for neighbors in options.neighbors:
        for candidates in options.candidates or [32, 256, 4096]:
            what = f"{candidates} candidates, {neighbors} neighbours"
            with errors.of(what):
                row = measure(options.device, candidates, neighbors, options.repeats)
                report["results"].append(row)
                print_row(row, peak)
                if not row["difference"] < AGREEMENT:
                    sentence = f"{report['device']} and the CPU differ by {row['difference']:.1e} of the largest value"
                    errors.add(what, sentence)
            machine.write(options.json, report)
    return errors.status
