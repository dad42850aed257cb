"""Searches end at structures that pass every check, and only those that raise the entropy are accepted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from entropy_tools import ToyDescriptor, small_config
from grace_md.smax.acceptance import NO_GAIN, commit, decide
from grace_md.smax.candidate import Batch, Candidate
from grace_md.smax.cells import heights
from grace_md.smax.config import SmaxConfig
from grace_md.smax.objective import EntropyProblem, smallest_distance_ratio
from grace_md.smax.sampling import Sampler
from grace_md.smax.search import REASONS, Found, hard_checks, search
from grace_md.smax.statistics import EntropyState
from tolerances import ENTROPY_ALGEBRA, REPEATED_SEARCH, assert_close

TOY = ToyDescriptor()


def grow(config: SmaxConfig, rounds: int, batch: int = 12) -> tuple[EntropyState, list[tuple[Found, float, float]]]:
    """Run the greedy loop; what was accepted after the seed phase, with S before and after."""
    state = EntropyState.empty(TOY.n_features)
    accepted = []
    for k in range(0, rounds * batch, batch):
        snapshot = state.snapshot(config.statistics)
        for found in search(config, snapshot, range(k, k + batch), descriptor=TOY):
            decision = decide(state, found, config)
            assert decision.accepted == (decision.reason is None)
            if decision.accepted:
                commit(state, found, config)
                if snapshot is not None:
                    accepted.append((found, decision.log_det_before, decision.log_det_after))
    return state, accepted


@pytest.fixture(scope="module")
def grown() -> EntropyState:
    """A state after the seed phase; tests do not change it."""
    return grow(small_config(), 3)[0]


def test_entropy_rises_with_every_accepted_structure() -> None:
    state, accepted = grow(small_config(), 8)
    assert len(accepted) > 5
    after = [item[2] for item in accepted]
    assert np.all(np.diff(after) > 0.0)
    assert all(before < later for _, before, later in accepted)
    assert_close(after[-1], state.log_det("atom"), ENTROPY_ALGEBRA)


@pytest.mark.parametrize("mode", ["atom", "config"])
def test_decisions_are_those_of_covariances_formed_anew(mode: str) -> None:
    config = small_config(statistics={"mode": mode, "seed_items_per_feature": 4.0})
    state, items = EntropyState.empty(TOY.n_features), []
    outcomes = set()
    for k in range(0, 72, 12):
        for found in search(config, state.snapshot(config.statistics), range(k, k + 12), descriptor=TOY):
            decision = decide(state, found, config)
            new = found.features if mode == "atom" else found.features.mean(axis=0, keepdims=True)
            if not state.seeding and found.reason is None:
                before, after = (
                    np.linalg.slogdet(np.cov(np.concatenate(rows).T, bias=True))[1] for rows in (items, [*items, new])
                )
                assert state.ridge["atom"] is None
                assert_close(decision.log_det_before, before, ENTROPY_ALGEBRA)
                assert_close(decision.gain, after - before, ENTROPY_ALGEBRA)
                assert decision.accepted == (after > before)
                outcomes.add(decision.reason)
            if decision.accepted:
                items.append(new)
                commit(state, found, config)
    assert outcomes == {None, NO_GAIN}


@pytest.mark.parametrize("relax_cell", [False, True])
@pytest.mark.parametrize("method", ["lbfgs", "fire"])
def test_searches_climb_and_what_passes_fulfils_the_limits(grown: EntropyState, relax_cell: bool, method: str) -> None:
    config = small_config(optimiser={"relax_cell": relax_cell, "method": method})
    snapshot = grown.snapshot(config.statistics)
    assert snapshot is not None
    indices = range(500, 516)
    drawn = Batch.of([Sampler(config).draw(k) for k in indices])
    relaxed = Batch.of([found.candidate for found in search(config, None, indices, descriptor=TOY)])
    problem = EntropyProblem(relaxed, TOY, snapshot, config.objective.core_strength)
    start, _ = problem.evaluate(relaxed.positions)
    results = search(config, snapshot, indices, descriptor=TOY)
    assert [found.candidate.index for found in results] == list(indices)
    assert np.mean([found.objective for found in results]) > start.mean()
    passed = [found for found in results if found.reason is None]
    assert len(passed) > 8
    ratios = smallest_distance_ratio(Batch.of([found.candidate for found in passed]))
    assert ratios.min() >= 1.0 - config.checks.core_tolerance
    for found in passed:
        cell = found.candidate.cell
        fractions = found.candidate.positions @ np.linalg.inv(cell)
        assert -1e-9 < fractions.min() <= fractions.max() < 1.0 + 1e-9
        assert heights(cell).min() >= config.cell.min_height * (1 - 1e-9)
        assert heights(cell).max() <= config.cell.max_aspect * heights(cell).min() * (1 + 1e-9)
        assert 0.1 <= found.candidate.packing <= 2.5
        assert found.evaluations <= config.optimiser.max_evaluations + 1
        assert_close(TOY.values(Batch.of([found.candidate])), found.features, 1e-9)
    moved = [not np.allclose(f.candidate.cell, drawn.cells[s]) for s, f in enumerate(results) if len(f.candidate) > 1]
    assert all(moved) if relax_cell else not any(moved)


def test_the_same_search_gives_the_same_structures_in_any_company(grown: EntropyState) -> None:
    config = small_config(optimiser={"max_iterations": 5})
    snapshot = grown.snapshot(config.statistics)
    one, two = (search(config, snapshot, range(100, 112), descriptor=TOY) for _ in range(2))
    for a, b in zip(one, two, strict=True):
        assert np.array_equal(a.candidate.positions, b.candidate.positions)
        assert np.array_equal(a.features, b.features)
    alone = search(config, snapshot, [104], descriptor=TOY)[0]
    assert_close(alone.candidate.positions, one[4].candidate.positions, 1e6 * REPEATED_SEARCH)
    assert search(config, snapshot, [], descriptor=TOY) == []


def test_the_seed_phase_accepts_what_passes_the_checks() -> None:
    config = small_config()
    state = EntropyState.empty(TOY.n_features)
    results = search(config, None, range(40), descriptor=TOY)
    assert {found.evaluations for found in results} == {1}
    assert all(np.isnan(found.objective) for found in results)
    for found in results:
        decision = decide(state, found, config)
        assert decision.reason == found.reason
        assert np.isnan(decision.log_det_after)


def valid() -> Candidate:
    edge = 4.0
    return Candidate(
        index=0,
        numbers=np.array([26, 26]),
        positions=np.array([[0.0, 0.0, 0.0], [2.0, 2.0, 2.0]]),
        cell=edge * np.eye(3),
        radii=np.full(2, 1.3),
        cutoffs=np.full(2, 5.2),
        core_radii=np.full(2, 1.95),
        mode="atom",
        extreme=False,
    )


SPOILED: list[tuple[str, Callable[[Candidate], Candidate]]] = [
    ("not finite", lambda c: replace(c, positions=np.array([[0.0, 0.0, 0.0], [np.nan, 2.0, 2.0]]))),
    ("not finite", lambda c: replace(c, cell=np.zeros((3, 3)))),
    ("core overlap", lambda c: replace(c, positions=np.array([[0.0, 0.0, 0.0], [1.9, 0.0, 0.0]]))),
    ("core overlap", lambda c: replace(c, positions=np.array([[0.0, 0.0, 0.0], [2.2, 0.0, 3.0]]) * 0.0)),
    ("density", lambda c: replace(c, cell=9.0 * np.eye(3))),
    ("density", lambda c: replace(c, radii=np.full(2, 2.8))),
    ("aspect", lambda c: replace(c, cell=np.diag([2.5, 4.0, 8.0]))),
    ("height", lambda c: replace(c, cell=np.diag([1.96, 5.5, 5.5]))),
]


@pytest.mark.parametrize(("reason", "spoil"), SPOILED, ids=[reason for reason, _ in SPOILED])
def test_every_hard_check_fires(grown: EntropyState, reason: str, spoil: Callable[[Candidate], Candidate]) -> None:
    config = small_config()
    assert hard_checks([valid()], config) == [None]
    assert reason in REASONS
    assert hard_checks([valid(), spoil(valid()), valid()], config) == [None, reason, None]
    found = Found(spoil(valid()), np.zeros((2, TOY.n_features)), 1, reason, np.nan, np.nan, np.nan)
    decision = decide(grown, found, config)
    assert (decision.accepted, decision.reason) == (False, reason)


def test_a_small_overlap_is_tolerated() -> None:
    close = replace(valid(), positions=np.array([[0.0, 0.0, 0.0], [1.95 * 0.985, 0.0, 0.0]]))
    assert hard_checks([close], small_config()) == [None]
    assert hard_checks([close], small_config(checks={"core_tolerance": 0.01})) == ["core overlap"]


def test_features_that_are_not_finite_are_a_reason(grown: EntropyState) -> None:
    class Broken(ToyDescriptor):
        def values(self, batch: Batch) -> np.ndarray:
            return np.where(np.arange(len(batch.owner))[:, None] == 0, np.inf, super().values(batch))

    config = small_config()
    results = search(config, grown.snapshot(config.statistics), range(4), descriptor=Broken())
    assert results[0].reason == "not finite"
    assert not decide(grown, results[0], config).accepted
