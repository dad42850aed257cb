"""Values that cannot be used, and settings that contradict each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from ase.data import chemical_symbols
from ase.formula import Formula

from grace_md.smax.radii import covalent_radius, element_number
from grace_md.strict import ConfigError

if TYPE_CHECKING:
    from grace_md.smax.config import CompositionSettings, DensitySettings, RadiusSettings, SmaxConfig

__all__ = ["ALL_ELEMENTS", "check", "element_numbers"]

ALL_ELEMENTS = 88  # H to Ra: all elements of the paper's own structures
# Kepler's limit for equal spheres; what spheres of different sizes can reach beyond it does not matter here.
CLOSEST_PACKING = 0.74

POSITIVE = (
    "radii.beta_a",
    "radii.beta_b",
    "radii.width_lo",
    "radii.cutoff_factor",
    "radii.core_factor",
    "radii.core_factor_extreme",
    "elements.light_weight",
    "composition.dirichlet",
    "density.phi_lowest",
    "cell.min_determinant",
    "cell.min_height",
    "statistics.seed_items_per_feature",
    "statistics.ridge_condition",
    "descriptor.rfac0",
    "descriptor.power",
    "optimiser.max_displacement",
    "optimiser.first_displacement",
    "optimiser.fire_step",
)
NOT_NEGATIVE = (
    "objective.core_strength",
    "statistics.ridge",
    "statistics.restart_after",
    "optimiser.gradient_tolerance",
    "optimiser.objective_tolerance",
    "optimiser.core_iterations",
    "optimiser.give_up_after",
    "optimiser.give_up_horizon",
    "optimiser.core_gradient_tolerance",
    "optimiser.core_objective_tolerance",
    "descriptor.rmin0",
    "descriptor.twojmax",
    "cell.strain",
    "seed",
)
SHARES = (
    "descriptor.power",
    "radii.extreme_fraction",
    "density.high_fraction",
    "density.low_fraction",
    "statistics.atom_fraction",
    "checks.core_tolerance",
    "composition.tail_ratio",
    "optimiser.armijo",
)
AT_LEAST_ONE = (
    "composition.min_atoms",
    "composition.max_elements",
    "optimiser.history",
    "optimiser.max_iterations",
    "optimiser.max_evaluations",
    "optimiser.max_backtracks",
    "cell.max_draws",
    "cell.shape_draws",
    "cell.max_aspect",
)


def element_numbers(config: SmaxConfig) -> list[int]:
    """Atomic numbers of the elements to draw from, sorted.

    Raises
    ------
    ConfigError
        For an empty list, a repeated or an unknown symbol.
    """
    if config.elements.symbols == "all":
        return list(range(1, ALL_ELEMENTS + 1))
    numbers = [element_number(symbol, "elements.symbols") for symbol in config.elements.symbols]
    if not numbers:
        raise ConfigError("`elements.symbols` is an empty list; name at least one element.")
    for number in numbers:
        if numbers.count(number) > 1:
            raise ConfigError(f"`elements.symbols` names {chemical_symbols[number]} twice; name it once.")
    return sorted(numbers)


def check(config: SmaxConfig) -> None:
    """Raise ConfigError for the first setting that cannot be used."""
    _check_ranges(config)
    numbers = element_numbers(config)
    _check_elements(config, numbers)
    _check_radii(config.radii, numbers)
    _check_composition(config.composition, numbers)
    _check_density(config.density, config.radii)


def _value(config: SmaxConfig, name: str) -> float:
    value = config
    for part in name.split("."):
        value = getattr(value, part)
    return value  # type: ignore[return-value]


def _check_ranges(config: SmaxConfig) -> None:
    rules: tuple[tuple[tuple[str, ...], Callable[[float], bool], str], ...] = (
        (POSITIVE, lambda v: v > 0, "must be positive"),
        (NOT_NEGATIVE, lambda v: v >= 0, "must not be negative"),
        (SHARES, lambda v: 0 <= v <= 1, "must lie between 0 and 1"),
        (AT_LEAST_ONE, lambda v: v >= 1, "must be at least 1"),
    )
    for names, good, text in rules:
        for name in names:
            if not good(_value(config, name)):
                raise ConfigError(f"`{name}` = {_value(config, name):g} {text}.")


def _check_elements(config: SmaxConfig, numbers: list[int]) -> None:
    weights = config.elements.weights
    if isinstance(weights, dict):
        for symbol, weight in weights.items():
            if element_number(symbol, "elements.weights") not in numbers:
                raise ConfigError(f"`elements.weights` names {symbol}, which `elements.symbols` lacks; add it there.")
            if weight <= 0.0:
                raise ConfigError(f"`elements.weights.{symbol}` = {weight:g} must be positive; leave out the element.")


def _check_radii(radii: RadiusSettings, numbers: list[int]) -> None:
    for symbol, radius in radii.table.items():
        element_number(symbol, "radii.table")
        if radius <= 0.0:
            raise ConfigError(f"`radii.table.{symbol}` = {radius:g} must be a positive length in Angstrom.")
    for number in numbers:
        covalent_radius(number, radii)
    if radii.width_hi < radii.width_lo:
        raise ConfigError(f"`radii.width_hi` = {radii.width_hi:g} is below `radii.width_lo` = {radii.width_lo:g}.")
    if radii.cutoff_factor <= radii.core_factor:
        raise ConfigError(
            f"`radii.cutoff_factor` = {radii.cutoff_factor:g} must exceed `radii.core_factor` = {radii.core_factor:g}; "
            "otherwise no atom sees a neighbour."
        )


def _check_composition(settings: CompositionSettings, numbers: list[int]) -> None:
    head = np.array(settings.n_elements)
    if not len(head) or np.any(head < 0.0) or not 0.0 < head.sum() <= 1.0 + 1e-9:
        raise ConfigError(
            f"`composition.n_elements` = {settings.n_elements} must be probabilities of 1, 2, ... elements that add up "
            "to at most 1."
        )
    if settings.max_atoms < settings.min_atoms:
        raise ConfigError(
            f"`composition.max_atoms` = {settings.max_atoms} is below `composition.min_atoms` = {settings.min_atoms}."
        )
    if settings.n_atoms == "power" and not settings.min_atoms <= settings.mean_atoms <= settings.max_atoms:
        raise ConfigError(
            f"`composition.mean_atoms` = {settings.mean_atoms:g} must lie between min_atoms = {settings.min_atoms} and "
            f"max_atoms = {settings.max_atoms}."
        )
    if isinstance(settings.n_atoms, dict):
        for key, weight in settings.n_atoms.items():
            if not key.isdecimal() or int(key) < 1 or weight < 0.0:
                raise ConfigError(f"`composition.n_atoms`: {key!r}: {weight:g} is not a number of atoms with a weight.")
        if not sum(settings.n_atoms.values()) > 0.0:
            raise ConfigError("`composition.n_atoms` has no positive weight; give at least one.")
    if settings.rule == "neutral":
        _check_charges(settings, numbers)
    if settings.rule == "formulas":
        _check_formulas(settings, numbers)


def _check_charges(settings: CompositionSettings, numbers: list[int]) -> None:
    for symbol, charges in settings.charges.items():
        element_number(symbol, "composition.charges")
        if not charges:
            raise ConfigError(f"`composition.charges.{symbol}` is empty; give its oxidation states, such as [2, 3].")
    for number in numbers:
        if chemical_symbols[number] not in settings.charges:
            raise ConfigError(
                f"`composition.charges` lacks {chemical_symbols[number]}; rule: neutral needs its oxidation states."
            )
    states = [q for z in numbers for q in settings.charges[chemical_symbols[z]]]
    if 0 not in states and not min(states) < 0 < max(states):
        raise ConfigError(
            f"`composition.charges` = {settings.charges} has charges of one sign only; no mixture is neutral."
        )


def _check_formulas(settings: CompositionSettings, numbers: list[int]) -> None:
    if not settings.formulas:
        raise ConfigError("`composition.formulas` is empty; rule: formulas needs at least one, such as {Al2O3: 1}.")
    for text, weight in settings.formulas.items():
        try:
            counts = Formula(text).count()
        except ValueError:
            raise ConfigError(f"`composition.formulas` names {text!r}, which is not a formula such as Al2O3.") from None
        if not counts or weight <= 0.0:
            raise ConfigError(f"`composition.formulas.{text}` = {weight:g} must be a positive weight of a formula.")
        for symbol in counts:
            if element_number(symbol, "composition.formulas") not in numbers:
                raise ConfigError(f"`composition.formulas.{text}` contains {symbol}, which `elements.symbols` lacks.")
        if sum(counts.values()) > settings.max_atoms:
            raise ConfigError(
                f"`composition.formulas.{text}` has more atoms than `composition.max_atoms` = {settings.max_atoms}."
            )


def _check_density(density: DensitySettings, radii: RadiusSettings) -> None:
    ladder = [density.phi_lowest, density.phi_min, density.phi_max, density.phi_highest]
    if ladder != sorted(ladder):
        raise ConfigError(f"`density`: phi_lowest, phi_min, phi_max, phi_highest = {ladder} must not decrease.")
    if density.high_fraction + density.low_fraction > 1.0:
        raise ConfigError("`density.high_fraction` and `density.low_fraction` add up to more than 1.")
    if density.high_fraction > radii.extreme_fraction:
        raise ConfigError(
            f"`density.high_fraction` = {density.high_fraction:g} exceeds `radii.extreme_fraction` = "
            f"{radii.extreme_fraction:g}; dense candidates are extreme ones."
        )
    limits = [("phi_max", density.phi_max, "core_factor", radii.core_factor)]
    if density.high_fraction > 0.0:
        limits.append(("phi_highest", density.phi_highest, "core_factor_extreme", radii.core_factor_extreme))
    for name, phi, factor_name, factor in limits:
        filled = phi * (factor / 2.0) ** 3
        if filled > CLOSEST_PACKING:
            raise ConfigError(
                f"`density.{name}` = {phi:g} is impossible: the cores of radii.{factor_name} = {factor:g} would fill "
                f"{filled:.2f} of the cell, and spheres fill at most {CLOSEST_PACKING}; lower one of them."
            )
