"""`GraceModel`: a checked weight file, with what a user wants to know about it."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from grace_md import weights

if TYPE_CHECKING:
    from grace_md._core import ModelSpec

__all__ = ["GraceModel"]

METADATA_PREFIX = "grace_md_"  # of our own keys in a weight file; other programs ignore them

logger = logging.getLogger("grace_md")
_reported: set[str] = set()  # hashes of models whose uncertainty arrays have been mentioned


class GraceModel:
    """A GRACE model of one or two layers: the arrays of a weight file, checked.

    Make one with `GraceModel.load`, or from arrays in memory: ``GraceModel(arrays)``.

    Parameters
    ----------
    arrays : dict of numpy arrays
        Every array of a weight file by its key (docs/weight_file.md). Kept as they are, never changed.
    name : str
        What messages call the model.
    sha256 : str, optional
        Hash of the file the arrays come from; computed from the file that `save` would write unless given.

    Raises
    ------
    ValueError
        One sentence naming the key: an array that is missing, of the wrong shape or not finite, a norm scale of zero,
        or an architecture that is not supported.

    Attributes
    ----------
    arrays : dict of numpy arrays, by key
    spec : grace_md._core.ModelSpec, what evaluators are made of
    name, sha256 : str
    """

    def __init__(
        self, arrays: Mapping[str, NDArray[Any]], name: str = "model in memory", sha256: str | None = None
    ) -> None:
        from grace_md._core import ModelSpec  # noqa: PLC0415 - importing this module must not need the compiled core

        self.arrays: dict[str, NDArray[Any]] = dict(arrays)
        self.name = name
        self.spec: ModelSpec = ModelSpec(self.arrays, name)
        self.sha256: str = hashlib.sha256(weights.pack_npz(self.arrays)).hexdigest() if sha256 is None else sha256
        if self.spec.unused_keys and self.sha256 not in _reported:
            _reported.add(self.sha256)
            logger.warning(
                "%s carries %d uncertainty arrays (uq_*): they are kept on save, but no extrapolation grade "
                "is computed.",
                name,
                len(self.spec.unused_keys),
            )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> GraceModel:
        """Read a stored or compressed `.npz`.

        Raises FileNotFoundError for a missing file, `grace_md.weights.WeightFileError` (a ValueError) for one that is
        truncated, corrupted or holds pickled objects, and ValueError for arrays that do not make a model.
        """
        path = Path(path)
        return cls(weights.read_npz(path), name=str(path), sha256=weights.file_sha256(path))

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        force: bool = False,
        metadata: Mapping[str, str | float | NDArray[Any]] | None = None,
    ) -> str:
        """Write a stored `.npz` with every array of the model, and return the SHA-256 of the new file.

        Parameters
        ----------
        path : file to write; FileExistsError if it exists, unless `force`.
        metadata : additional keys, which start with ``grace_md_``, and their values (text, number or array).
        """
        extra = {}
        for key, value in (metadata or {}).items():
            if not key.startswith(METADATA_PREFIX):
                raise ValueError(
                    f"`metadata` key `{key}` must start with `{METADATA_PREFIX}`, so that others ignore it."
                )
            extra[key] = np.array(value.encode()) if isinstance(value, str) else np.asarray(value)
        return weights.write_npz(path, {**self.arrays, **extra}, force=force)

    def select(self, elements: Sequence[str]) -> GraceModel:
        """Return the same model for fewer elements, in the order given; ValueError for one that it does not know."""
        return GraceModel(weights.select_elements(self.arrays, elements), name=f"{self.name} ({' '.join(elements)})")

    @property
    def elements(self) -> list[str]:
        """Chemical symbols, in the order of the file."""
        return list(self.spec.elements)

    @property
    def pair_cutoffs(self) -> NDArray[np.float64]:
        """Cutoffs in A, [n_elements, n_elements]; the row is the centre."""
        return np.array(self.spec.pair_cutoffs, dtype=np.float64)

    @property
    def cutoff(self) -> float:
        """Largest pair cutoff in A."""
        return float(self.spec.max_cutoff)

    @property
    def n_layers(self) -> int:
        """Message-passing layers, 1 or 2; an atom sees others within `n_layers` times the cutoff."""
        return int(self.spec.n_layers)

    @property
    def n_parameters(self) -> int:
        """Floating-point weights that the model uses, for all elements of the file."""
        return int(self.spec.n_parameters)

    @property
    def lmax(self) -> int:
        """Largest degree of the spherical harmonics."""
        return max(int(radial["lmax"]) for radial in self.spec.radial)

    @property
    def metadata(self) -> dict[str, Any]:
        """Keys of the file that start with ``grace_md_``; text as str, numbers as Python numbers."""
        found: dict[str, Any] = {}
        for key, values in self.arrays.items():
            if key.startswith(METADATA_PREFIX):
                plain = values.item() if values.size == 1 else values
                found[key] = plain.decode() if isinstance(plain, bytes) else plain
        return found

    def summary(self) -> str:
        """Return a few lines for people: layers, size, elements, cutoffs, hash."""
        cutoffs = self.pair_cutoffs
        span = f"{cutoffs.max():g} A" if np.ptp(cutoffs) == 0 else f"{cutoffs.min():g} to {cutoffs.max():g} A by pair"
        radial = "; ".join(f"{r['name']}: {r['n_channels']} channels, l <= {r['lmax']}" for r in self.spec.radial)
        lines = [
            f"{self.name}",
            f"  layers      {self.n_layers}",
            f"  radial      {radial}",
            f"  parameters  {self.n_parameters:,}",
            f"  elements    {len(self.elements)}: {' '.join(self.elements)}",
            f"  cutoff      {span}",
            f"  sha256      {self.sha256}",
        ]
        if self.spec.unused_keys:
            lines.append(f"  not evaluated: {len(self.spec.unused_keys)} uncertainty arrays (uq_*)")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"GraceModel({self.name!r}, {self.n_layers} layer(s), {len(self.elements)} elements)"
