"""DFT by GPAW in plane waves (Debian packages gpaw and gpaw-data, or pip and a set of PAW data)."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.data import atomic_numbers

from grace_md.labels.moments import initial_moments
from grace_md.labels.recipes.base import AseRecipe, package_versions
from grace_md.labels.records import Label, LabelFailedError

__all__ = ["GpawRecipe", "GpawSettings"]

# Below 600 eV the PAW data of these need more plane waves: MgO at 400 eV has a Pulay stress of -60 GPa.
HARD_ELEMENTS = ("N", "O", "F")
HARD_CUTOFF, SOFT_CUTOFF = 600.0, 400.0
MAGNETIC_ELEMENTS = ("Cr", "Mn", "Fe", "Co", "Ni")


@dataclass(frozen=True)
class GpawSettings:
    """Settings of a calculation.

    Attributes
    ----------
    cutoff : eV, of plane waves; None: 600 where O, N or F is present, 400 otherwise
    xc : functional
    kpts : points along the reciprocal vectors; along directions that are not periodic 1 is used
    gamma : whether the mesh contains the Gamma point
    spin : "off", "on", or "auto": on for cells with Cr, Mn, Fe, Co or Ni; spin doubles the time
    width : eV, of the Fermi-Dirac occupations
    maxiter : steps of the self-consistent field
    setups_path : directory of the PAW data; empty: what GPAW finds
    """

    cutoff: float | None = None
    xc: str = "PBE"
    kpts: list[int] = field(default_factory=lambda: [2, 2, 2])
    gamma: bool = False
    spin: str = "off"
    width: float = 0.1
    maxiter: int = 200
    setups_path: str = ""

    def __post_init__(self) -> None:
        if self.cutoff is not None and not self.cutoff > 0.0:
            raise ValueError(f"`settings.cutoff` = {self.cutoff} must be a positive energy in eV, for example 600.")
        if len(self.kpts) != 3 or min(self.kpts) < 1:
            raise ValueError(f"`settings.kpts` = {self.kpts} must be three positive numbers, for example [2, 2, 2].")
        if self.spin not in ("off", "on", "auto"):
            raise ValueError(f"`settings.spin` = {self.spin!r} must be off, on or auto.")
        if self.setups_path and not Path(self.setups_path).is_dir():
            raise ValueError(f"`settings.setups_path` = {self.setups_path!r} is no directory.")


class GpawRecipe(AseRecipe):
    """PBE (by default) in plane waves with a cutoff that the elements choose."""

    name = "gpaw"
    settings_type = GpawSettings
    needs_fresh_calculator = True

    def cutoff(self, atoms: Atoms) -> float:
        """Return the cutoff of plane waves in eV for `atoms`."""
        if self.settings.cutoff is not None:
            return float(self.settings.cutoff)
        return HARD_CUTOFF if self._has(atoms, HARD_ELEMENTS) else SOFT_CUTOFF

    def is_polarised(self, atoms: Atoms) -> bool:
        """Whether `atoms` are calculated with spin."""
        spin = self.settings.spin
        return bool(spin == "on" or (spin == "auto" and self._has(atoms, MAGNETIC_ELEMENTS)))

    @staticmethod
    def _has(atoms: Atoms, elements: tuple[str, ...]) -> bool:
        return bool(set(atoms.numbers.tolist()) & {atomic_numbers[e] for e in elements})

    def check(self, atoms: Atoms) -> None:
        """Refuse a cutoff below 600 eV for O, N and F, and cells without volume."""
        cutoff = self.cutoff(atoms)
        if cutoff < HARD_CUTOFF and self._has(atoms, HARD_ELEMENTS):
            raise ValueError(
                f"`settings.cutoff` = {cutoff:g} eV is too low for O, N and F (at 400 eV the stress of MgO is wrong by "
                f"60 GPa); use at least {HARD_CUTOFF:g}, or leave it out."
            )
        if atoms.cell.rank < 3:
            raise ValueError("GPAW needs a cell with three vectors; put molecules in a box with 5 A of vacuum or more.")

    def start(self, threads: int) -> None:
        """Say where the PAW data are, before GPAW is imported."""
        if self.settings.setups_path:
            os.environ["GPAW_SETUP_PATH"] = self.settings.setups_path
        try:
            import gpaw  # noqa: F401, PLC0415
        except ImportError:
            raise RuntimeError(
                "The recipe gpaw needs GPAW in this Python: on Debian `apt install gpaw gpaw-data`, then run "
                "`PYTHONPATH=<directory of grace_md> /usr/bin/python3 -m grace_md.cli label run DIR`."
            ) from None

    def calculator(self, atoms: Atoms, folder: Path) -> Any:
        """Return GPAW with its text in ``gpaw.txt`` of `folder`."""
        from gpaw import GPAW, PW  # noqa: PLC0415

        settings = self.settings
        mesh = [n if periodic else 1 for n, periodic in zip(settings.kpts, atoms.pbc, strict=True)]
        return GPAW(
            mode=PW(self.cutoff(atoms)),
            xc=settings.xc,
            kpts={"size": mesh, "gamma": settings.gamma},
            spinpol=self.is_polarised(atoms),
            occupations={"name": "fermi-dirac", "width": settings.width},
            maxiter=settings.maxiter,
            txt=str(folder / "gpaw.txt"),
        )

    def _results(self, atoms: Atoms, calculator: Any) -> Label:
        from gpaw import KohnShamConvergenceError  # noqa: PLC0415

        if self.is_polarised(atoms):
            atoms.set_initial_magnetic_moments(initial_moments(atoms.get_chemical_symbols()))
        try:
            return super()._results(atoms, calculator)
        except KohnShamConvergenceError:
            raise LabelFailedError(
                f"the self-consistent field did not converge in {self.settings.maxiter} steps"
            ) from None

    def converged(self, calculator: Any) -> bool:
        """Ask the self-consistency loop."""
        return bool(calculator.scf.converged)

    def extra(self, atoms: Atoms, calculator: Any) -> dict[str, Any]:
        """Keep the cutoff, the mesh and, with spin, the moments."""
        found = {"cutoff": self.cutoff(atoms), "kpoints": list(self.settings.kpts), "xc": self.settings.xc}
        if self.is_polarised(atoms):
            found["magmoms"] = [float(m) for m in calculator.get_magnetic_moments()]
        return found

    def versions(self) -> dict[str, str]:
        """Add GPAW."""
        return package_versions("ase", "numpy", "gpaw")
