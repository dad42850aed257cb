"""A search that costs nothing, for tests of what is around it: who decides when, what is on the disk, what goes on.

Features are random numbers of the candidate that the snapshot scales, so that a result shows which statistics its
search has seen.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from grace_md.smax.candidate import Candidate
from grace_md.smax.config import SmaxConfig
from grace_md.smax.search import Found
from grace_md.smax.statistics import Snapshot

N_FEATURES = 5  # of the bispectrum with twojmax 2


def settings(**sections: Any) -> SmaxConfig:
    """Return settings of a run that ends within a second."""
    merged: dict[str, Any] = {"descriptor": {"twojmax": 2}, "elements": {"symbols": ["Fe", "Al"]}}
    for name, changes in sections.items():
        merged[name] = {**merged.get(name, {}), **changes} if isinstance(changes, dict) else changes
    return SmaxConfig.of(merged)


def found(config: SmaxConfig, snapshot: Snapshot | None, index: int) -> Found:
    """Return what the search makes of one candidate."""
    rng = np.random.default_rng([config.seed, index])
    n = int(rng.integers(2, 5))
    features = rng.normal(size=(n, N_FEATURES)) * rng.uniform(0.1, 2.0)
    mode = "atom" if config.statistics.mode != "config" else "config"
    part = None if snapshot is None else (snapshot.atom if mode == "atom" else snapshot.config)
    if part is not None:
        features += 0.1 * part.mean + 1e-3 * part.count
    candidate = Candidate(
        index=index,
        numbers=np.sort(rng.choice([13, 26], n)),
        positions=rng.uniform(0.0, 5.0, (n, 3)),
        cell=5.0 * np.eye(3) + rng.uniform(-0.5, 0.5, (3, 3)),
        radii=rng.uniform(1.0, 1.4, n),
        cutoffs=np.full(n, 4.0),
        core_radii=np.full(n, 1.5),
        mode=mode,
        extreme=bool(index % 7 == 0),
    )
    nan = float("nan")
    d2 = nan if part is None else float(np.mean(np.sum(((features - part.mean) @ part.whitening.T) ** 2, axis=1)))
    return Found(candidate, features, 3, "core overlap" if index % 11 == 5 else None, d2, d2, d2)


def search(config: SmaxConfig, snapshot: Snapshot | None, indices: Sequence[int]) -> list[Found]:
    """Search as `grace_md.smax.search.search` does, without cost."""
    return [found(config, snapshot, index) for index in indices]


def slow_search(config: SmaxConfig, snapshot: Snapshot | None, indices: Sequence[int]) -> list[Found]:
    """Take 20 ms."""
    time.sleep(0.02)
    return search(config, snapshot, indices)


def deadly_search(config: SmaxConfig, snapshot: Snapshot | None, indices: Sequence[int]) -> list[Found]:
    """Kill the own process once, when candidate 40 is searched; the file named by the environment remembers it."""
    mark = Path(os.environ["SMAX_TEST_MARK"])
    if 40 in indices and not mark.exists():
        mark.write_text("killed")
        os.kill(os.getpid(), signal.SIGKILL)
    return search(config, snapshot, indices)


def dying_search(_config: SmaxConfig, _snapshot: Snapshot | None, _indices: Sequence[int]) -> list[Found]:
    """Kill the own process always."""
    os.kill(os.getpid(), signal.SIGKILL)
    return []


def quiet(_line: str) -> None:
    """Take the lines of a run."""
