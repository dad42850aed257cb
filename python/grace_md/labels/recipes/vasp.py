"""VASP with the settings of the paper: inputs, the command, and the results."""

from __future__ import annotations

import shlex
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ase import Atoms

from grace_md.labels.recipes.base import Recipe
from grace_md.labels.records import Label, LabelFailedError
from grace_md.labels.vasp.inputs import write_inputs
from grace_md.labels.vasp.parse import has_results, read_run

__all__ = ["VaspRecipe", "VaspSettings"]


@dataclass(frozen=True)
class VaspSettings:
    """Settings.

    Attributes
    ----------
    command : what starts VASP in a job directory, such as ``srun vasp_std``; needed by `label run`, not if runs are
        started by other means after `label vasp-write`
    incar : tags to replace or add; null removes one. The result is then no longer the paper's
    """

    command: str = ""
    incar: dict[str, Any] = field(default_factory=dict)


class VaspRecipe(Recipe):
    """A single point by VASP. Results that are there already are read, not calculated again."""

    name = "vasp"
    settings_type = VaspSettings
    free_settings = ("incar",)

    def check(self, atoms: Atoms) -> None:
        """Refuse structures without a cell."""
        if atoms.cell.rank < 3:
            raise ValueError("VASP needs a cell with three vectors; put molecules in a box with 10 A of vacuum.")

    def start(self, threads: int) -> None:
        """Demand a command."""
        if not self.settings.command:
            raise RuntimeError(
                "The recipe vasp has no `settings.command`; give one (such as srun vasp_std), or use "
                "`grace-md label vasp-write`, start VASP in the job directories yourself, then `label collect`."
            )

    def label(self, atoms: Atoms, folder: Path) -> Label:
        """Write inputs, run the command, read the results."""
        if has_results(folder):
            try:
                return read_run(folder, atoms)
            except LabelFailedError:
                pass  # of an interrupted or failed run: calculate again
        write_inputs(atoms, folder, self.settings.incar)
        if not (folder / "POTCAR").is_file():
            raise LabelFailedError("there is no POTCAR; set VASP_PP_PATH or PMG_VASP_PSP_DIR")
        for stale in ("vasprun.xml", "OUTCAR"):
            (folder / stale).unlink(missing_ok=True)
        with (folder / "vasp.out").open("wb") as log:
            code = subprocess.run(
                shlex.split(self.settings.command), cwd=folder, stdout=log, stderr=subprocess.STDOUT, check=False
            ).returncode
        if code:
            raise LabelFailedError(f"`{self.settings.command}` ended with code {code}; see vasp.out")
        return read_run(folder, atoms)
