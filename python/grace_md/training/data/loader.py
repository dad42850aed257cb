"""Batches that are prepared by a thread while the previous one is used."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from grace_md.torch.batch import AtomsBatch
    from grace_md.training.data.collate import Labels
    from grace_md.training.data.sampler import BatchSampler

__all__ = ["BatchLoader", "BatchSource"]


class BatchSource(Protocol):
    """What makes batches: a `ShardSet`, or something around one."""

    def batch(self, indices: Any) -> tuple[AtomsBatch, Labels]:
        """Return the structures `indices` as a batch with its labels."""
        ...


class BatchLoader:
    """Iterate over the rest of the sampler's epoch: ``for batch, labels in loader``.

    The order is that of the sampler, whose `state_dict` counts batches that were handed out, not those that wait: a
    checkpoint after the use of a batch resumes with the next one.

    Parameters
    ----------
    shards : ShardSet, or anything with its method `batch`
    sampler : BatchSampler
    prefetch : int
        Batches that wait; 0 makes them when they are asked for, without a thread.
    """

    def __init__(self, shards: BatchSource, sampler: BatchSampler, prefetch: int = 2) -> None:
        if prefetch < 0:
            raise ValueError(f"`prefetch` = {prefetch} must be at least 0.")
        self.shards, self.sampler, self.prefetch = shards, sampler, prefetch

    def __len__(self) -> int:
        return self.sampler.n_steps(self.sampler.epoch) - self.sampler.step

    def __iter__(self) -> Iterator[tuple[AtomsBatch, Labels]]:
        if self.prefetch == 0:
            for indices in self.sampler:
                yield self.shards.batch(indices)
            return
        waiting: queue.Queue[tuple[AtomsBatch, Labels] | BaseException] = queue.Queue(self.prefetch)
        stop = threading.Event()
        rest = self.sampler.batches(self.sampler.epoch)[self.sampler.step :]

        def put(item: tuple[AtomsBatch, Labels] | BaseException) -> None:
            while not stop.is_set():
                try:
                    waiting.put(item, timeout=0.1)
                    return
                except queue.Full:
                    continue

        def work() -> None:
            try:
                for indices in rest:
                    if stop.is_set():
                        return
                    put(self.shards.batch(indices))
            except BaseException as error:  # raised where the batch is used
                put(error)

        thread = threading.Thread(target=work, name="grace_md batches", daemon=True)
        thread.start()
        try:
            for _ in rest:
                item = waiting.get()
                if isinstance(item, BaseException):
                    raise item
                self.sampler.step += 1
                yield item
            self.sampler.end_epoch()
        finally:
            stop.set()
            thread.join()
