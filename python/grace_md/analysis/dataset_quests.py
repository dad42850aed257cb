"""Entropy of a data set by the package QUESTS, which knows nothing of models or covariances: an independent check."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from grace_md.analysis.dataset_coverage import choose
from grace_md.analysis.dataset_sets import DataSet
from grace_md.analysis.dataset_statistics import SetStatistics

__all__ = ["quests_entropies", "require_quests"]

NEIGHBORS, CUTOFF, BANDWIDTH = 32, 5.0, 0.015  # defaults of QUESTS: neighbours, A, 1/A
MOST_ATOMS = 10_000  # of a set: the sum over kernels grows with the square


def require_quests() -> tuple[Any, Any]:
    """Return the modules `quests.descriptor` and `quests.entropy`; RuntimeError without the package."""
    try:
        return importlib.import_module("quests.descriptor"), importlib.import_module("quests.entropy")
    except ImportError:
        raise RuntimeError(
            "the QUESTS entropy needs the package quests; install it with `pip install quests`."
        ) from None


def quests_entropies(
    sets: Sequence[DataSet],
    statistics: Sequence[SetStatistics],
    seed: int = 0,
    advance: Callable[[int], None] = lambda _: None,
) -> dict[str, float]:
    """Return the entropy in nats of equally many atoms of each set, by name.

    Entropies of finite samples grow with their size, up to ln n; only those of equal samples can be compared.

    Parameters
    ----------
    advance : called with the number of sets done since

    Raises
    ------
    RuntimeError
        Without the package quests.
    """
    descriptor, entropy = require_quests()
    n_atoms = min(MOST_ATOMS, *(found.n_atoms for found in statistics))
    results = {}
    for one, found in zip(sets, statistics, strict=True):
        structures = _structures(one, found, n_atoms, seed)
        rows = np.asarray(descriptor.get_descriptors(structures, k=NEIGHBORS, cutoff=CUTOFF), dtype=np.float64)
        kept = choose(np.arange(len(rows)), n_atoms, seed)
        results[one.name] = float(entropy.entropy(np.ascontiguousarray(rows[kept]), h=BANDWIDTH))
        advance(1)
    return results


def _structures(one: DataSet, found: SetStatistics, n_atoms: int, seed: int) -> list[Atoms]:
    """Return random structures of a set with at least `n_atoms` atoms."""
    order = np.random.default_rng(seed).permutation(found.n_structures)
    enough = int(np.searchsorted(np.cumsum(found.sizes[order]), n_atoms)) + 1
    chosen: NDArray[np.int64] = np.sort(found.numbers[order[:enough]])
    return [
        Atoms(record.numbers, positions=record.positions, cell=record.cell, pbc=record.pbc)
        for _, record in one.read(chosen)
    ]
