"""Recipes of one ASE calculator without rules of their own: EMT, tblite, and any class by its path."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.data import atomic_numbers

from grace_md.labels.recipes.base import AseRecipe, package_versions
from grace_md.labels.records import Label

__all__ = ["ClassPathRecipe", "ClassPathSettings", "EmtRecipe", "EmtSettings", "TbliteRecipe", "TbliteSettings"]

EMT_ELEMENTS = ("H", "C", "N", "O", "Al", "Ni", "Cu", "Pd", "Ag", "Pt", "Au")


@dataclass(frozen=True)
class EmtSettings:
    """EMT has no settings."""


class EmtRecipe(AseRecipe):
    """Effective medium theory of ASE: for tests and first steps."""

    name = "emt"
    settings_type = EmtSettings
    batch = 100

    def check(self, atoms: Atoms) -> None:
        """Refuse elements without parameters."""
        unknown = sorted(set(atoms.get_chemical_symbols()) - set(EMT_ELEMENTS))
        if unknown:
            raise ValueError(f"EMT has no parameters for {', '.join(unknown)}; it knows {', '.join(EMT_ELEMENTS)}.")

    def calculator(self, atoms: Atoms, folder: Path) -> Any:
        """Return EMT."""
        from ase.calculators.emt import EMT  # noqa: PLC0415

        return EMT()


@dataclass(frozen=True)
class TbliteSettings:
    """Settings: `method` is GFN1-xTB or GFN2-xTB, `electronic_temperature` in K, `max_iterations` of the SCF."""

    method: str = "GFN1-xTB"
    electronic_temperature: float = 300.0
    max_iterations: int = 250

    def __post_init__(self) -> None:
        if self.method not in ("GFN1-xTB", "GFN2-xTB"):
            raise ValueError(f"`settings.method` = {self.method!r} must be GFN1-xTB or GFN2-xTB.")


class TbliteRecipe(AseRecipe):
    """Extended tight binding for molecules and clusters."""

    name = "tblite"
    settings_type = TbliteSettings
    batch = 20
    stress = False

    def check(self, atoms: Atoms) -> None:
        """Refuse periodic cells and elements beyond radon."""
        if atoms.pbc.any():
            raise ValueError(
                "tblite samples the Gamma point only, so the energy of a small periodic cell depends on its size (Al: "
                "-32.1 eV/atom with 4 atoms, -33.9 with 108); it labels molecules and clusters: set pbc to F F F, or "
                "take chgnet-zbl or gpaw."
            )
        if (atoms.numbers > atomic_numbers["Rn"]).any():
            raise ValueError("tblite has parameters for the elements up to Rn (Z = 86) only.")

    def start(self, threads: int) -> None:
        """Import tblite, or say what to install."""
        try:
            import tblite.ase  # noqa: F401, PLC0415
        except ImportError:
            raise RuntimeError("The recipe tblite needs the package tblite: `pip install tblite`.") from None

    def calculator(self, atoms: Atoms, folder: Path) -> Any:
        """Return tblite; without spin, since ASE's default moments of metals make it fail."""
        from tblite.ase import TBLite  # noqa: PLC0415

        return TBLite(
            method=self.settings.method,
            electronic_temperature=self.settings.electronic_temperature,
            max_iterations=self.settings.max_iterations,
            verbosity=0,
        )

    def versions(self) -> dict[str, str]:
        """Add tblite."""
        return package_versions("ase", "numpy", "tblite")


@dataclass(frozen=True)
class ClassPathSettings:
    """Any ASE calculator.

    Attributes
    ----------
    path : module and class, such as ``ase.calculators.emt.EMT``; a function that returns a calculator does as well
    kwargs : its keyword arguments
    fresh : whether every structure gets a new instance
    stress : "auto": of cells with three periodic directions; or "never"
    """

    path: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    fresh: bool = False
    stress: str = "auto"

    def __post_init__(self) -> None:
        if self.stress not in ("auto", "never"):
            raise ValueError(f"`settings.stress` = {self.stress!r} must be auto or never.")


class ClassPathRecipe(AseRecipe):
    """A calculator that is named by its class path."""

    name = "ase"
    settings_type = ClassPathSettings
    free_settings = ("kwargs",)
    batch = 10

    def __init__(self, settings: ClassPathSettings) -> None:
        super().__init__(settings)
        self._class = self._find(settings.path)

    @staticmethod
    def _find(path: str) -> Any:
        module, _, name = path.rpartition(".")
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, ValueError, AttributeError) as error:
            raise ValueError(
                f"`calculator.path` = {path!r} cannot be imported ({error}); give module and class, for example "
                "ase.calculators.emt.EMT."
            ) from None

    def wants_stress(self, atoms: Atoms) -> bool:
        """Whether a stress is wanted of `atoms`."""
        return self.settings.stress == "auto" and super().wants_stress(atoms)

    def calculator(self, atoms: Atoms, folder: Path) -> Any:
        """Return an instance."""
        return self._class(**self.settings.kwargs)

    def label(self, atoms: Atoms, folder: Path) -> Label:
        """Label by the calculator; codes that write files write them to the directory of the structure."""
        if self._calculator is None or self.settings.fresh:
            self._calculator = self.calculator(atoms, folder)
        if hasattr(self._calculator, "directory") and "directory" not in self.settings.kwargs:
            self._calculator.directory = str(folder)
        return super().label(atoms, folder)

    def versions(self) -> dict[str, str]:
        """Add the package of the class."""
        return package_versions("ase", "numpy", self.settings.path.partition(".")[0])
