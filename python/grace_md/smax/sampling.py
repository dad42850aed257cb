"""Random candidates: elements, numbers of atoms, radii, density, cell and places (section IV.1 of the paper).

Laws: the number of distinct elements and their identities are drawn first and kept. Numbers of atoms, radii, density
and cell are drawn together until they fit; so light elements, whose small cells are too thin, get more atoms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from ase.formula import Formula
from numpy.typing import NDArray

from grace_md.smax.candidate import Candidate, Mode
from grace_md.smax.cells import draw_cell, sphere_volume
from grace_md.smax.config_checks import element_numbers
from grace_md.smax.radii import draw_radii
from grace_md.strict import ConfigError

if TYPE_CHECKING:
    from grace_md.smax.config import CompositionSettings, SmaxConfig

__all__ = ["Sampler", "atom_number_law", "element_number_law", "element_weights"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

LIGHT = 18  # H to Ar: the first three rows
BLOCK = 256  # mixtures drawn at once in the search for a neutral one
NEUTRAL_ATTEMPTS = 200
LARGEST_EXPONENT = 40.0  # of the power law of atom numbers: all weight on one end


def element_weights(config: SmaxConfig) -> tuple[Integers, Floats]:
    """Atomic numbers to draw from and their probabilities, both [n]."""
    numbers = np.array(element_numbers(config), dtype=np.int64)
    weights = np.ones(len(numbers))
    if config.elements.weights == "rows":
        weights[numbers <= LIGHT] = config.elements.light_weight
    elif isinstance(config.elements.weights, dict):
        for symbol, weight in config.elements.weights.items():
            weights[numbers == atomic_numbers[symbol]] = weight
    return numbers, weights / weights.sum()


def element_number_law(settings: CompositionSettings, available: int) -> Floats:
    """Probabilities of 1, 2, ... distinct elements, at most `available` and `max_atoms`.

    The list of `n_elements`, and what it leaves as a geometric tail up to `max_elements`; cut and normalised.
    """
    head = np.array(settings.n_elements)
    tail = settings.tail_ratio ** np.arange(max(0, settings.max_elements - len(head)))
    if len(tail):
        tail *= max(0.0, 1.0 - head.sum()) / tail.sum()
    law = np.concatenate([head, tail])[: min(available, settings.max_atoms)]
    if not law.sum() > 0.0:
        raise ConfigError(
            f"`composition.n_elements` = {settings.n_elements} leaves no chance for at most {len(law)} elements, which "
            "is what `elements.symbols` and `composition.max_atoms` allow; give a probability to fewer elements."
        )
    return np.asarray(law / law.sum())


def atom_number_law(settings: CompositionSettings, element_law: Floats) -> tuple[Integers, Floats]:
    """Numbers of atoms and their probabilities for one element; for k elements, the part with n >= k holds.

    Raises
    ------
    ConfigError
        If the power law cannot have the mean asked for.
    """
    if isinstance(settings.n_atoms, dict):
        sizes = np.array(sorted(int(key) for key in settings.n_atoms), dtype=np.int64)
        weights = np.array([settings.n_atoms[str(n)] for n in sizes])
    else:
        sizes = np.arange(settings.min_atoms, settings.max_atoms + 1, dtype=np.int64)
        exponent = {"uniform": 0.0, "log-uniform": 1.0}.get(settings.n_atoms)
        weights = sizes ** -(exponent if exponent is not None else _exponent(settings, sizes, element_law))
    if sizes[weights > 0.0].max() < len(element_law):
        raise ConfigError(
            f"`composition.n_atoms` allows at most {sizes[weights > 0.0].max()} atoms, but `composition.n_elements` up "
            f"to {len(element_law)} elements; lower max_elements or allow more atoms."
        )
    return sizes, weights / weights.sum()


def _exponent(settings: CompositionSettings, sizes: Integers, element_law: Floats) -> float:
    """The a of p(n) ~ n^-a for which the mean over all numbers of elements is `mean_atoms`, by bisection."""

    def mean(a: float) -> float:
        weights = (sizes / sizes[-1]) ** -a if a < 0.0 else (sizes / sizes[0]) ** -a
        total = 0.0
        for k, probability in enumerate(element_law, start=1):
            part = np.where(sizes >= k, weights, 0.0)
            total += probability * float(part @ sizes / part.sum()) if part.sum() > 0.0 else 0.0
        return total

    low, high = -LARGEST_EXPONENT, LARGEST_EXPONENT
    if len(sizes) == 1:
        return 0.0
    if not mean(high) <= settings.mean_atoms <= mean(low):
        raise ConfigError(
            f"`composition.mean_atoms` = {settings.mean_atoms:g} cannot be reached with these numbers of elements: the "
            f"mean lies between {mean(high):.2f} and {mean(low):.2f}."
        )
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if mean(middle) > settings.mean_atoms else (low, middle)
    return 0.5 * (low + high)


class Sampler:
    """Draws candidates of a configuration; candidate k is the same whoever draws it.

    Raises
    ------
    ConfigError
        If the laws of the configuration contradict each other.
    """

    def __init__(self, config: SmaxConfig) -> None:
        self.config = config
        self.elements, self.element_probabilities = element_weights(config)
        self.element_law = element_number_law(config.composition, len(self.elements))
        self.sizes, self.size_law = atom_number_law(config.composition, self.element_law)

    def draw(self, index: int) -> Candidate:
        """Draw candidate number `index`.

        Raises
        ------
        ConfigError
            If no cell fits its elements, or no mixture of them is neutral.
        """
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.config.seed, index])))
        mode = self._draw_mode(rng)
        extreme = bool(rng.random() < self.config.radii.extreme_fraction)
        elements = self.draw_elements(rng)
        for _ in range(self.config.cell.max_draws):
            numbers = self.draw_numbers(rng, elements)
            radii = draw_radii(rng, numbers, self.config.radii)
            core_factor = self.config.radii.core_factor_extreme if extreme else self.config.radii.core_factor
            volume = sphere_volume(radii) / self.draw_density(rng, extreme)
            cell = draw_cell(rng, volume, core_factor * float(radii.max()), self.config.cell)
            if cell is not None:
                break
        else:
            raise ConfigError(
                f"no cell fits candidate {index} of {' '.join(chemical_symbols[z] for z in elements)} in "
                f"`cell.max_draws` = {self.config.cell.max_draws} attempts: with `density.phi_min` = "
                f"{self.config.density.phi_min:g} and at most {self.sizes.max()} atoms, cells are thinner than "
                f"`cell.min_height` = {self.config.cell.min_height:g} A or longer than `cell.max_aspect`; lower one of "
                "these or allow more atoms."
            )
        return Candidate(
            index=index,
            numbers=numbers,
            positions=rng.random((len(numbers), 3)) @ cell,
            cell=cell,
            radii=radii,
            cutoffs=self.config.radii.cutoff_factor * radii,
            core_radii=core_factor * radii,
            mode=mode,
            extreme=extreme,
        )

    def _draw_mode(self, rng: np.random.Generator) -> Mode:
        settings = self.config.statistics
        is_atom = bool(rng.random() < settings.atom_fraction)
        return ("atom" if is_atom else "config") if settings.mode == "mixed" else settings.mode

    def draw_elements(self, rng: np.random.Generator) -> Integers:
        """Draw distinct elements, atomic numbers [k], one after the other by their weights; for formulas, all of one.

        In the rule ``formulas``, the result repeats elements as one unit of the formula does.
        """
        settings = self.config.composition
        if settings.rule == "formulas":
            texts = list(settings.formulas)
            weights = np.array([settings.formulas[text] for text in texts])
            counts = Formula(texts[rng.choice(len(texts), p=weights / weights.sum())]).count()
            return np.array([atomic_numbers[s] for s, n in counts.items() for _ in range(n)], dtype=np.int64)
        while True:
            k = 1 + int(rng.choice(len(self.element_law), p=self.element_law))
            # The smallest of exponential waiting times with rates w: sampling without replacement in proportion to w.
            waiting = rng.exponential(size=len(self.elements)) / self.element_probabilities
            chosen = self.elements[np.argsort(waiting)[:k]]
            if settings.rule == "free" or self._can_be_neutral(chosen):
                return chosen

    def _charges(self, element: int) -> list[int]:
        return self.config.composition.charges[chemical_symbols[element]]

    def _can_be_neutral(self, elements: Integers) -> bool:
        lowest, highest = (sum(f(self._charges(z)) for z in elements) for f in (min, max))
        signs = [q for z in elements for q in self._charges(z)]
        return (lowest <= 0 <= highest) or min(signs) < 0 < max(signs)

    def draw_size(self, rng: np.random.Generator, at_least: int, unit: int = 1) -> int:
        """Draw a number of atoms, at least `at_least` and a multiple of `unit`."""
        weights = np.where((self.sizes >= at_least) & (self.sizes % unit == 0), self.size_law, 0.0)
        if not weights.sum() > 0.0:
            return unit * -(-at_least // unit)  # no multiple has a weight: the smallest one
        return int(rng.choice(self.sizes, p=weights / weights.sum()))

    def draw_numbers(self, rng: np.random.Generator, elements: Integers) -> Integers:
        """Deal out atoms to elements, atomic numbers [N] sorted: each has one, the rest by Dirichlet weights."""
        settings = self.config.composition
        if settings.rule == "formulas":
            return np.sort(np.tile(elements, self.draw_size(rng, len(elements), len(elements)) // len(elements)))
        if settings.rule == "neutral":
            return np.sort(np.repeat(elements, self._neutral_counts(rng, elements)))
        k = len(elements)
        shares = rng.dirichlet(np.full(k, settings.dirichlet))
        counts = 1 + rng.multinomial(self.draw_size(rng, k) - k, shares)
        return np.sort(np.repeat(elements, counts))

    def _neutral_counts(self, rng: np.random.Generator, elements: Integers) -> Integers:
        """Counts [k] for which oxidation states, drawn for each atom on its own, add up to zero."""
        k = len(elements)
        for _ in range(NEUTRAL_ATTEMPTS):
            shares = rng.dirichlet(np.full(k, self.config.composition.dirichlet), BLOCK)
            counts = 1 + rng.multinomial(self.draw_size(rng, k) - k, shares)
            total = np.zeros(BLOCK, dtype=np.int64)
            for column, element in enumerate(elements):
                states = self._charges(int(element))
                total += rng.multinomial(counts[:, column], np.full(len(states), 1.0 / len(states))) @ states
            neutral = np.flatnonzero(total == 0)
            if len(neutral):
                return cast(Integers, counts[neutral[0]])
        raise ConfigError(
            f"`composition.rule` = neutral: no neutral mixture of {' '.join(chemical_symbols[z] for z in elements)} "
            f"with at most {self.sizes.max()} atoms was found; allow more atoms or correct `composition.charges`."
        )

    def draw_density(self, rng: np.random.Generator, extreme: bool) -> float:
        """Draw a packing number: log-uniform, with small shares of low and, for extreme candidates, high density."""
        density, radii = self.config.density, self.config.radii
        is_high, is_low = rng.random(2)
        low, high = density.phi_min, density.phi_max
        if extreme and is_high * radii.extreme_fraction < density.high_fraction:
            low, high = density.phi_max, density.phi_highest
        elif is_low * (1.0 - density.high_fraction) < density.low_fraction:
            low, high = density.phi_lowest, density.phi_min
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))
