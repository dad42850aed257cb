"""Neighbour lists: all pairs of atoms, periodic images included, that are closer than the cutoff of their elements.

Conventions: positions and cells in Angstrom, rows of a cell are lattice vectors, and for the pair (i, j) with image S

    r_ij = r_j - r_i + S @ cell,    listed if |r_ij| < cutoff(i, j) + skin.

Lists are full and directed: (i, j, S) and (j, i, -S) are both listed. An atom is a neighbour of its own images, and of
several images of another atom where the cell is small; it is never a neighbour of itself at S = 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import ArrayLike, NDArray

from grace_md import _core

Element = str | int
PairCutoffs = Mapping[tuple[Element, Element], float] | ArrayLike


@dataclass(frozen=True)
class PairList:
    """Pairs of one or several structures, sorted by (center, neighbor).

    Attributes
    ----------
    center, neighbor : int64 [n_pairs]
        Indices of the two atoms. Atoms of a list of structures are numbered through: structure s starts at
        ``first_atom[s]``.
    shift : int32 [n_pairs, 3]
        Image S of the neighbour, in units of the lattice vectors, relative to the positions as given (ASE's ``S``).
    vector : float64 [n_pairs, 3]
        r_ij = r_j - r_i + S @ cell, Angstrom.
    first_atom : int64 [n_structures + 1]
        Number of the first atom of each structure, then the number of atoms.
    """

    center: NDArray[np.int64]
    neighbor: NDArray[np.int64]
    shift: NDArray[np.int32]
    vector: NDArray[np.float64]
    first_atom: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.center)

    @property
    def distance(self) -> NDArray[np.float64]:
        """|r_ij|, float64 [n_pairs], Angstrom."""
        return np.asarray(np.linalg.norm(self.vector, axis=1))


def _atomic_number(element: Element) -> int:
    if isinstance(element, str):
        if element not in atomic_numbers:
            msg = f"`pair_cutoffs` names the element {element!r}, which does not exist; use symbols such as 'Si'"
            raise ValueError(msg)
        return int(atomic_numbers[element])
    return int(element)


def _cutoff_matrix(
    pair_cutoffs: PairCutoffs, elements: Sequence[Element] | None, numbers: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Atomic numbers of the species, and the matrix of their cutoffs (A; 0: pair is not listed)."""
    if isinstance(pair_cutoffs, Mapping):
        if elements is not None:
            msg = "`elements` goes with a matrix; a dict of `pair_cutoffs` names its elements itself"
            raise ValueError(msg)
        present = np.unique(numbers)
        table: dict[tuple[int, int], float] = {}
        for (a, b), value in pair_cutoffs.items():
            pair = (_atomic_number(a), _atomic_number(b))
            for key in (pair, pair[::-1]):
                if table.setdefault(key, float(value)) != float(value):
                    msg = f"`pair_cutoffs` gives two values for the pair ({a}, {b}): {table[key]} and {value}; keep one"
                    raise ValueError(msg)
        return present, np.array([[table.get((int(a), int(b)), 0.0) for b in present] for a in present]).reshape(
            len(present), len(present)
        )
    matrix = np.asarray(pair_cutoffs, dtype=np.float64)
    if matrix.ndim == 0:
        present = np.unique(numbers)
        return present, np.full((len(present), len(present)), float(matrix))
    if elements is None:
        msg = "`elements` is needed with a matrix of `pair_cutoffs`: it names the element of each row"
        raise ValueError(msg)
    rows = np.array([_atomic_number(e) for e in elements], dtype=np.int64)
    if matrix.shape != (len(rows), len(rows)):
        msg = f"`pair_cutoffs` must have shape [{len(rows)}, {len(rows)}] as `elements`, got {list(matrix.shape)}"
        raise ValueError(msg)
    if len(np.unique(rows)) != len(rows):
        msg = f"`elements` names an element twice: {list(elements)}; give each element one row"
        raise ValueError(msg)
    missing = np.setdiff1d(numbers, rows)
    if len(missing):
        unknown = ", ".join(chemical_symbols[z] for z in missing)
        msg = f"`elements` lacks {unknown} of the structure; add rows for them to `pair_cutoffs`"
        raise ValueError(msg)
    return rows, matrix


def neighbor_list(
    atoms: Atoms | Sequence[Atoms],
    pair_cutoffs: PairCutoffs,
    skin: float = 0.0,
    *,
    elements: Sequence[Element] | None = None,
    n_threads: int = 0,
) -> PairList:
    """All neighbour pairs of one structure or of a list of structures.

    Any cell will do: skewed, left-handed, much smaller than the cutoff, periodic in some directions only (the other
    rows may be zero); atoms may lie outside the cell. An empty structure has an empty list.

    Parameters
    ----------
    atoms : ase.Atoms or sequence of ase.Atoms
        Positions, cell, pbc and elements are read.
    pair_cutoffs : float, dict or [n_elements, n_elements] matrix
        Cutoffs in Angstrom: one for all pairs; or ``{("Si", "O"): 5.5, ...}``, each pair in either order, where pairs
        that are not named are not listed; or a matrix (row = centre) in the order of `elements`. Pairs with a cutoff
        <= 0 are not listed.
    skin : float
        Added to every positive cutoff, Angstrom.
    elements : sequence of str or int
        Symbols or atomic numbers of the rows of a matrix.
    n_threads : int
        0: OMP_NUM_THREADS or all cores. The result does not depend on it.

    Returns
    -------
    PairList

    Raises
    ------
    ValueError
        Non-finite positions, cells or cutoffs, a periodic cell without volume or with too many images within the
        cutoff (more than 511 along a direction), contradicting or incomplete cutoffs.

    Examples
    --------
    >>> from ase.build import bulk
    >>> pairs = neighbor_list(bulk("W", "bcc", a=3.2), 3.0)
    >>> len(pairs), float(pairs.distance.max().round(3))
    (8, 2.771)
    """
    structures = [atoms] if isinstance(atoms, Atoms) else list(atoms)
    first_atom = np.concatenate([[0], np.cumsum([len(a) for a in structures], dtype=np.int64)]).astype(np.int64)
    numbers = np.concatenate([np.zeros(0, np.int64), *(a.numbers for a in structures)]).astype(np.int64)
    positions = np.concatenate([np.zeros((0, 3)), *(a.positions for a in structures)])
    cells = np.array([a.cell[:] for a in structures], dtype=np.float64).reshape(-1, 3, 3)
    periodic = np.array([a.pbc for a in structures], dtype=np.bool_).reshape(-1, 3)
    rows, matrix = _cutoff_matrix(pair_cutoffs, elements, numbers)
    order = np.argsort(rows)
    species = order[np.searchsorted(rows, numbers, sorter=order)].astype(np.int32)
    found = _core.build_neighbors(positions, species, cells, periodic, first_atom, matrix, skin, n_threads)
    return PairList(
        center=np.repeat(np.arange(len(numbers), dtype=np.int64), np.diff(found.first)),
        neighbor=found.neighbor.astype(np.int64),
        shift=found.shift,
        vector=found.vectors(positions, cells),
        first_atom=first_atom,
    )


class VerletList:
    """Neighbour list of a moving structure, built with a skin and reused while it is certain to be complete.

    The list holds every pair that was closer than cutoff + skin when it was built. A later call removes the affine
    strain of the cell and a common translation from the displacements; with u the largest displacement that is left and
    s the smallest stretch of the strain, no pair within its cutoff is missing while 2 u < s (cutoff + skin) - cutoff.

    Atoms may cross the boundaries of the cell: pass positions as they move, not wrapped. Wrapping them again is safe
    too, it only costs a new list.

    Parameters
    ----------
    pair_cutoffs : float [n_species, n_species]
        Cutoffs in Angstrom, row = centre; pairs with a cutoff <= 0 are never listed.
    skin : float
        Angstrom; 0 builds a new list whenever an atom moved.
    n_threads : int
        0: OMP_NUM_THREADS or all cores.

    Attributes
    ----------
    n_updates, n_builds : int
        Calls of `update`, and how many of them built a list.
    """

    def __init__(self, pair_cutoffs: ArrayLike, skin: float = 0.5, n_threads: int = 0) -> None:
        self.pair_cutoffs = np.array(pair_cutoffs, dtype=np.float64, ndmin=2)
        if not (np.isfinite(skin) and skin >= 0.0):
            msg = f"`skin` must be finite and >= 0, got {skin}"
            raise ValueError(msg)
        listed = self.pair_cutoffs[self.pair_cutoffs > 0.0]
        self._smallest = float(listed.min(initial=np.inf)) if listed.size else 0.0
        self._largest = float(listed.max(initial=0.0))
        self.skin = float(skin)
        self.n_threads = n_threads
        self.n_updates = 0
        self.n_builds = 0
        self._list: _core.NeighborList | None = None
        self._built: tuple[NDArray[Any], ...] = ()

    def update(self, positions: ArrayLike, cell: ArrayLike, pbc: ArrayLike, species: ArrayLike) -> _core.NeighborList:
        """Return a list that is complete for this structure; the previous one if that is still so.

        Parameters
        ----------
        positions : [n_atoms, 3]
            Angstrom.
        cell : [3, 3]
            Rows are lattice vectors, Angstrom.
        pbc : bool or [3]
            Periodic directions.
        species : int [n_atoms]
            Rows of `pair_cutoffs`.

        Returns
        -------
        NeighborList
            With pairs up to cutoff + skin as of the last build; distances must be checked against the cutoff. Its
            images refer to the positions passed here, crossed boundaries included.

        Raises
        ------
        ValueError
            As `neighbor_list`.
        """
        positions = np.array(positions, dtype=np.float64).reshape(-1, 3)
        cells = np.array(cell, dtype=np.float64).reshape(1, 3, 3)
        periodic = np.array(np.broadcast_to(np.asarray(pbc, dtype=bool), 3)).reshape(1, 3)
        species = np.array(species, dtype=np.int32).reshape(-1)
        self.n_updates += 1
        if self._list is None or not self._is_complete(positions, cells, periodic, species):
            first_atom = np.array([0, len(positions)], dtype=np.int64)
            self._list = _core.build_neighbors(
                positions, species, cells, periodic, first_atom, self.pair_cutoffs, self.skin, self.n_threads
            )
            self._built = (positions, cells, periodic, species)
            self.n_builds += 1
        return self._list

    def _is_complete(
        self, positions: NDArray[Any], cells: NDArray[Any], periodic: NDArray[Any], species: NDArray[Any]
    ) -> bool:
        positions0, cells0, periodic0, species0 = self._built
        if not (np.array_equal(species, species0) and np.array_equal(periodic, periodic0)):
            return False
        if len(positions) != len(positions0):
            return False
        if np.array_equal(positions, positions0) and np.array_equal(cells, cells0):
            return True
        first_atom = np.array([0, len(positions)], dtype=np.int64)
        return not _core.max_displacement_exceeds(
            positions0, cells0, periodic, first_atom, positions, cells, self._smallest, self._largest, self.skin
        )
