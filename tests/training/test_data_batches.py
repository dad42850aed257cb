"""Batches: equal to those made from structures, weights, budgets, order, resume, processes, prefetching."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from grace_md.torch.batch import batch_from_atoms  # noqa: E402
from grace_md.training.data import BatchLoader, BatchSampler, ShardSet, Source, convert  # noqa: E402
from labelled_sets import CUTOFF, ELEMENTS, alloys, cluster, mixed_set  # noqa: E402

MODEL = ["Cu", "Al", "Au", "Ag"]  # another order than the set, and one element more
MATRIX = np.full((4, 4), CUTOFF)
FIELDS = ("positions", "species", "cells", "structure", "center", "neighbor", "shift", "first_bond")


@pytest.fixture(scope="module")
def xyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sources") / "set.extxyz"
    ase.io.write(path, mixed_set())
    return path


@pytest.fixture(scope="module")
def shards(xyz: Path, tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    out = tmp_path_factory.mktemp("shards")
    found = convert(Source(str(xyz), weight=0.5), out, ELEMENTS, CUTOFF, shard_atoms=30, progress=False, report=False)
    return found.for_model(MODEL, MATRIX)


@pytest.fixture(scope="module")
def large() -> ShardSet:
    return ShardSet.from_atoms(alloys(67, seed=4, sizes=(1, 2, 3)), ELEMENTS, CUTOFF)


@pytest.mark.parametrize("lists", [True, False], ids=["stored lists", "lists made again"])
def test_equal_to_batches_of_structures(xyz: Path, tmp_path: Path, lists: bool) -> None:
    structures = ase.io.read(xyz, ":")
    shards = convert(str(xyz), tmp_path / "s", ELEMENTS, CUTOFF, shard_atoms=30, store_lists=lists, progress=False,
                     report=False).for_model(MODEL, MATRIX)  # fmt: skip
    indices = [20, 3, len(structures) - 2, 3, 0, len(structures) - 1]  # over shards, twice one, a cluster, a lone atom
    batch, labels = shards.batch(indices)
    chosen = [structures[i] for i in indices]
    expected = batch_from_atoms(chosen, MODEL, MATRIX)
    for name in FIELDS:
        mine, theirs = getattr(batch, name), getattr(expected, name)
        assert mine.dtype == theirs.dtype, name
        assert torch.equal(mine, theirs), name
    results = [atoms.calc.results for atoms in chosen]
    assert labels.energy.tolist() == [r["energy"] for r in results]
    assert torch.equal(labels.forces, torch.tensor(np.concatenate([r["forces"] for r in results])))
    for row, result in zip(labels.stress, results, strict=True):
        assert torch.isnan(row).all() if "stress" not in result else row.tolist() == result["stress"].tolist()
    assert torch.equal(torch.isnan(labels.stress[:, 0]), ~batch.has_volume)


def test_weights_of_sources_and_padding(shards: ShardSet) -> None:
    _, labels = shards.batch([2, -1 - 3])
    n = int(shards.n_atoms[2])
    assert labels.energy_weight.tolist() == [0.5, 0.0]
    assert labels.stress_weight.tolist() == [0.5, 0.0]
    assert labels.force_weight[:n].eq(0.5).all()
    assert labels.force_weight[n:].eq(0.0).all()
    assert labels.energy[1] == shards.energy[3]


def test_weights_of_structures_and_atoms() -> None:
    structures = alloys(3)
    structures[1].info["weight"] = 4.0
    structures[1].info["forces_weight"] = 0.5
    structures[2].arrays["atom_weight"] = np.linspace(0, 1, len(structures[2]))
    _, labels = ShardSet.from_atoms(structures, ELEMENTS, CUTOFF).batch([0, 1, 2])
    sizes = np.cumsum([len(a) for a in structures])
    assert labels.energy_weight.tolist() == [1.0, 4.0, 1.0]
    assert labels.force_weight[: sizes[0]].eq(1.0).all()
    assert labels.force_weight[sizes[0] : sizes[1]].eq(2.0).all()
    np.testing.assert_allclose(labels.force_weight[sizes[1] :], structures[2].arrays["atom_weight"])


def test_missing_labels_are_nan_in_batches() -> None:
    structures = [*alloys(2), cluster()]
    del structures[1].calc.results["forces"]
    _, labels = ShardSet.from_atoms(structures, ELEMENTS, CUTOFF).batch([0, 1, 2])
    n = len(structures[0])
    assert labels.forces[:n].isfinite().all()
    assert labels.forces[n : n + len(structures[1])].isnan().all()
    assert labels.stress[2].isnan().all()


def test_structures_that_do_not_exist(shards: ShardSet) -> None:
    with pytest.raises(IndexError, match="`indices` must lie in 0"):
        shards.batch([0, 10**6])
    with pytest.raises(ValueError, match="`indices` is empty"):
        shards.batch([])


# Sampler --------------------------------------------------------------------------------------------------------------

BUDGETS: list[dict[str, Any]] = [
    {"max_structures": 8},
    {"max_bonds": 1500},
    {"max_atoms": 40, "max_structures": 6},
    {"max_bonds": 1500, "max_structures": 8, "buckets": 3},
]


@pytest.mark.parametrize("options", BUDGETS, ids=str)
def test_every_structure_once_within_the_limits(large: ShardSet, options: dict[str, Any]) -> None:
    sampler = BatchSampler(large, seed=3, **options)
    for epoch in range(3):
        batches = list(sampler)
        assert sorted(np.concatenate(batches)) == list(range(len(large)))
        assert len(batches) == sampler.n_steps(epoch)
        for batch in batches:
            assert len(batch) <= options.get("max_structures", 10**9)
            assert large.n_atoms[batch].sum() <= options.get("max_atoms", 10**9)
            assert large.n_bonds[batch].sum() <= options.get("max_bonds", 10**9)
    assert (sampler.epoch, sampler.step) == (3, 0)
    assert sampler.total_steps(3) == sum(sampler.n_steps(epoch) for epoch in range(3))


def test_the_order_depends_on_seed_and_epoch_only(large: ShardSet) -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return np.concatenate(BatchSampler(large, max_structures=8, seed=seed).batches(epoch)).tolist()

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)
    fixed = BatchSampler(large, max_structures=8, shuffle=False, subset=[5, 3, 9])
    assert [b.tolist() for b in fixed.batches(4)] == [[5, 3, 9]]


@pytest.mark.parametrize("options", BUDGETS, ids=str)
@pytest.mark.parametrize("world_size", [2, 3, 5])
def test_processes_make_equally_many_steps(large: ShardSet, options: dict[str, Any], world_size: int) -> None:
    samplers = [BatchSampler(large, seed=3, rank=r, world_size=world_size, **options) for r in range(world_size)]
    for epoch in range(2):
        batches = [s.batches(epoch) for s in samplers]
        assert len({len(own) for own in batches}) == 1
        everything = np.concatenate([b for own in batches for b in own])
        assert sorted(everything[everything >= 0]) == list(range(len(large)))
        assert all(len(b) == 1 for own in batches for b in own if b[0] < 0)
        assert (everything < 0).sum() < world_size


def test_two_processes_see_the_doubled_batch(large: ShardSet) -> None:
    single = BatchSampler(large, max_structures=16, seed=5)
    pair = [BatchSampler(large, max_structures=8, seed=5, rank=r, world_size=2) for r in range(2)]
    for step, one in enumerate(single.batches(0)):
        both = np.concatenate([s.batches(0)[step] for s in pair])
        assert both[both >= 0].tolist() == one.tolist()


def test_buckets_make_the_batches_of_a_step_alike(large: ShardSet) -> None:
    def spread(buckets: int) -> float:
        sampler = BatchSampler(large, max_structures=8, seed=1, buckets=buckets)
        return float(np.mean([np.ptp(large.n_bonds[b]) for b in sampler.batches(0)]))

    assert spread(8) < 0.5 * spread(1)


@pytest.mark.parametrize("options", BUDGETS, ids=str)
@pytest.mark.parametrize("stop", [0, 1, 3, 10**6])
def test_resume_in_the_middle_of_an_epoch(large: ShardSet, options: dict[str, Any], stop: int) -> None:
    def stream(sampler: BatchSampler) -> Iterator[list[int]]:
        while sampler.epoch < 3:
            for batch in sampler:
                yield batch.tolist()

    straight = list(stream(BatchSampler(large, seed=9, **options)))
    sampler = BatchSampler(large, seed=9, **options)
    first = list(islice(stream(sampler), stop))
    state = json.loads(json.dumps(sampler.state_dict()))
    resumed = BatchSampler(large, seed=0, **options)
    resumed.load_state_dict(state)
    assert first + list(stream(resumed)) == straight


def test_a_state_of_other_data_is_refused(large: ShardSet) -> None:
    sampler = BatchSampler(large, max_structures=8)
    next(iter(sampler))
    other = BatchSampler(large, max_structures=9)
    with pytest.raises(ValueError, match="stops in the middle of an epoch over other data"):
        other.load_state_dict(sampler.state_dict())
    sampler.end_epoch()
    other.load_state_dict(sampler.state_dict())
    assert other.epoch == 1


@pytest.mark.parametrize("options", BUDGETS, ids=str)
def test_the_worst_batch_is_the_worst(large: ShardSet, options: dict[str, Any]) -> None:
    sampler = BatchSampler(large, **options)
    worst = sampler.worst_batch()
    assert len(np.unique(worst)) == len(worst)
    limit = options.get("max_bonds", 10**9)
    assert large.n_bonds[worst].sum() <= limit
    real = max(large.n_bonds[b].sum() for epoch in range(5) for b in sampler.batches(epoch))
    assert large.n_bonds[worst].sum() >= 0.9 * real


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "needs a limit"),
        ({"max_bonds": 0}, "`max_bonds` = 0 must be at least 1"),
        ({"max_bonds": 20}, r"`max_bonds` = 20 is too small: structure \d+ of .* alone has [\d,]+ bonds"),
        ({"max_atoms": 3}, "`max_atoms` = 3 is too small"),
        ({"max_structures": 4, "rank": 2, "world_size": 2}, "`rank` = 2 must lie in 0..1"),
        ({"max_structures": 4, "subset": []}, "`subset` is empty"),
    ],
)
def test_limits_that_cannot_be(large: ShardSet, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        BatchSampler(large, **options)


# Loader ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefetch", [0, 1, 4])
def test_loader_keeps_the_order_and_counts_what_was_used(shards: ShardSet, prefetch: int) -> None:
    def positions(sampler: BatchSampler) -> list[Any]:
        return [batch.positions for batch, _ in BatchLoader(shards, sampler, prefetch)]

    expected = [shards.batch(i)[0].positions for i in BatchSampler(shards, max_structures=4, seed=2).batches(0)]
    sampler = BatchSampler(shards, max_structures=4, seed=2)
    loader = BatchLoader(shards, sampler, prefetch)
    assert len(loader) == len(expected)
    used = []
    for batch, _ in loader:
        used.append(batch.positions)
        if len(used) == 3:
            break
    assert sampler.state_dict()["step"] == 3
    used += positions(sampler)
    assert all(torch.equal(a, b) for a, b in zip(used, expected, strict=True))
    assert (sampler.epoch, sampler.step) == (1, 0)


def test_errors_of_the_thread_reach_the_user(shards: ShardSet) -> None:
    sampler = BatchSampler(shards, max_structures=4)
    sampler.subset = sampler.subset + 10**6
    with pytest.raises(IndexError):
        list(BatchLoader(shards, sampler))


# Splits ---------------------------------------------------------------------------------------------------------------


def test_splits_keep_groups_and_copies_together(tmp_path: Path) -> None:
    structures = [*alloys(60, seed=2), *mixed_set()]
    for atoms in structures[:30]:
        del atoms.info["family"]
    copies = [atoms.copy() for atoms in structures[:30]]
    for copy, atoms in zip(copies, structures, strict=False):
        copy.calc = atoms.calc
        copy.positions += copy.cell[0]
    everything = ShardSet.from_atoms([*structures, *copies], ELEMENTS, CUTOFF)
    train, valid = everything.split(0.3, seed=1)
    assert sorted([*train, *valid]) == list(range(len(everything)))
    assert 0.15 < len(valid) / len(everything) < 0.45
    families = [atoms.info.get("family") for atoms in structures]
    inside = [{families[i] for i in side if i < len(families)} - {None} for side in (train, valid)]
    assert not inside[0] & inside[1]
    for k in range(30):
        assert (k in valid) == (len(structures) + k in valid)
    assert valid.tolist() != everything.split(0.3, seed=2)[1].tolist()
    reverse = ShardSet.from_atoms([*structures, *copies][::-1], ELEMENTS, CUTOFF)
    assert sorted(len(everything) - 1 - reverse.split(0.3, seed=1)[1]) == valid.tolist()
    with pytest.raises(ValueError, match="must lie between 0 and 1"):
        everything.split(1.5)
    with pytest.raises(ValueError, match="leaves nothing to"):
        ShardSet.from_atoms(structures[:1], ELEMENTS, CUTOFF).split(0.5)
