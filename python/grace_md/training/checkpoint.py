"""Checkpoints: one `.npz` of plain arrays with its metadata as JSON inside; no pickled objects.

A checkpoint appears complete or not at all: it is written beside its place, synchronised to the disk and renamed. When
the disk is full the earlier checkpoint stays as it was.
"""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from grace_md.weights import read_npz

__all__ = ["FORMAT", "Checkpoint", "CheckpointError", "load_checkpoint", "save_checkpoint"]

FORMAT = 1  # raised when the meaning of a key changes
META = "checkpoint_json"

Arrays = dict[str, NDArray[Any]]


class CheckpointError(ValueError):
    """A checkpoint that cannot be written, or does not belong to this run; the message says why in one sentence."""


@dataclass
class Checkpoint:
    """The state of a run between two optimiser steps.

    Attributes
    ----------
    groups : arrays by group and name: ``model``, ``ema``, ``optimiser``, ``rng``
    meta : what is not arrays: configuration, progress, sampler position, record of the best model
    """

    groups: dict[str, Arrays] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)

    def require_same_model(self, shapes: Mapping[str, tuple[int, ...]], elements: list[str], path: Path) -> None:
        """Raise CheckpointError unless the model of the checkpoint has these parameters and elements."""
        if self.meta["elements"] != elements:
            raise CheckpointError(
                f"{path} is of a model for {' '.join(self.meta['elements'])}, the run file makes one for "
                f"{' '.join(elements)}; choose another output.dir, or add --force to start anew."
            )
        stored = {name: tuple(values.shape) for name, values in self.groups["model"].items()}
        wrong = [name for name in {**stored, **shapes} if stored.get(name) != shapes.get(name)]
        if wrong:
            name = wrong[0]
            raise CheckpointError(
                f"{path} is of another architecture: parameter {name} has the shape {stored.get(name, 'none')} there "
                f"and {shapes.get(name, 'none')} here ({len(wrong)} parameters differ); use the run file it was "
                "made with, or add --force to start anew."
            )


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint in the place of an earlier one.

    Raises CheckpointError if the disk is full or not writable; the earlier checkpoint is then untouched.
    """
    meta = json.dumps({"format": FORMAT, **checkpoint.meta}, allow_nan=False)
    arrays: Arrays = {META: np.frombuffer(meta.encode(), dtype=np.uint8)}
    for group, members in checkpoint.groups.items():
        arrays.update({f"{group}/{name}": values for name, values in members.items()})
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as stream:
            _write_archive(stream, arrays)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
        kept = "the earlier one is kept" if path.exists() else "nothing was written"
        raise CheckpointError(
            f"the checkpoint {path} could not be written ({error.strerror or error}); {kept}: free some space, then "
            "start the same command again."
        ) from error
    except BaseException:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
        raise


def _write_archive(stream: Any, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays one by one: large models do not need a second copy in memory."""
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for key, values in arrays.items():
            with archive.open(
                zipfile.ZipInfo(f"{key}.npy", date_time=(1980, 1, 1, 0, 0, 0)), "w", force_zip64=True
            ) as f:
                npy.write_array(f, np.ascontiguousarray(values).reshape(np.shape(values)), allow_pickle=False)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; CheckpointError for one of another format, ValueError for a damaged file."""
    arrays = read_npz(path)
    if META not in arrays:
        raise CheckpointError(f"{path} is not a checkpoint of a training run: it has no `{META}`.")
    meta = json.loads(arrays.pop(META).tobytes().decode())
    if meta.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} has the checkpoint format {meta.get('format')}, this version reads {FORMAT}; continue with the "
            "version of grace_md that wrote it."
        )
    groups: dict[str, Arrays] = {}
    for key, values in arrays.items():
        group, _, name = key.partition("/")
        groups.setdefault(group, {})[name] = values
    return Checkpoint(groups, meta)
