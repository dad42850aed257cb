"""Entries of labelled sets: structures with their labels in the units of the program, and where they came from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import gcd
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import chemical_symbols

from grace_md.training.data.labels import CANDIDATES, LABELS, Frame, LabelKeys, Record, extract, resolve_keys
from grace_md.training.data.readers import Part, Source, expand, read_part, sample_frames, scan

__all__ = ["Entry", "OpenSource", "atoms_of_frame", "batches", "labelled_atoms", "open_sources"]

PART_ATOMS = 20_000  # of one piece of a file that is read, journalled and resumed as a whole
BATCH_ATOMS = 4_000  # of one call of a rule: enough to fill the threads of a model

# Keys of rows and results that describe another state than the structure itself: not carried along.
LEFT_OUT = {
    "id", "unique_id", "ctime", "mtime", "user", "calculator", "calculator_parameters", "constraints", "free_energy",
    "energies", "stresses", "stress", "forces", "energy", "virial", "virials", "dipole", "charges", "magmom", "magmoms",
    "natoms", "cell", "pbc", "numbers", "positions", "data", "key_value_pairs",
}  # fmt: skip
LABEL_NAMES = {name for names in CANDIDATES.values() for name in names}  # also of other labels than those in use


@dataclass
class Entry:
    """One structure of a set.

    Attributes
    ----------
    group : number of the set, in the order in which they were given
    source : name of its file
    frame : as read
    record : its labels in eV, eV/A, eV/A^3, NaN where missing; None where they are not valid
    problem : why they are not, empty otherwise
    keys : of the labels, as resolved for its file
    """

    group: int
    source: str
    frame: Frame
    record: Record | None
    problem: str
    keys: LabelKeys

    @property
    def row(self) -> int:
        """Number of the structure in its file, from 0."""
        return self.frame.row

    @cached_property
    def counts(self) -> dict[int, int]:
        """Atoms by atomic number."""
        numbers, counts = np.unique(self.frame.numbers, return_counts=True)
        return {int(z): int(n) for z, n in zip(numbers, counts, strict=True)}

    @cached_property
    def symbols(self) -> frozenset[str]:
        """Chemical symbols that occur."""
        return frozenset(chemical_symbols[z] for z in self.counts)

    @cached_property
    def composition(self) -> str:
        """Reduced formula in the order of atomic numbers: O2Si1 for Si4O8."""
        divisor = gcd(*self.counts.values()) if self.counts else 1
        return "".join(f"{chemical_symbols[z]}{n // divisor}" for z, n in sorted(self.counts.items()))

    @cached_property
    def atoms(self) -> Atoms:
        """The bare structure: numbers, positions, cell, periodic directions."""
        frame = self.frame
        return Atoms(frame.numbers, positions=frame.positions, cell=frame.cell, pbc=frame.pbc)


def _carried(frame: Frame, hidden: set[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split what a file says beside the labels into values of the structure and arrays over its atoms."""
    info: dict[str, Any] = {}
    arrays: dict[str, Any] = {}
    for key, value in frame.values.items():
        if key in hidden or key.lower() in LABEL_NAMES or value is None:
            continue
        if isinstance(value, (str, bool, int, float, np.generic)):
            info[key] = value.item() if isinstance(value, np.generic) else value
        elif isinstance(value, (list, tuple, np.ndarray)):
            array = np.asarray(value)
            if array.dtype.kind in "biuf" and array.size:
                target = arrays if len(array) == len(frame.numbers) and isinstance(value, np.ndarray) else info
                target[key] = array
    return info, arrays


def atoms_of_frame(frame: Frame, keys: LabelKeys | None = None) -> Atoms:
    """Return a structure without its labels, with everything else that its file says in `info` and `arrays`."""
    hidden = LEFT_OUT | ({str(getattr(keys, label)) for label in LABELS} if keys is not None else set())
    info, arrays = _carried(frame, hidden)
    atoms = Atoms(frame.numbers, positions=frame.positions, cell=frame.cell, pbc=frame.pbc, info=info)
    for key, values in arrays.items():
        atoms.set_array(key, values)
    return atoms


def labelled_atoms(entry: Entry, energy_offset: float = 0.0) -> Atoms:
    """Return a structure with its labels as ASE has them; `energy_offset` (eV) is subtracted from its energy."""
    record = entry.record
    if record is None:
        raise ValueError(f"{entry.frame.where} has no valid labels: {entry.problem}")
    atoms = atoms_of_frame(entry.frame, entry.keys)
    results: dict[str, Any] = {}
    if np.isfinite(record.energy):
        results["energy"] = record.energy - energy_offset
    if np.isfinite(record.forces).any():
        results["forces"] = record.forces
    if np.isfinite(record.stress).all():
        results["stress"] = record.stress
    atoms.calc = SinglePointCalculator(atoms, **results)
    atoms.info.update(merge_source=entry.source, merge_row=entry.row)
    if energy_offset:
        atoms.info["merge_energy_offset"] = energy_offset
    return atoms


@dataclass
class OpenSource:
    """A file that was scanned, whose keys are known.

    Attributes
    ----------
    group : number of the set it belongs to
    source : what was asked for
    keys : resolved
    parts : pieces that are read one at a time
    """

    group: int
    source: Source
    keys: LabelKeys
    parts: list[Part]

    @property
    def n_rows(self) -> int:
        """Structures of the file that were selected."""
        return sum(len(part.rows) for part in self.parts)

    def read(self, part: Part) -> Iterator[Entry]:
        """Yield the entries of one piece; labels that are not valid make an entry with a `problem`."""
        for frame in read_part(self.source, part):
            record, problem = None, ""
            try:
                record = extract(frame, self.keys, self.source.keys)
            except ValueError as error:
                problem = str(error)
            yield Entry(self.group, self.source.label, frame, record, problem, self.keys)


def open_sources(
    sets: Sequence[Source | str], advance: Callable[[int], None] = lambda _: None, part_atoms: int = PART_ATOMS
) -> list[OpenSource]:
    """Scan the files of all sets and find out the keys of their labels.

    Raises
    ------
    FileNotFoundError, ValueError, LabelError
        As the readers of training data do.
    """
    found = []
    for group, given in enumerate(sets):
        for source in expand(Source(given) if isinstance(given, str) else given):
            parts = scan(source, part_atoms, advance)
            keys = resolve_keys(source.keys, sample_frames(source, parts), source.label)
            found.append(OpenSource(group, source, keys, parts))
    return found


def batches(entries: Iterator[Entry], n_atoms: int = BATCH_ATOMS) -> Iterator[list[Entry]]:
    """Group successive entries into lists of about `n_atoms` atoms."""
    chosen: list[Entry] = []
    count = 0
    for entry in entries:
        chosen.append(entry)
        count += len(entry.frame.numbers)
        if count >= n_atoms:
            yield chosen
            chosen, count = [], 0
    if chosen:
        yield chosen


def plain_info(atoms: Atoms) -> Mapping[str, Any]:
    """Return `atoms.info` with NumPy scalars as numbers of Python."""
    return {key: value.item() if isinstance(value, np.generic) else value for key, value in atoms.info.items()}
