"""Means and covariances: streams, merges, the ridge of the start; and what a structure adds, against brute force."""

from __future__ import annotations

import numpy as np
import pytest

from entropy_tools import small_config
from grace_md.smax.acceptance import commit, entropy_change
from grace_md.smax.candidate import Batch, Candidate, Mode
from grace_md.smax.entropy import entropy_gain, rank_n_gain
from grace_md.smax.sampling import Sampler
from grace_md.smax.search import Found
from grace_md.smax.statistics import EntropyState, SingularStatisticsError, Statistics, mode_snapshot
from tolerances import (
    ENTROPY_ALGEBRA,
    ENTROPY_DIFFERENCE,
    ENTROPY_MERGE,
    ENTROPY_RIDGE,
    ENTROPY_STEP,
    assert_close,
)

M = 55
# Spread of raw bispectrum components, eigenvalues 4e-2 to 6e3, about means far from zero.
MIX = np.random.default_rng(5).normal(size=(M, M)) * np.geomspace(0.2, 80.0, M) / np.sqrt(M)
OFFSET = np.random.default_rng(6).normal(size=M) * 100.0


def rows(seed: int, n: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, M)) @ MIX + OFFSET


def brute_log_det(items: np.ndarray) -> float:
    return float(np.linalg.slogdet(np.cov(items.T, bias=True))[1])


@pytest.mark.parametrize(("count", "sizes"), [(600, (1, 14, 70)), (200_000, (14,))])
def test_gain_of_a_structure_equals_covariances_formed_anew(count: int, sizes: tuple[int, ...]) -> None:
    items = rows(1, count)
    snapshot, before = mode_snapshot(Statistics.of([items], M), None), brute_log_det(items)
    for n_atoms in sizes:
        new = rows(2, n_atoms) * 1.1
        expected = brute_log_det(np.concatenate([items, new])) - before
        assert abs(expected) > 1e3 * ENTROPY_ALGEBRA
        assert_close(rank_n_gain(snapshot, new), expected, ENTROPY_ALGEBRA)


@pytest.mark.parametrize("mode", ["atom", "config"])
def test_gain_of_a_batch_and_its_gradient(mode: Mode) -> None:
    count = 600
    items = rows(1, count)
    state = EntropyState(Statistics.of([items], M), Statistics.of([items], M), seeding=False)
    settings = small_config(statistics={"mode": mode}).statistics
    sampler = Sampler(small_config(statistics={"mode": mode}))
    batch = Batch.of([sampler.draw(k) for k in range(6)])
    assert len(set(batch.counts)) > 2
    features = rows(3, len(batch.owner))
    snapshot = state.snapshot(settings)
    assert snapshot is not None
    gain = entropy_gain(snapshot, batch, features)
    direction = np.random.default_rng(4).normal(size=features.shape) @ MIX
    ahead, behind = (
        entropy_gain(snapshot, batch, features + step * direction).normalised for step in (ENTROPY_STEP, -ENTROPY_STEP)
    )
    slope = np.add.reduceat(np.sum(gain.gradient * direction, axis=1), batch.first_atom[:-1])
    assert_close(slope, (ahead - behind) / (2 * ENTROPY_STEP), ENTROPY_DIFFERENCE * np.abs(slope).max())
    for s in range(len(batch)):
        mine = features[batch.first_atom[s] : batch.first_atom[s + 1]]
        new = mine if mode == "atom" else mine.mean(axis=0, keepdims=True)
        expected = brute_log_det(np.concatenate([items, new])) - brute_log_det(items)
        scale = (count + len(new)) / len(new)
        assert_close(gain.normalised[s], scale * expected, scale * ENTROPY_ALGEBRA)
        delta = new - items.mean(axis=0)
        d2 = np.sum(delta @ np.linalg.inv(np.cov(items.T, bias=True)) * delta, axis=1)
        assert_close(gain.d2[batch.first_atom[s]], d2[0], 0.0, ENTROPY_ALGEBRA)


def test_both_modes_in_one_batch() -> None:
    items = rows(1, 600)
    state = EntropyState(Statistics.of([items], M), Statistics.of([items[::3]], M), seeding=False)
    config = small_config(statistics={"mode": "mixed"})
    drawn = [Sampler(config).draw(k) for k in range(12)]
    batch = Batch.of(drawn)
    assert 0 < batch.config.sum() < len(batch)
    snapshot = state.snapshot(config.statistics)
    assert snapshot is not None
    features = rows(3, len(batch.owner))
    together = entropy_gain(snapshot, batch, features)
    for s, candidate in enumerate(drawn):
        atoms = slice(batch.first_atom[s], batch.first_atom[s + 1])
        alone = entropy_gain(snapshot, Batch.of([candidate]), features[atoms])
        assert_close(together.normalised[s], alone.normalised[0], ENTROPY_ALGEBRA)
        assert_close(together.gradient[atoms], alone.gradient, ENTROPY_ALGEBRA)


def test_merging_is_associative_and_streams_need_not_be_kept() -> None:
    parts = [rows(seed, n) + 1e4 for seed, n in ((1, 700), (2, 1), (3, 90))]
    a, b, c = (Statistics.of([part], M) for part in parts)
    left, right = a.merged(b).merged(c), a.merged(b.merged(c))
    streamed = Statistics.of((chunk for part in parts for chunk in np.array_split(part, 7) if len(chunk)), M)
    everything = np.concatenate(parts)
    scatter = (everything - everything.mean(axis=0)).T @ (everything - everything.mean(axis=0))
    for found in (left, right, streamed):
        assert found.count == len(everything)
        assert_close(found.mean, everything.mean(axis=0), 0.0, ENTROPY_MERGE)
        assert_close(found.scatter, scatter, ENTROPY_MERGE * np.abs(scatter).max())
    empty = Statistics.empty(M)
    assert np.array_equal(a.merged(empty).scatter, a.scatter)
    assert empty.merged(empty).count == 0


def test_bad_rows_are_refused_and_leave_no_trace() -> None:
    statistics = Statistics.of([rows(1, 10)], M)
    bad = rows(2, 3)
    bad[1, 2] = np.nan
    with pytest.raises(ValueError, match="`rows` contains values that are not finite"):
        statistics.add(bad)
    with pytest.raises(ValueError, match=r"`rows` has shape \[3, 54\], not \[n, 55\]"):
        statistics.add(bad[:, 1:])
    assert statistics.count == 10
    with pytest.raises(ValueError, match="`other` has 3 features"):
        statistics.merged(Statistics.empty(3))


def test_singular_statistics_are_refused() -> None:
    flat = rows(1, 600)
    flat[:, 3] = 2.0
    with pytest.raises(SingularStatisticsError, match="covariance of the features is singular"):
        Statistics.of([flat], M).log_det()
    with pytest.raises(SingularStatisticsError, match="no items yet"):
        Statistics.empty(M).log_det()
    state = EntropyState(Statistics.of([flat], M), Statistics.empty(M))
    with pytest.raises(SingularStatisticsError, match=r"statistics\.ridge"):  # even the ridge of this feature is zero
        state.update_phase(small_config().statistics)


def found(features: np.ndarray) -> Found:
    candidate = Sampler(small_config()).draw(0)
    return Found(candidate, features, 1, None, np.nan, np.nan, np.nan)


def test_ridge_is_chosen_once_and_dropped_for_good() -> None:
    settings = small_config(statistics={"seed_items_per_feature": 2.0, "ridge_condition": 1e6})
    # Two features that agree to 1e-5: the condition number is far above the limit.
    items = np.random.default_rng(1).normal(size=(4 * M, M))
    items[:, 1] = items[:, 0] + 1e-5 * items[:, 1]
    state = EntropyState.empty(M)
    commit(state, found(items[: 2 * M - 1]), settings)
    assert state.seeding
    assert state.snapshot(settings.statistics) is None
    commit(state, found(items[2 * M - 1 : 2 * M + 5]), settings)
    assert not state.seeding
    chosen = state.ridge["atom"]
    assert chosen is not None
    assert_close(chosen, 1e-8 * np.diagonal(np.cov(items[: 2 * M + 5].T, bias=True)), 0.0, 1e-9)
    commit(state, found(items[2 * M + 5 : 3 * M]), settings)
    assert state.ridge["atom"] is chosen
    before, gain = entropy_change(state, items[3 * M :], "atom")
    joined = np.cov(items.T, bias=True) + np.diag(chosen)
    assert_close(before + gain, np.linalg.slogdet(joined)[1], ENTROPY_RIDGE)
    commit(state, found(np.random.default_rng(2).normal(size=(400, M))), settings)  # now the two features differ
    assert state.ridge["atom"] is None
    commit(state, found(np.repeat(items[:1], 10_000, axis=0)), settings)
    assert state.ridge["atom"] is None


def test_a_well_conditioned_start_needs_no_ridge() -> None:
    settings = small_config(statistics={"seed_items_per_feature": 4.0})
    state = EntropyState.empty(M)
    commit(state, found(rows(1, 4 * M)), settings)
    assert not state.seeding
    assert state.ridge["atom"] is None


@pytest.mark.parametrize("mode", ["atom", "config", "mixed"])
def test_the_seed_phase_counts_items_of_the_modes_in_use(mode: str) -> None:
    settings = small_config(statistics={"mode": mode, "seed_items_per_feature": 2.0})
    state = EntropyState.empty(M)
    committed = 0
    while state.seeding:
        commit(state, found(rows(committed, 10)), settings)
        committed += 1
    assert committed == (2 * M + 9) // 10 if mode == "atom" else committed == 2 * M


def test_states_merge_and_travel_through_arrays_bitwise() -> None:
    settings = small_config(statistics={"seed_items_per_feature": 1.0, "ridge_condition": 1.0})
    one, two = EntropyState.empty(M), EntropyState.empty(M)
    commit(one, found(rows(1, 300)), settings)
    commit(two, found(rows(2, 30)), settings)
    assert (one.seeding, two.seeding) == (False, True)
    both = one.merged(two)
    assert not both.seeding
    assert both.ridge["atom"] is one.ridge["atom"] is not None
    assert (both.atom.count, both.config.count) == (330, 2)
    again = EntropyState.from_arrays(both.arrays())
    for name, value in both.arrays().items():
        assert np.array_equal(again.arrays()[name], value), name
    two.seeding = False  # as if it had dropped its ridge
    assert one.merged(two).ridge["atom"] is None


def test_effective_dimension_counts_equal_directions() -> None:
    basis = np.linalg.qr(rows(1, M))[0] * 3.0
    items = np.concatenate([basis, -basis])
    assert_close(Statistics.of([items], M).effective_dimension(), M, 1e-9)
    line = np.outer(np.arange(10.0), np.ones(M))
    assert_close(Statistics.of([line], M).effective_dimension(), 1.0, 1e-6)


def test_candidates_are_light_enough_to_send() -> None:
    import pickle

    candidate = Sampler(small_config()).draw(3)
    again = pickle.loads(pickle.dumps(candidate))
    assert isinstance(again, Candidate)
    assert np.array_equal(again.positions, candidate.positions)
