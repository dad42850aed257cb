"""Short runs for tests, and what they leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

import smax_stand_in as stand_in
from grace_md.smax.config import SmaxConfig
from grace_md.smax.folder import read
from grace_md.smax.generation import Outcome, generate
from grace_md.smax.run_settings import RunSettings
from grace_md.smax.state import RunState, load_state

LAYOUT = RunSettings(batch=8, round_batches=3, structures_per_shard=25)


def short(folder: Path, n: int = 60, config: SmaxConfig | None = None, **options: Any) -> Outcome:
    """Run in this process with the stand-in, unless `options` say otherwise."""
    merged = {"run": LAYOUT, "workers": 1, "search": stand_in.search, "say": stand_in.quiet, **options}
    return generate(config or stand_in.settings(), folder, n, **merged)


def state_of(folder: Path) -> RunState:
    """Return the state of a run."""
    return load_state(folder)[0]


def assert_same_structures(first: list[Atoms], second: list[Atoms]) -> None:
    """Fail unless both are the same bit by bit."""
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a.info == b.info
        assert set(a.arrays) == set(b.arrays)
        for name, values in a.arrays.items():
            assert np.array_equal(values, b.arrays[name]), name
        assert np.array_equal(a.cell[:], b.cell[:])


def assert_same_run(first: Path, second: Path) -> None:
    """Fail unless structures, statistics and decisions are the same bit by bit."""
    assert_same_structures(list(read(first)), list(read(second)))
    a, b = state_of(first), state_of(second)
    for one, other in ((a.entropy, b.entropy), (a.own, b.own)):
        left, right = one.arrays(), other.arrays()
        assert left.keys() == right.keys()
        for name, values in left.items():
            assert np.array_equal(values, right[name]), name
    for name in ("next_index", "pending", "decided", "rejected", "evaluations", "seeded", "since_restart"):
        assert getattr(a, name) == getattr(b, name), name
    assert [card.n_structures for card in a.cards] == [card.n_structures for card in b.cards]


def log_dets(folder: Path) -> list[float]:
    """Return ln det after every accepted structure that has one."""
    return [float(atoms.info["smax_log_det"]) for atoms in read(folder) if "smax_log_det" in atoms.info]
