"""Structures, calculators that misbehave, and small farms for the tests of labels."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import all_changes
from ase.calculators.emt import EMT

from grace_md.labels import Farm, create_farm
from grace_md.labels.recipes import load_config
from grace_md.labels.worker import Limits, Worker


def copper(count: int, *, seed: int = 0) -> list[Atoms]:
    """Rattled cells of 4 atoms; info `number` tells them apart."""
    images = []
    for number in range(count):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.05, seed=1000 * seed + number)
        atoms.info["number"] = number
        images.append(atoms)
    return images


class Misbehaving(EMT):
    """EMT that notes every call in a file and misbehaves at structures of the numbers given.

    `log` gets one line per calculation; the structures are told apart by the position of their first atom.
    """

    def __init__(self, log: str = "", seconds: float = 0.0, bad: list[int] | None = None, how: str = "raise") -> None:
        super().__init__()
        self._log, self._seconds, self._bad, self._how = log, seconds, bad or [], how
        self.converged = True

    def calculate(
        self, atoms: Atoms | None = None, properties: Any = ("energy",), system_changes: Any = all_changes
    ) -> None:
        assert atoms is not None
        number = number_of(atoms)
        if self._log:
            with Path(self._log).open("a") as stream:
                stream.write(f"{number} {os.getpid()}\n")
        time.sleep(self._seconds)
        super().calculate(atoms, properties, system_changes)
        self.converged = True
        if number in self._bad:
            self._misbehave()

    def _misbehave(self) -> None:
        if self._how == "raise":
            raise ValueError("no basis for\nthis structure")
        if self._how == "nan":
            self.results["forces"] = np.full_like(self.results["forces"], np.nan)
        if self._how == "unconverged":
            self.converged = False
        if self._how == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self._how == "shape":
            self.results["forces"] = self.results["forces"][:-1]


_FIRST_ATOMS = np.array([atoms.positions[0] for atoms in copper(200)])


def number_of(atoms: Atoms) -> int:
    """Number of a structure of `copper`: files round positions, so the nearest one counts."""
    return int(np.argmin(((_FIRST_ATOMS - atoms.positions[0]) ** 2).sum(axis=1)))


def misbehaving_config(batch: int = 5, **kwargs: Any) -> Any:
    return load_config({"calculator": {"path": "label_tools.Misbehaving", "kwargs": kwargs}, "batch": batch})


def make_farm(folder: Path, count: int = 20, batch: int = 5, **kwargs: Any) -> Farm:
    """A farm of `Misbehaving` calculations."""
    return create_farm(folder, copper(count), misbehaving_config(batch, **kwargs))


def work(farm: Farm, max_failures: float = 1.0, **options: Any) -> int:
    """Label in this process."""
    return Worker(farm, limits=Limits(max_failures), **options).run()


def calls(log: Path) -> list[int]:
    """Numbers of the structures that were calculated, in order."""
    return [int(line.split()[0]) for line in log.read_text().splitlines()] if log.exists() else []
