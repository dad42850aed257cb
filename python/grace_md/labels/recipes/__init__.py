"""Recipes by name, and how a run file chooses one.

recipe: gpaw                       # or
calculator: {path: ase.calculators.emt.EMT, kwargs: {}}

settings: {cutoff: 700}
accept: {max_force: 60.0}
batch: 1
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import covalent_radii

from grace_md.labels.recipes.base import Recipe
from grace_md.labels.records import Label, LabelRejectedError
from grace_md.strict import ConfigError, apply_overrides, parse, read_mapping

__all__ = ["RECIPES", "Accept", "LabelConfig", "load_config", "make_recipe"]

# Name, module and class. A module is imported when its recipe is used.
RECIPES = {
    "chgnet-zbl": ("grace_md.labels.recipes.chgnet_zbl", "ChgnetZblRecipe"),
    "emt": ("grace_md.labels.recipes.simple", "EmtRecipe"),
    "tblite": ("grace_md.labels.recipes.simple", "TbliteRecipe"),
    "gpaw": ("grace_md.labels.recipes.gpaw", "GpawRecipe"),
    "vasp": ("grace_md.labels.recipes.vasp", "VaspRecipe"),
    "ase": ("grace_md.labels.recipes.simple", "ClassPathRecipe"),
}


@dataclass(frozen=True)
class Accept:
    """Limits of what becomes a label. What lies outside is counted as rejected, not as failed.

    Attributes
    ----------
    max_force : eV/A, of the longest force
    max_stress : eV/A^3, of the largest component
    min_distance : of the closest pair as a fraction of the sum of its covalent radii; tested before the calculation
    """

    max_force: float | None = None
    max_stress: float | None = None
    min_distance: float | None = None

    def check_structure(self, atoms: Atoms) -> None:
        """Raise LabelRejectedError for a structure outside the limits."""
        if self.min_distance is None:
            return
        from ase.neighborlist import neighbor_list  # noqa: PLC0415 - slow to import

        radii = covalent_radii[atoms.numbers]
        i, j, d = neighbor_list("ijd", atoms, list(self.min_distance * radii))
        if len(d):
            worst = float((d / (radii[i] + radii[j])).min())
            raise LabelRejectedError(
                f"two atoms are at {worst:.3f} of the sum of their covalent radii, below "
                f"`accept.min_distance` = {self.min_distance:g}"
            )

    def check_label(self, label: Label) -> None:
        """Raise LabelRejectedError for a label outside the limits."""
        force = float(np.sqrt((label.forces**2).sum(axis=1)).max(initial=0.0))
        if self.max_force is not None and force > self.max_force:
            raise LabelRejectedError(f"a force of {force:.4g} eV/A exceeds `accept.max_force` = {self.max_force:g}")
        stress = 0.0 if label.stress is None else float(np.abs(label.stress).max())
        if self.max_stress is not None and stress > self.max_stress:
            raise LabelRejectedError(
                f"a stress of {stress:.4g} eV/A^3 exceeds `accept.max_stress` = {self.max_stress:g}"
            )


@dataclass(frozen=True)
class LabelConfig:
    """A recipe with its settings, as in a run file. `batch` is the number of structures in one job."""

    recipe: str
    settings: dict[str, Any] = field(default_factory=dict)
    accept: Accept = field(default_factory=Accept)
    batch: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self)


def load_config(source: str | os.PathLike[str] | Mapping[str, Any], overrides: Sequence[str] = ()) -> LabelConfig:
    """Return the configuration of a recipe by name, a YAML, JSON or TOML file, or a mapping.

    `overrides` are texts such as ``"settings.cutoff=700"``. Raises ConfigError with the setting and what is expected.
    """
    if isinstance(source, Mapping):
        mapping = dict(source)
    elif Path(source).suffix in {".yaml", ".yml", ".json", ".toml"}:
        mapping = read_mapping(source)
    else:
        mapping = {"recipe": str(source)}
    mapping = apply_overrides(mapping, overrides)
    # Both are free here: their keys are those of a recipe, or keyword arguments of a class.
    calculator, settings = mapping.pop("calculator", None), mapping.pop("settings", {})
    plain = parse(_Plain, mapping)
    for name, section in (("calculator", calculator or {}), ("settings", settings)):
        if not isinstance(section, Mapping):
            raise ConfigError(f"`{name}` = {section!r} must be a section.")
    if (calculator is None) == (not plain.recipe):
        raise ConfigError("give either `recipe`, with a name, or `calculator`, with the path of a class.")
    if plain.batch is not None and plain.batch < 1:
        raise ConfigError(f"`batch` = {plain.batch} must be at least 1.")
    merged = {**(calculator or {}), **settings}
    return LabelConfig(plain.recipe or "ase", merged, plain.accept, plain.batch)


@dataclass(frozen=True)
class _Plain:
    recipe: str = ""
    accept: Accept = field(default_factory=Accept)
    batch: int | None = None


def make_recipe(config: LabelConfig) -> Recipe:
    """Return the recipe of a configuration; ConfigError for an unknown name or wrong settings."""
    if config.recipe not in RECIPES:
        close = difflib.get_close_matches(config.recipe, RECIPES, n=1)
        hint = f"did you mean `{close[0]}`?" if close else f"known recipes: {', '.join(RECIPES)}."
        raise ConfigError(f"`recipe` = {config.recipe!r} is unknown; {hint}")
    module, name = RECIPES[config.recipe]
    kind = getattr(importlib.import_module(module), name)
    # Keyword arguments of a class are of any type, which strict reading does not know.
    free = {key: value for key, value in config.settings.items() if key in kind.free_settings}
    strict = {key: value for key, value in config.settings.items() if key not in free}
    settings = parse(kind.settings_type, strict, "settings")
    recipe: Recipe = kind(dataclasses.replace(settings, **free))
    return recipe
