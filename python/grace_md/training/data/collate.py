"""Batches from shards: slices of mapped arrays, put together without a loop over atoms."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grace_md._core import build_neighbors
from grace_md.torch.batch import AtomsBatch

if TYPE_CHECKING:
    from grace_md.training.data.shards import ShardSet

__all__ = ["Labels", "collate"]


@dataclass
class Labels:
    """What a batch should be; NaN where a label is missing.

    Attributes
    ----------
    energy : float64 [n_structures], eV, total
    forces : float64 [n_atoms, 3], eV/A
    stress : float64 [n_structures, 6], eV/A^3, sign and order of ASE
    energy_weight, stress_weight : float64 [n_structures]
    force_weight : float64 [n_atoms]
    """

    energy: Tensor
    forces: Tensor
    stress: Tensor
    energy_weight: Tensor
    stress_weight: Tensor
    force_weight: Tensor

    def to(self, device: torch.device | str) -> Labels:
        """Return these labels on a device."""
        return Labels(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


def _tensor(values: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values))


def collate(shards: ShardSet, indices: NDArray[np.int64]) -> tuple[AtomsBatch, Labels]:
    """Return the structures `indices` as one batch, with labels.

    A negative index ``-1 - i`` stands for structure i with all weights zero: it pads the batch of a process that has
    run out of structures.

    Raises IndexError for structures that do not exist, ValueError for an empty batch.
    """
    if not len(indices):
        raise ValueError("`indices` is empty: a batch has at least one structure.")
    padding = indices < 0
    rows = np.where(padding, -1 - indices, indices)
    gathered = shards.gather(rows)
    atoms = [shard.first_atom[k : k + 2].tolist() for shard, _, k in gathered]
    n_atoms = np.array([b - a for a, b in atoms])
    first_atom = np.concatenate([[0], np.cumsum(n_atoms)])

    def per_atom(name: str) -> NDArray[Any]:
        return np.concatenate([arrays[name][a:b] for (_, arrays, _), (a, b) in zip(gathered, atoms, strict=True)])

    def per_structure(name: str) -> NDArray[Any]:
        return np.array([arrays[name][k] for _, arrays, k in gathered])

    species = shards.species_index[per_atom("numbers")]
    positions = per_atom("positions")
    cells = per_structure("cell")
    if all("neighbor" in arrays for _, arrays, _ in gathered):
        bonds = [shard.first_bond[k : k + 2].tolist() for shard, _, k in gathered]
        per_bond = list(zip(gathered, bonds, strict=True))
        counts = per_atom("n_neighbors").astype(np.int64)
        neighbor = np.concatenate([arrays["neighbor"][a:b] for (_, arrays, _), (a, b) in per_bond]).astype(np.int64)
        neighbor += np.repeat(first_atom[:-1], [b - a for a, b in bonds])
        shift = np.concatenate([arrays["shift"][a:b] for (_, arrays, _), (a, b) in per_bond]).astype(np.float64)
    else:  # shards without lists
        found = build_neighbors(
            positions, species.astype(np.int32), cells, per_structure("pbc"), first_atom, shards.pair_cutoffs, 0.0, 1
        )
        counts, neighbor = np.diff(found.first), found.neighbor.astype(np.int64)
        shift = found.shift.astype(np.float64)
    batch = AtomsBatch(
        positions=_tensor(positions),
        species=_tensor(species),
        cells=_tensor(cells),
        structure=_tensor(np.repeat(np.arange(len(n_atoms)), n_atoms)),
        center=_tensor(np.repeat(np.arange(len(positions)), counts)),
        neighbor=_tensor(neighbor),
        shift=_tensor(shift),
        first_bond=_tensor(np.concatenate([[0], np.cumsum(counts)])),
    )
    sources = np.array([shard.card["source"] for shard, _, _ in gathered])
    weights = per_structure("weights") * np.where(padding, 0.0, shards.source_weights[sources])[:, None]
    force_weight = np.repeat(weights[:, 1], n_atoms)
    if any("atom_weight" in arrays for _, arrays, _ in gathered):
        force_weight *= np.concatenate(
            [
                arrays["atom_weight"][a:b] if "atom_weight" in arrays else np.ones(b - a)
                for (_, arrays, _), (a, b) in zip(gathered, atoms, strict=True)
            ]
        )
    labels = Labels(
        energy=_tensor(per_structure("energy")),
        forces=_tensor(per_atom("forces")),
        stress=_tensor(per_structure("stress")),
        energy_weight=_tensor(weights[:, 0]),
        stress_weight=_tensor(weights[:, 2]),
        force_weight=_tensor(force_weight),
    )
    return batch, labels
