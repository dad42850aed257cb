"""What a recipe is: settings, checks of structures before any work, and a function from a structure to its label."""

from __future__ import annotations

import dataclasses
import warnings
from abc import ABC, abstractmethod
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError

from grace_md.labels.records import Label, LabelFailedError

__all__ = ["AseRecipe", "Recipe", "package_versions"]


def package_versions(*names: str) -> dict[str, str]:
    """Return the versions of installed packages; those that are missing are left out."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


class Recipe(ABC):
    """One way to label structures. An instance lives as long as its worker.

    Class attributes
    ----------------
    name : what users write
    settings_type : dataclass of its settings; every field has a default
    free_settings : fields that hold whatever the run file says
    batch : structures in one job: 1 for codes that run for minutes and leave files, more for fast ones
    """

    name: ClassVar[str]
    settings_type: ClassVar[type[Any]]
    batch: ClassVar[int] = 1
    free_settings: ClassVar[tuple[str, ...]] = ()

    def __init__(self, settings: Any = None) -> None:
        self.settings = self.settings_type() if settings is None else settings

    def check(self, atoms: Atoms) -> None:  # noqa: B027 - most recipes take everything
        """Raise ValueError, with the reason, for a structure that this recipe cannot label. Called by `label init`."""

    def start(self, threads: int) -> None:  # noqa: B027 - most recipes have nothing to load
        """Load what is used for all structures. `threads` is the share of this worker."""

    @abstractmethod
    def label(self, atoms: Atoms, folder: Path) -> Label:
        """Label one structure; files go to `folder`. Raises LabelFailedError, or anything else, with the reason."""

    def versions(self) -> dict[str, str]:
        """Return the programs that labels depend on, with their versions."""
        return package_versions("ase", "numpy")

    def to_json(self) -> dict[str, Any]:
        """Plain values from which the recipe is made again."""
        return {"recipe": self.name, "settings": dataclasses.asdict(self.settings)}


class AseRecipe(Recipe):
    """A recipe whose work is done by an ASE calculator."""

    needs_fresh_calculator: ClassVar[bool] = False
    stress: ClassVar[bool] = True  # of cells with three periodic directions

    def __init__(self, settings: Any = None) -> None:
        super().__init__(settings)
        self._calculator: Any = None

    @abstractmethod
    def calculator(self, atoms: Atoms, folder: Path) -> Any:
        """Return a new calculator; `atoms` only matter where `needs_fresh_calculator` is set."""

    def converged(self, calculator: Any) -> bool:
        """Whether the calculator says that its last result is converged; those that know nothing of it say yes."""
        said = getattr(calculator, "converged", True)
        said = said() if callable(said) else said
        return bool(said) and calculator.results.get("converged", True) is not False

    def wants_stress(self, atoms: Atoms) -> bool:
        """Whether a stress belongs to the label of `atoms`."""
        return self.stress and bool(atoms.pbc.all())

    def label(self, atoms: Atoms, folder: Path) -> Label:
        """Label by the calculator."""
        if self._calculator is None or self.needs_fresh_calculator:
            self._calculator = self.calculator(atoms, folder)
        calculator = self._calculator
        work = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        work.calc = calculator
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of the code; what matters is checked below
                label = self._results(work, calculator)
        except BaseException:
            self._calculator = None  # its state is unknown
            raise
        return label

    def _results(self, atoms: Atoms, calculator: Any) -> Label:
        energy = float(atoms.get_potential_energy())
        if not self.converged(calculator):
            raise LabelFailedError("the self-consistent field did not converge")
        forces = np.array(atoms.get_forces(), dtype=np.float64)
        stress = None
        if self.wants_stress(atoms):
            try:
                stress = np.array(atoms.get_stress(), dtype=np.float64)
            except (NotImplementedError, PropertyNotImplementedError):
                raise LabelFailedError(
                    f"{type(calculator).__name__} gives no stress; set `stress: never` in the recipe"
                ) from None
        free = calculator.results.get("free_energy")
        return Label(energy, forces, stress, None if free is None else float(free), self.extra(atoms, calculator))

    def extra(self, atoms: Atoms, calculator: Any) -> dict[str, Any]:
        """Return more values to keep; magnetic moments by default."""
        moments = calculator.results.get("magmoms")
        return {} if moments is None else {"magmoms": [float(m) for m in np.asarray(moments)]}
