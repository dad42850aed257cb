"""The method at a small scale with the bispectrum components: entropy against random structures of one element."""

from __future__ import annotations

import numpy as np

from grace_md.smax.acceptance import commit, decide
from grace_md.smax.config import SmaxConfig
from grace_md.smax.descriptors import make_descriptor
from grace_md.smax.search import search
from grace_md.smax.statistics import EntropyState

ACCEPTED = 40
GAIN = 25.0  # of ln det Sigma; 50 is seen for these settings
# The share falls while the set approaches the D-optimal one, for which no structure gains: 0.7 is seen at the start.
ACCEPTANCE = 0.6
BATCH = 8

CONFIG = SmaxConfig.of(
    {
        "elements": {"symbols": ["Sn"]},
        "composition": {"n_atoms": "uniform", "min_atoms": 4, "max_atoms": 10, "mean_atoms": 7.0},
        "density": {"phi_min": 0.35, "phi_max": 0.7, "high_fraction": 0.0, "low_fraction": 0.0},
        "radii": {"extreme_fraction": 0.0},
    }
)


def test_accepted_structures_have_far_more_entropy_than_random_ones() -> None:
    descriptor = make_descriptor(CONFIG.descriptor)
    state, random = (EntropyState.empty(descriptor.n_features) for _ in range(2))
    decisions, structures, start = [], 0, 0
    while sum(decisions) < ACCEPTED:
        snapshot = state.snapshot(CONFIG.statistics)
        for found in search(CONFIG, snapshot, range(start, start + BATCH), descriptor=descriptor):
            decision = decide(state, found, CONFIG)
            if snapshot is not None:
                decisions.append(decision.accepted)
            if decision.accepted:
                structures += 1
                commit(state, found, CONFIG)
                if snapshot is None:
                    random.add(found.features)
        start += BATCH
    for found in search(CONFIG, None, range(10_000, 10_000 + 2 * ACCEPTED), descriptor=descriptor):
        if found.reason is None and random.config.count < structures:
            random.add(found.features)
    assert random.config.count == structures
    assert state.log_det("atom") - random.atom.log_det() > GAIN
    assert np.mean(decisions) > ACCEPTANCE
