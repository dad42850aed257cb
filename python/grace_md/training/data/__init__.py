"""Data of a fit: from files of labelled structures to batches.

    shards = convert([Source("train.extxyz")], "train.shards", elements, pair_cutoffs)
    sampler = BatchSampler(shards, max_bonds=200_000, seed=1)
    for batch, labels in BatchLoader(shards, sampler):
        ...

Structures are read once (`Source`, `LabelKeys`), written with their neighbour lists into files that are mapped into
memory (`convert`, `ShardSet`), checked and described (`data_report`), and drawn by a budget of bonds (`BatchSampler`).
Nothing here imports torch until a batch is made.
"""

from __future__ import annotations

from grace_md.training.data.convert import convert
from grace_md.training.data.labels import LabelError, LabelKeys
from grace_md.training.data.loader import BatchLoader
from grace_md.training.data.readers import Source
from grace_md.training.data.report import DataReport, data_report
from grace_md.training.data.sampler import BatchSampler
from grace_md.training.data.shards import ShardSet
from grace_md.training.data.storage import CorruptShardError

__all__ = [
    "BatchLoader",
    "BatchSampler",
    "CorruptShardError",
    "DataReport",
    "LabelError",
    "LabelKeys",
    "ShardSet",
    "Source",
    "convert",
    "data_report",
]
