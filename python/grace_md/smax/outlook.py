"""What a run would be: some candidates are drawn and a few maximised, nothing is written."""

from __future__ import annotations

import time
from collections import Counter

import numpy as np
from ase.data import chemical_symbols

from grace_md.progress import format_seconds
from grace_md.smax.acceptance import commit, decide
from grace_md.smax.config import SmaxConfig
from grace_md.smax.descriptors import make_descriptor
from grace_md.smax.devices import choose_device
from grace_md.smax.executors import usable_cores
from grace_md.smax.sampling import Sampler
from grace_md.smax.search import search
from grace_md.smax.statistics import EntropyState

__all__ = ["outlook"]

DRAWN = 200  # candidates whose composition is counted
MAXIMISED = 16  # candidates that are timed
MAX_SEEDS = 1_000  # candidates of a seed phase that is tried; more are not waited for


def outlook(config: SmaxConfig, n: int, workers: int | None = None, device: str = "cpu") -> list[str]:
    """Return lines that describe the candidates of `config` and the time that `n` accepted structures would take.

    Raises ConfigError if candidates cannot be drawn, or for a device that cannot be used.
    """
    device, choice = choose_device(device, config.descriptor.kind)
    sampler = Sampler(config)
    drawn = [sampler.draw(index) for index in range(DRAWN)]
    atoms = np.array([len(candidate) for candidate in drawn])
    kinds = np.array([len(np.unique(candidate.numbers)) for candidate in drawn])
    packing = np.array([candidate.packing for candidate in drawn])
    common = Counter(chemical_symbols[z] for candidate in drawn for z in np.unique(candidate.numbers)).most_common(8)
    lines = [
        f"candidates  {atoms.mean():.1f} atoms ({atoms.min()} to {atoms.max()}), {kinds.mean():.2f} elements "
        f"({kinds.min()} to {kinds.max()}), packing number {packing.min():.2f} to {packing.max():.2f}",
        "elements    " + ", ".join(f"{symbol} {100 * count / DRAWN:.0f} %" for symbol, count in common)
        + " of candidates",
        *([f"device      {choice.partition(': ')[2]}"] if choice else []),
    ]  # fmt: skip
    state, used = _seeded(config)
    if state.seeding:
        return [*lines, f"time        unknown: the seed phase takes more than {used} candidates"]
    begin = time.thread_time()
    found = search(config, state.snapshot(config.statistics), range(used, used + MAXIMISED), device=device)
    seconds = time.thread_time() - begin
    accepted = 0
    for item in found:
        if decide(state, item, config).accepted:
            commit(state, item, config)
            accepted += 1
    cores = usable_cores() if workers is None else workers
    total = n * seconds / max(accepted, 1)
    return [
        *lines,
        f"seed phase  {used} random structures",
        f"time        {seconds / MAXIMISED:.3f} s and {np.mean([item.evaluations for item in found]):.0f} evaluations "
        f"per candidate, {accepted} of {MAXIMISED} accepted: {n} structures take about {format_seconds(total)} of one "
        f"core, {format_seconds(total / cores)} with {cores} workers",
    ]


def _seeded(config: SmaxConfig) -> tuple[EntropyState, int]:
    """Statistics at the end of a seed phase and the candidates that it took."""
    state = EntropyState.empty(make_descriptor(config.descriptor).n_features)
    used = 0
    while state.seeding and used < MAX_SEEDS:
        for item in search(config, None, range(used, used + MAXIMISED)):
            used += 1
            if state.seeding and decide(state, item, config).accepted:
                commit(state, item, config)
    return state, used
