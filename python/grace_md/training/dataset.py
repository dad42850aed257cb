"""Data of a run: the files of the run file as shards, what is trained and validated on, reference energies."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grace_md.strict import ConfigError
from grace_md.training.config import DataConfig, RunConfig, Sources, source_list
from grace_md.training.data import BatchLoader, BatchSampler, ShardSet, Source, convert
from grace_md.training.labels import label_keys_of
from grace_md.training.loss import PARTS

if TYPE_CHECKING:
    from grace_md.torch.batch import AtomsBatch
    from grace_md.training.data.collate import Labels

__all__ = ["Part", "RunData", "open_data"]

DEFAULT_SPLIT = 0.1
Indices = NDArray[np.int64]


@dataclass
class Part:
    """Structures for one purpose, from one set of shards.

    Attributes
    ----------
    name : "train", "valid" or "replay"
    shards : the set
    rows : which of its structures
    references : [n_sources, n_elements] eV, subtracted from the energies of each source
    type_weights : [n_config_types, 3], multiply the weights of energies, forces and stresses; None: all one
    """

    name: str
    shards: ShardSet
    rows: Indices
    references: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.float64))
    type_weights: Tensor | None = None

    def set_references(self, energies: NDArray[np.float64], other_sources: int = 0) -> None:
        """Give all sources the reference energies [n_elements]; the last `other_sources` keep what they have."""
        n_sources = len(self.shards.source_names)
        rows = torch.from_numpy(np.broadcast_to(energies, (n_sources, len(energies))).copy())
        if other_sources:
            rows[n_sources - other_sources :] = self.references[n_sources - other_sources :]
        self.references = rows

    def batch(self, indices: Any) -> tuple[AtomsBatch, Labels]:
        """Return structures as a batch, energies without those of the references."""
        indices = np.asarray(indices, dtype=np.int64)
        batch, labels = self.shards.batch(indices)
        rows = np.where(indices < 0, -1 - indices, indices)
        source = torch.from_numpy(self._source_of[rows].astype(np.int64))
        of_atom = self.references[source[batch.structure], batch.species]
        offset = torch.zeros_like(labels.energy).index_add_(0, batch.structure, of_atom)
        labels.energy = labels.energy - offset
        if self.type_weights is not None:
            factors = self.type_weights[torch.from_numpy(self.shards.config_type_of[rows].astype(np.int64))]
            labels.energy_weight = labels.energy_weight * factors[:, 0]
            labels.force_weight = labels.force_weight * factors[batch.structure, 1]
            labels.stress_weight = labels.stress_weight * factors[:, 2]
        return batch, labels

    @property
    def _source_of(self) -> NDArray[np.int32]:
        if not hasattr(self, "_sources"):
            self._sources = self.shards.source_of
        return self._sources

    def sampler(self, config: RunConfig, *, shuffle: bool, rank: int = 0, size: int = 1) -> BatchSampler:
        """Return batches within the limits of the run file."""
        fit = config.fit
        return BatchSampler(
            self.shards,
            max_structures=fit.batch,
            max_atoms=fit.max_atoms,
            max_bonds=fit.max_bonds,
            subset=self.rows,
            shuffle=shuffle,
            seed=fit.seed,
            rank=rank,
            world_size=size,
            buckets=fit.buckets if shuffle else 1,
        )

    def loader(self, sampler: BatchSampler, prefetch: int) -> BatchLoader:
        """Return an iterator over the rest of the sampler's epoch."""
        return BatchLoader(self, sampler, prefetch)  # type: ignore[arg-type]  # it only calls `batch`

    @property
    def sha256(self) -> str:
        """Hash of the content of the shards."""
        return self.shards.sha256


@dataclass
class RunData:
    """What a run trains and validates on.

    Attributes
    ----------
    train : includes the structures of a replay, as the last `replay_sources` sources
    valid : decides which model is the best
    replay_valid : validation of the replay, or None
    n_own : structures of `train` that are not of the replay
    """

    train: Part
    valid: Part
    replay_valid: Part | None = None
    replay_sources: int = 0
    n_own: int = 0

    def parts(self) -> list[Part]:
        """Return all parts."""
        return [part for part in (self.train, self.valid, self.replay_valid) if part is not None]

    @property
    def own_rows(self) -> Indices:
        """Structures of `train` that are not of the replay."""
        return self.train.rows[: self.n_own]


def _sources(sources: Sources | None, data: DataConfig) -> list[Source]:
    return [
        Source(one.path, one.name, label_keys_of(one, data), one.weight, trust_pickle=one.trust_pickle)
        for one in source_list(sources)
    ]


def type_weights(settings: Mapping[str, float | Mapping[str, float]] | None, types: Sequence[str]) -> Tensor | None:
    """Return the factors [n_types, 3] of energies, forces and stresses; a later pattern wins over an earlier one.

    Parameters
    ----------
    settings : pattern of a configuration type (``md_*``) -> one factor, or one each for some of energy, forces, stress
    types : the configuration types of the data

    Raises
    ------
    ConfigError
        For a pattern that fits no type, a label without that name, and a factor that is negative or not finite.
    """
    if not settings:
        return None
    factors = torch.ones(len(types), len(PARTS), dtype=torch.float64)
    for pattern, value in settings.items():
        chosen = [n for n, name in enumerate(types) if fnmatch.fnmatchcase(name, pattern)]
        if not chosen:
            raise ConfigError(
                f"`data.type_weights`: {pattern!r} fits none of the configuration types {', '.join(types)}."
            )
        for part, factor in (value if isinstance(value, Mapping) else dict.fromkeys(PARTS, value)).items():
            if part not in PARTS:
                raise ConfigError(f"`data.type_weights.{pattern}` has `{part}`; use {', '.join(PARTS)}.")
            if not 0.0 <= factor < math.inf:
                raise ConfigError(f"`data.type_weights.{pattern}` = {factor:g} must be a number of zero or more.")
            factors[chosen, PARTS.index(part)] = factor
    return factors


def open_data(config: RunConfig, elements: Sequence[str], cutoffs: NDArray[np.float64], folder: Path) -> RunData:
    """Convert the files of a run into shards below `folder` (or open what is there) and choose the structures.

    Parameters
    ----------
    elements, cutoffs : every element that may occur, and pair cutoffs [n_elements, n_elements] in A

    Raises
    ------
    grace_md.training.data.LabelError, ConfigError, ValueError, FileNotFoundError
        What is wrong with files, labels or the split, in one sentence.
    """
    data, tune = config.data, config.finetune
    options: Mapping[str, Any] = {"workers": data.workers, "check": data.check, "force": data.folder is None}

    def shards(sources: Sources | None, name: str) -> ShardSet | None:
        found = _sources(sources, data)
        return convert(found, folder / name, elements, cutoffs, **options) if found else None

    train, valid = shards(data.train, "train"), shards(data.valid, "valid")
    assert train is not None
    if valid is None:
        rows, valid_rows = train.split(data.split or DEFAULT_SPLIT)
        valid_part = Part("valid", train, valid_rows)
    else:
        rows = np.arange(len(train))
        valid_part = Part("valid", valid, np.arange(len(valid)))
    result = RunData(Part("train", train, rows), valid_part, n_own=len(rows))
    replay = tune.replay if tune is not None else None
    if replay is not None:
        if valid is None:
            raise ConfigError("`finetune.replay` needs `data.valid`; give files to validate on.")
        _add_replay(config, result, shards(replay.train, "replay"), folder, data)
        replay_valid = shards(replay.valid, "replay_valid")
        if replay_valid is not None:
            result.replay_valid = Part("replay", replay_valid, np.arange(len(replay_valid)))
    result.train.type_weights = type_weights(data.type_weights, result.train.shards.config_types)
    return result


def _add_replay(config: RunConfig, result: RunData, replay: ShardSet | None, folder: Path, data: DataConfig) -> None:
    """Append a random part of the replay to the training set, weighted so that it has its share of the loss."""
    assert replay is not None
    assert config.finetune is not None
    assert config.finetune.replay is not None
    share, own = config.finetune.replay.share, len(result.train.rows)
    wanted = max(1, round(own * share / (1.0 - share)))
    chosen = np.random.default_rng([config.fit.seed, 1]).permutation(len(replay))[: min(wanted, len(replay))]
    both = ShardSet([folder / "train", folder / "replay"])
    both.source_weights[-len(replay.source_names) :] *= wanted / len(chosen)
    rows = np.concatenate([result.train.rows, len(result.train.shards) + np.sort(chosen)])
    result.train = Part("train", both, rows)
    result.replay_sources = len(replay.source_names)


def present_elements(data: RunData) -> list[str]:
    """Return the elements of all parts, by symbol."""
    return sorted({element for part in data.parts() for element in part.shards.present})
