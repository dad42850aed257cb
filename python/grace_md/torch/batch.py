"""`AtomsBatch`: what a model reads of several structures, and how to make one from ASE structures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from grace_md.neighbors import neighbor_list

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ["AtomsBatch", "batch_from_atoms"]


@dataclass
class AtomsBatch:
    """Several structures with their bonds; atoms are numbered through.

    Attributes
    ----------
    positions : float64 [n_atoms, 3], A
    species : int64 [n_atoms], index of the element in the model
    cells : float64 [n_structures, 3, 3], A; rows are lattice vectors, zero rows where a direction is not periodic
    structure : int64 [n_atoms], structure of each atom, ascending
    center, neighbor : int64 [n_bonds], atoms i and j of every directed bond, sorted by `center`
    shift : float64 [n_bonds, 3], whole numbers S: the bond is r = r_j - r_i + S @ cell
    first_bond : int64 [n_atoms + 1], bonds of atom i are first_bond[i] .. first_bond[i + 1] - 1
    cache : what models computed of this batch and may use again; belongs to these tensors and is never copied
    """

    positions: Tensor
    species: Tensor
    cells: Tensor
    structure: Tensor
    center: Tensor
    neighbor: Tensor
    shift: Tensor
    first_bond: Tensor
    cache: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def n_atoms(self) -> int:
        """Number of atoms of all structures."""
        return self.positions.shape[0]

    @property
    def n_structures(self) -> int:
        """Number of structures."""
        return self.cells.shape[0]

    @property
    def n_bonds(self) -> int:
        """Number of directed bonds of all structures."""
        return self.center.shape[0]

    @property
    def volumes(self) -> Tensor:
        """Volume of each cell in A^3, float64 [n_structures]; 0 unless periodic in all three directions."""
        volumes: Tensor = torch.linalg.det(self.cells).abs()
        return volumes

    @property
    def has_volume(self) -> Tensor:
        """Structures that are periodic in all three directions, bool [n_structures]: those that have a stress."""
        return self.volumes > 0.0

    def to(self, device: torch.device | str) -> AtomsBatch:
        """Return this batch on a device."""
        tensors = {f.name: getattr(self, f.name).to(device) for f in fields(self) if f.name != "cache"}
        return replace(self, **tensors, cache={})

    def with_positions(self, positions: Tensor, cells: Tensor | None = None) -> AtomsBatch:
        """Return the same bonds for other positions (and cells), which may require gradients."""
        return replace(self, positions=positions, cells=self.cells if cells is None else cells, cache={})


def batch_from_atoms(structures: Sequence[Atoms], elements: Sequence[str], pair_cutoffs: ArrayLike) -> AtomsBatch:
    """Return a batch with fresh neighbour lists.

    Parameters
    ----------
    structures : structures to put into one batch, at least one.
    elements : symbols of the model, in its order.
    pair_cutoffs : [n_elements, n_elements], A, row = centre (`GracePotential.pair_cutoffs`).

    Raises
    ------
    ValueError
        For an element that the model does not know, positions that are not finite and periodic cells without volume.
    """
    structures = list(structures)
    if not structures:
        raise ValueError("`structures` is empty: give at least one structure.")
    known = list(elements)
    unknown = sorted({symbol for atoms in structures for symbol in atoms.symbols} - set(known))
    if unknown:
        raise ValueError(f"`structures` has {', '.join(unknown)}, unknown to the model; it knows {', '.join(known)}.")
    cutoffs = np.asarray(torch.as_tensor(pair_cutoffs).cpu(), dtype=np.float64)
    pairs = neighbor_list(structures, cutoffs, elements=known)
    index = {symbol: k for k, symbol in enumerate(known)}
    species = np.array([index[symbol] for atoms in structures for symbol in atoms.symbols], dtype=np.int64)
    cells = np.array([np.where(atoms.pbc[:, None], atoms.cell.array, 0.0) for atoms in structures])
    sizes = np.array([len(atoms) for atoms in structures])
    n_atoms = int(sizes.sum())
    first = np.searchsorted(pairs.center, np.arange(n_atoms + 1))
    return AtomsBatch(
        positions=torch.from_numpy(np.concatenate([atoms.positions for atoms in structures]).astype(np.float64)),
        species=torch.from_numpy(species),
        cells=torch.from_numpy(cells),
        structure=torch.from_numpy(np.repeat(np.arange(len(sizes)), sizes)),
        center=torch.from_numpy(pairs.center),
        neighbor=torch.from_numpy(pairs.neighbor),
        shift=torch.from_numpy(pairs.shift.astype(np.float64)),
        first_bond=torch.from_numpy(first.astype(np.int64)),
    )
