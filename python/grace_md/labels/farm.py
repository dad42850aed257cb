"""A farm: structures in job directories, a recipe, and the database that says how far they are.

DIR/recipe.json              recipe, settings, limits
DIR/farm.sqlite              states of the jobs; written last by `create_farm`
DIR/jobs/000/000001/         one job: structures.extxyz, labels.0001.jsonl, files of the code
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import iread, read
from ase.io.extxyz import write_extxyz

from grace_md.labels.recipes import LabelConfig, load_config, make_recipe
from grace_md.labels.recipes.base import Recipe
from grace_md.labels.records import Outcome, full_disk, read_outcomes
from grace_md.labels.store import JobStore

__all__ = ["Farm", "create_farm", "read_structures", "write_atomically"]

DATABASE, RECIPE, JOBS, STRUCTURES = "farm.sqlite", "recipe.json", "jobs", "structures.extxyz"
PER_FOLDER = 1000  # jobs in one directory: more of them slow file systems down
# Labels of others that came with a structure; they would be taken for ours.
OLD_LABELS = ("energy", "free_energy", "forces", "stress", "virial", "energies", "stresses", "magmom", "magmoms",
              "force_consistent_energy")  # fmt: skip


def write_atomically(path: Path, content: str) -> None:
    """Write text so that the file is complete or absent; FullDiskError in words."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("w", encoding="utf-8") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise full_disk(error, path.parent) or error from error


def read_structures(names: Iterable[str]) -> Iterator[Atoms]:
    """Yield the structures of files that ASE reads (``FILE@0:100`` takes a range), without earlier labels."""
    for name in names:
        file, at, index = name.rpartition("@")
        path, chosen = (file, index) if at and not Path(name).exists() else (name, ":")
        if not Path(path).is_file():
            raise FileNotFoundError(f"There is no file `{path}` with structures.")
        for atoms in iread(path, index=chosen):
            yield without_labels(atoms)


def without_labels(atoms: Atoms) -> Atoms:
    """Return a copy without calculator and without labels among its info and arrays."""
    copy: Atoms = atoms.copy()
    copy.calc = None
    for key in OLD_LABELS:
        copy.info.pop(key, None)
        copy.arrays.pop(key, None)
    return copy


def _check(atoms: Atoms, number: int, recipe: Recipe) -> None:
    where = f"structure {number} ({atoms.get_chemical_formula()})"
    if not len(atoms):
        raise ValueError(f"structure {number} has no atoms; remove it.")
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
        raise ValueError(f"{where} has positions or a cell that are not finite; remove it.")
    if atoms.pbc.all() and not abs(np.linalg.det(atoms.cell.array)) > 1e-6:
        raise ValueError(f"{where} is periodic, but its cell has no volume; set pbc to F F F.")
    try:
        recipe.check(atoms)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


class Farm:
    """An existing farm.

    Parameters
    ----------
    folder : its directory

    Attributes
    ----------
    config : recipe, settings and limits, fixed when the farm was made
    store : states of the jobs
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.store = JobStore(self.folder / DATABASE)
        content = json.loads((self.folder / RECIPE).read_text(encoding="utf-8"))
        self.config: LabelConfig = load_config(content)

    def recipe(self) -> Recipe:
        """Return a new instance of the recipe."""
        return make_recipe(self.config)

    def job_folder(self, job: int) -> Path:
        """Return the directory of a job."""
        return job_folder(self.folder, job)

    def structures(self, job: int) -> list[Atoms]:
        """Read the structures of a job."""
        return list(read(self.job_folder(job) / STRUCTURES, index=":", format="extxyz"))

    def outcomes(self, job: int, round_: int) -> dict[int, Outcome]:
        """Return what is known of the structures of a job."""
        return read_outcomes(self.job_folder(job), round_)


def job_folder(folder: Path, job: int) -> Path:
    """Return the directory of job number `job` in the farm `folder`."""
    return folder / JOBS / f"{job // PER_FOLDER:03d}" / f"{job:06d}"


def item_folder(folder: Path, item: int, n: int) -> Path:
    """Return where the code of structure `item` keeps its files: the job's directory if it is alone there."""
    return folder if n == 1 else folder / f"item_{item:04d}"


def create_farm(
    folder: str | os.PathLike[str], structures: Iterable[Atoms], config: LabelConfig, *, force: bool = False
) -> Farm:
    """Make a farm of jobs that wait.

    Every structure is checked before: a recipe that cannot label one of them says so here. If this is interrupted,
    the same call makes the farm anew; `force` also replaces a complete farm *and its labels*.

    Raises
    ------
    FileExistsError, ValueError, ConfigError, FullDiskError
        For a farm that exists; a structure that cannot be labelled; wrong settings; a full disk.
    """
    folder = Path(folder)
    if (folder / DATABASE).exists() and not force:
        raise FileExistsError(f"There is a farm in `{folder}`; add --force to delete it with its labels.")
    foreign = folder.is_dir() and any(path.name not in (JOBS, RECIPE) for path in folder.iterdir())
    if foreign and not (folder / DATABASE).exists():
        raise FileExistsError(f"`{folder}` holds other files; choose a new directory.")
    recipe = make_recipe(config)
    batch = config.batch or recipe.batch
    (folder / DATABASE).unlink(missing_ok=True)  # first: without it nobody takes the rest for a farm
    shutil.rmtree(folder / JOBS, ignore_errors=True)
    sizes: list[int] = []
    numbered = enumerate(structures)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while part := list(itertools.islice(numbered, batch)):
            for number, atoms in part:
                _check(atoms, number, recipe)
            sizes.append(len(part))
            directory = job_folder(folder, len(sizes))
            directory.mkdir(parents=True, exist_ok=True)
            with (directory / STRUCTURES).open("w", encoding="utf-8") as stream:
                write_extxyz(stream, [without_labels(atoms) for _, atoms in part])
    except OSError as error:
        raise full_disk(error, folder) or error from error
    if not sizes:
        raise ValueError("There are no structures to label.")
    settings: dict[str, Any] = recipe.to_json()
    settings.update({"accept": config.to_json()["accept"], "batch": batch})
    write_atomically(folder / RECIPE, json.dumps(settings, indent=1) + "\n")
    JobStore.create(folder / DATABASE, sizes)
    return Farm(folder)
