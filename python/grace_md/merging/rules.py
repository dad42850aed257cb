"""Rules that drop entries when sets are merged, each with the reason in words.

A rule looks at a batch of entries and answers, for each, None (keep) or why it is dropped. Rules are named in a list
such as ``plus-u,pseudopotential:Gd+Eu+Yb,max-force:50``; the first one that objects is the one that counts.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from ase.data import atomic_numbers, covalent_radii

from grace_md._core import build_neighbors
from grace_md.merging.entries import Entry

__all__ = [
    "Elements", "MaxForce", "MaxStress", "MinDistance", "PlusU", "Predicate", "Pseudopotential", "Rule", "Valid",
    "contacts",
]  # fmt: skip

# Metals with a Hubbard U in oxides and fluorides of OMat24, the same list for O and F (package fairchem-data-omat).
PLUS_U_METALS = ("Co", "Cr", "Fe", "Mn", "Mo", "Ni", "V", "W")
PLUS_U_ANIONS = ("O", "F")
# Elements whose projector sets differ between OMat24 and the sets that VASP recommends.
CLASHING = ("Eu", "Gd", "Yb")


class Rule(ABC):
    """One reason to drop entries.

    Attributes
    ----------
    name : as it is written in a list of rules
    stateful : whether the answer depends on the entries seen before; such rules are shown every entry that is kept
    """

    name: str
    stateful = False

    @abstractmethod
    def check(self, entries: Sequence[Entry]) -> list[str | None]:
        """Return for each entry why it is dropped, or None."""

    def observe(self, entries: Sequence[Entry]) -> None:  # noqa: B027 - most rules have no memory
        """Take note of entries that are kept (stateful rules only, when a merge is resumed)."""

    def describe(self) -> str:
        """Return name and setting, as they may be written in a list of rules."""
        return self.name


def _symbols(names: Iterable[str], rule: str) -> frozenset[str]:
    found = frozenset(names)
    unknown = sorted(name for name in found if name not in atomic_numbers or name == "X")
    if unknown or not found:
        what = f"{unknown[0]!r} is no element" if unknown else "it lists no element"
        raise ValueError(f"rule `{rule}`: {what}; write symbols with + between them, such as {rule}:Gd+Eu.")
    return found


def _positive(value: float, rule: str, unit: str) -> float:
    if not (np.isfinite(value) and value > 0.0):
        raise ValueError(f"rule `{rule}`: {value} is not a number > 0 ({unit}).")
    return value


class Valid(Rule):
    """Always on: structures without atoms or volume, labels that are infinite or of the wrong shape."""

    name = "valid"

    def check(self, entries: Sequence[Entry]) -> list[str | None]:
        """Return the problem of each entry."""
        return [entry.problem or None for entry in entries]


class PlusU(Rule):
    """Entries that were computed with a Hubbard U: an anion (O, F) together with one of eight metals."""

    name = "plus-u"

    def __init__(self, metals: Iterable[str] = PLUS_U_METALS, anions: Iterable[str] = PLUS_U_ANIONS) -> None:
        self.metals, self.anions = _symbols(metals, self.name), _symbols(anions, self.name)

    def check(self, entries: Sequence[Entry]) -> list[str | None]:
        """Name the metals and anions."""
        found: list[str | None] = []
        for entry in entries:
            metals, anions = self.metals & entry.symbols, self.anions & entry.symbols
            found.append(f"{'+'.join(sorted(metals))} with {'+'.join(sorted(anions))}" if metals and anions else None)
        return found

    def describe(self) -> str:
        """Return the name, with the metals where they are not the usual ones."""
        usual = self.metals == frozenset(PLUS_U_METALS)
        return self.name if usual else f"{self.name}:{'+'.join(sorted(self.metals))}"


class Pseudopotential(Rule):
    """Entries with elements whose pseudopotentials differ between the sets."""

    name = "pseudopotential"

    def __init__(self, elements: Iterable[str] = CLASHING) -> None:
        self.elements = _symbols(elements, self.name)

    def check(self, entries: Sequence[Entry]) -> list[str | None]:
        """Name the elements."""
        return ["+".join(sorted(self.elements & entry.symbols)) or None for entry in entries]

    def describe(self) -> str:
        """Return name and elements."""
        return f"{self.name}:{'+'.join(sorted(self.elements))}"


class Elements(Rule):
    """Entries with other elements than those of a list."""

    name = "elements"

    def __init__(self, elements: Iterable[str]) -> None:
        self.elements = _symbols(elements, self.name)

    def check(self, entries: Sequence[Entry]) -> list[str | None]:
        """Name the elements that are not wanted."""
        return ["+".join(sorted(entry.symbols - self.elements)) or None for entry in entries]

    def describe(self) -> str:
        """Return name and elements."""
        return f"{self.name}:{'+'.join(sorted(self.elements))}"


class MaxForce(Rule):
    """Entries with a force longer than a limit in eV/A."""

    name = "max-force"

    def __init__(self, limit: float) -> None:
        self.limit = _positive(limit, self.name, "eV/A")

    def check(self, entries: Sequence[Entry]) -> list[str | None]:
        """Compare the longest force vector; missing forces pass."""
        found: list[str | None] = []
        for entry in entries:
            lengths = [] if entry.record is None else np.linalg.norm(entry.record.forces, axis=1)
            largest = float(np.max(lengths, initial=0.0, where=np.isfinite(lengths))) if len(lengths) else 0.0
            found.append(f"{largest:.4g} eV/A" if largest > self.limit else None)
        return found

    def describe(self) -> str:
        """Return name and limit."""
        return f"{self.name}:{self.limit:g}"


class MaxStress(Rule):
    """Entries with a stress component larger than a limit in eV/A^3."""

    name = "max-stress"

    def __init__(self, limit: float) -> None:
        self.limit = _positive(limit, self.name, "eV/A^3")

    def check(self, entries: Sequence[Entry]) -> list[str | None]:
        """Compare the largest component in magnitude; missing stresses pass."""
        found: list[str | None] = []
        for entry in entries:
            largest = 0.0 if entry.record is None else float(np.abs(entry.record.stress).max())
            found.append(f"{largest:.4g} eV/A^3" if largest > self.limit else None)
        return found

    def describe(self) -> str:
        """Return name and limit."""
        return f"{self.name}:{self.limit:g}"


def contacts(
    positions: np.ndarray, cells: np.ndarray, periodic: np.ndarray, first: np.ndarray, radii: np.ndarray
) -> np.ndarray:
    """Return, for each structure, the smallest distance / (radius i + radius j), inf where no pair is below 1.

    Parameters
    ----------
    positions : [n, 3], A, of all structures one after the other; cells : [s, 3, 3], rows; periodic : [s, 3]
    first : [s + 1], first atom of each structure
    radii : [n], A, of the atoms
    """
    n_structures = len(first) - 1
    smallest = np.full(n_structures, np.inf)
    if not len(positions):
        return smallest
    cutoff = np.array([[2.0 * float(radii.max())]])
    species = np.zeros(len(positions), dtype=np.int32)
    pairs = build_neighbors(positions, species, cells, periodic, first, cutoff)
    if not pairs.n_pairs:
        return smallest
    center = np.repeat(np.arange(pairs.n_atoms), np.diff(pairs.first))
    ratio = np.linalg.norm(pairs.vectors(positions, cells), axis=1) / (radii[center] + radii[pairs.neighbor])
    structure = np.searchsorted(first, center, side="right") - 1
    np.minimum.at(smallest, structure, ratio)
    return np.where(smallest < 1.0, smallest, np.inf)


class MinDistance(Rule):
    """Entries with two atoms closer than a fraction of the sum of their covalent radii."""

    name = "min-distance"

    def __init__(self, fraction: float) -> None:
        self.fraction = _positive(fraction, self.name, "fraction of the sum of the covalent radii")

    def check(self, entries: Sequence[Entry]) -> list[str | None]:
        """Look for pairs, periodic images included."""
        frames = [entry.frame for entry in entries]
        if not frames:
            return []
        sizes = [len(frame.numbers) for frame in frames]
        found = contacts(
            np.concatenate([frame.positions for frame in frames]),
            np.array([frame.cell for frame in frames]),
            np.array([frame.pbc for frame in frames]),
            np.cumsum([0, *sizes], dtype=np.int64),
            self.fraction * covalent_radii[np.concatenate([frame.numbers for frame in frames])],
        )
        return [f"{self.fraction * x:.3f} of the covalent radii" if np.isfinite(x) else None for x in found]

    def describe(self) -> str:
        """Return name and limit."""
        return f"{self.name}:{self.fraction:g}"


class Predicate(Rule):
    """A function of the user: ``module:function`` takes an `Entry` and returns None or False to keep it, or why not."""

    name = "predicate"

    def __init__(self, path: str) -> None:
        module, _, function = path.rpartition(":")
        try:
            self.function: Callable[[Entry], object] = getattr(importlib.import_module(module), function)
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(
                f"rule `predicate:{path}` cannot be imported ({error}); write predicate:package.module:function of a "
                "module on the Python path."
            ) from None
        self.path = path

    def check(self, entries: Sequence[Entry]) -> list[str | None]:
        """Call the function."""
        answers = [self.function(entry) for entry in entries]
        return [None if answer in (None, False) else self.path if answer is True else str(answer) for answer in answers]

    def describe(self) -> str:
        """Return name and import path."""
        return f"{self.name}:{self.path}"
