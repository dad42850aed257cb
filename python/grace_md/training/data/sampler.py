"""Which structures make a batch: by their number and by a budget of atoms and bonds, in a reproducible order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from grace_md.training.data.shards import ShardSet

__all__ = ["BatchSampler"]

Indices = NDArray[np.int64]
WINDOW = 1024  # batches that are sorted by size together when there are buckets


class BatchSampler:
    """Batches of structures for the steps of one process, epoch after epoch.

    An epoch visits every structure once in an order that depends on `seed` and the number of the epoch only. The order
    is cut into batches that respect all limits; `world_size` consecutive batches are one step. Every process makes
    equally many steps: a batch that is missing at the end is one structure with zero weight, written ``-1 - i``.

    Parameters
    ----------
    shards : ShardSet
    max_structures, max_atoms, max_bonds : int or None
        Limits of one batch; at least one is needed. Memory follows the bonds.
    subset : int [n], optional
        Structures to use, for example one side of a split; default all.
    shuffle : bool
        False: the given order in every epoch, for validation.
    seed : int
    rank, world_size : int
        This process among all.
    buckets : int
        1: batches mix structures of all sizes. More: the batches of a step have structures of similar size, which
        gives processes equal work, at the price of batches that are less mixed. Windows of the random order are sorted
        by bonds into this many classes.

    Raises
    ------
    ValueError
        No limit, a limit below 1, a structure that alone exceeds a limit, or no structures.

    Attributes
    ----------
    epoch, step : int
        Where the process is: `step` batches of `epoch` have been handed out.
    """

    def __init__(
        self,
        shards: ShardSet,
        *,
        max_structures: int | None = None,
        max_atoms: int | None = None,
        max_bonds: int | None = None,
        subset: ArrayLike | None = None,
        shuffle: bool = True,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        buckets: int = 1,
    ) -> None:
        limits = {"max_structures": max_structures, "max_atoms": max_atoms, "max_bonds": max_bonds}
        if all(value is None for value in limits.values()):
            raise ValueError("A batch needs a limit: give `max_structures`, `max_atoms` or `max_bonds`.")
        for name, value in {**limits, "buckets": buckets, "world_size": world_size}.items():
            if value is not None and value < 1:
                raise ValueError(f"`{name}` = {value} must be at least 1.")
        if not 0 <= rank < world_size:
            raise ValueError(f"`rank` = {rank} must lie in 0..{world_size - 1}.")
        self.subset: Indices = (
            np.arange(len(shards)) if subset is None else np.array(subset, dtype=np.int64).reshape(-1)
        )
        if not len(self.subset):
            raise ValueError("`subset` is empty: there are no structures to make batches of.")
        ones = np.ones(len(self.subset), dtype=np.int64)
        costs = {
            "max_structures": ones,
            "max_atoms": shards.n_atoms[self.subset].astype(np.int64),
            "max_bonds": shards.n_bonds[self.subset].astype(np.int64),
        }
        self._bonds = costs["max_bonds"]
        self._limits = [(costs[name], value) for name, value in limits.items() if value is not None]
        for name, value in limits.items():
            if value is not None and costs[name].max() > value:
                worst = int(np.argmax(costs[name]))
                raise ValueError(
                    f"`{name}` = {value} is too small: {shards.describe(int(self.subset[worst]))} alone has "
                    f"{costs[name][worst]:,} {name.removeprefix('max_')}; raise it to at least that."
                )
        self.shuffle, self.seed, self.buckets = shuffle, seed, buckets
        self.rank, self.world_size = rank, world_size
        self.epoch = self.step = 0
        self._limit_names = limits
        self._cached: tuple[int, list[Indices]] | None = None

    # Batches of an epoch ----------------------------------------------------------------------------------------------

    def _cut(self, order: Indices) -> list[Indices]:
        """Cut an order into the longest batches within all limits."""
        sums = [(np.concatenate([[0], np.cumsum(cost[order])]), limit) for cost, limit in self._limits]
        batches, start = [], 0
        while start < len(order):
            stop = min(int(np.searchsorted(total, total[start] + limit, side="right")) - 1 for total, limit in sums)
            batches.append(order[start:stop])
            start = stop
        return batches

    def _steps(self, batches: list[Indices]) -> list[list[Indices]]:
        return [batches[k : k + self.world_size] for k in range(0, len(batches), self.world_size)]

    def _global_steps(self, epoch: int) -> list[list[Indices]]:
        """Batches of every process at every step, as positions in `subset`."""
        order = np.arange(len(self.subset))
        if not self.shuffle:
            return self._steps(self._cut(order))
        generator = np.random.default_rng([self.seed, epoch])
        order = generator.permutation(order)
        if self.buckets == 1:
            return self._steps(self._cut(order))
        steps: list[list[Indices]] = []
        for window in np.array_split(order, max(1, round(len(order) / (WINDOW * self._typical())))):
            by_size = window[np.argsort(self._bonds[window], kind="stable")]
            classes = [generator.permutation(part) for part in np.array_split(by_size, self.buckets) if len(part)]
            own = self._steps(self._cut(np.concatenate(classes)))
            steps += [own[k] for k in generator.permutation(len(own))]
        return steps

    def _typical(self) -> int:
        """Structures per batch, about."""
        return max(1, int(min(limit / cost.mean() for cost, limit in self._limits)))

    def batches(self, epoch: int) -> list[Indices]:
        """Return the batches of this process in one epoch: numbers of structures, negative ones as padding."""
        if self._cached is None or self._cached[0] != epoch:
            smallest = int(np.argmin(self._bonds))
            own = []
            for step in self._global_steps(epoch):
                if self.rank < len(step):
                    own.append(self.subset[step[self.rank]])
                else:
                    own.append(-1 - self.subset[[smallest]])
            self._cached = (epoch, own)
        return self._cached[1]

    def n_steps(self, epoch: int = 0) -> int:
        """Steps of one epoch: the same for every process; with budgets it varies a little between epochs."""
        return len(self.batches(epoch)) if self.shuffle else len(self.batches(0))

    def total_steps(self, n_epochs: int) -> int:
        """Steps of the first `n_epochs` epochs, exactly."""
        if not self.shuffle or ([name for name, v in self._limit_names.items() if v is not None] == ["max_structures"]):
            return n_epochs * self.n_steps(0)
        return sum(len(self._global_steps(epoch)) for epoch in range(n_epochs))

    def __iter__(self) -> Iterator[Indices]:
        """Yield what is left of the current epoch, then go to the next one."""
        batches = self.batches(self.epoch)
        while self.step < len(batches):
            self.step += 1
            yield batches[self.step - 1]
        self.end_epoch()

    def end_epoch(self) -> None:
        """Go to the beginning of the next epoch."""
        self.epoch, self.step = self.epoch + 1, 0

    def worst_batch(self) -> Indices:
        """Return the batch of the most bonds that the limits allow, to find out whether it fits into memory."""
        order = np.argsort(-self._bonds, kind="stable")
        left = [limit for _, limit in self._limits]
        chosen: list[int] = []
        for position in order.tolist():
            need = [int(cost[position]) for cost, _ in self._limits]
            if all(n <= rest for n, rest in zip(need, left, strict=True)):
                chosen.append(position)
                left = [rest - n for n, rest in zip(need, left, strict=True)]
            elif min(left) <= 0:
                break
        return self.subset[chosen]

    # State ------------------------------------------------------------------------------------------------------------

    def _fingerprint(self) -> str:
        digest = hashlib.sha256(self.subset.tobytes() + self._bonds.tobytes())
        digest.update(repr((self._limit_names, self.shuffle, self.buckets, self.world_size)).encode())
        return digest.hexdigest()[:16]

    def state_dict(self) -> dict[str, Any]:
        """Return the place in the data, plain values for a checkpoint."""
        return {"epoch": self.epoch, "step": self.step, "seed": self.seed, "fingerprint": self._fingerprint()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was called.

        Raises ValueError in the middle of an epoch if the data, the limits or the number of processes are others: the
        rest of the epoch would not be the same.
        """
        if state["step"] and state["fingerprint"] != self._fingerprint():
            raise ValueError(
                "The checkpoint stops in the middle of an epoch over other data, batch limits or processes; resume "
                "with the same ones, or from a checkpoint at the end of an epoch."
            )
        self.epoch, self.step, self.seed = int(state["epoch"]), int(state["step"]), int(state["seed"])
        self._cached = None
