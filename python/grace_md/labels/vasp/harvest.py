"""VASP for a whole farm: write all inputs, and read what has been calculated elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ase import Atoms

from grace_md.labels.farm import Farm, item_folder
from grace_md.labels.records import FAILED, LabelFailedError, LabelRejectedError, Outcome, RecordWriter
from grace_md.labels.store import Claim
from grace_md.labels.vasp.cost import estimate
from grace_md.labels.vasp.inputs import write_inputs as write_one
from grace_md.labels.vasp.parse import has_results, read_run

__all__ = ["harvest", "write_inputs"]

MOST_LINES = 20


def _items(farm: Farm, job: int, n: int) -> Iterator[tuple[int, Atoms, Path]]:
    for item, atoms in enumerate(farm.structures(job)):
        yield item, atoms, item_folder(farm.job_folder(job), item, n)


def _require_vasp(farm: Farm) -> None:
    if farm.config.recipe != "vasp":
        raise ValueError(f"The farm `{farm.folder}` has the recipe {farm.config.recipe}, not vasp.")


def write_inputs(farm: Farm, *, dry_run: bool = False) -> Iterator[str]:
    """Write the inputs of all jobs that are not finished, and yield lines about their cost; `dry_run` only estimates.

    Raises FileNotFoundError for a POTCAR that should be there.
    """
    _require_vasp(farm)
    changes = farm.config.settings.get("incar", {})
    total, count, points = 0.0, 0, 0
    for job, n, _, state in farm.store.jobs():
        if state == "finished":
            continue
        for item, atoms, folder in _items(farm, job, n):
            cost = estimate(atoms)
            total, count, points = total + cost.relative, count + 1, points + cost.points
            if count <= MOST_LINES:
                mesh = "x".join(map(str, cost.mesh))
                yield (
                    f"job {job} structure {item}: {atoms.get_chemical_formula()}, about {cost.electrons} electrons, "
                    f"{mesh} k-points, cost {cost.relative:.3g}"
                )
            if not dry_run:
                write_one(atoms, folder, changes)
    if count > MOST_LINES:
        yield f"... and {count - MOST_LINES} more"
    done = "would be written" if dry_run else "written"
    yield (
        f"{count} inputs {done}: {points} k-points, total cost {total:.3g} (electrons^2.5 times k-points; time one of "
        "them for the factor)"
    )


def harvest(farm: Farm) -> int:
    """Read results of VASP in job directories into the farm; return how many. Jobs that others work on are left."""
    _require_vasp(farm)
    count = 0
    for job, _, _, state in farm.store.jobs():
        if state == "finished":
            continue
        claim = farm.store.claim(job)
        if claim is not None:
            count += _harvest_job(farm, claim)
    return count


def _harvest_job(farm: Farm, claim: Claim) -> int:
    known = farm.outcomes(claim.job, claim.round)
    before = len(known)
    provenance = {"recipe": "vasp", "versions": farm.recipe().versions()}
    writer = RecordWriter(farm.job_folder(claim.job), claim.attempt, claim.round, provenance)
    state = "waiting"
    try:
        for item, atoms, folder in _items(farm, claim.job, claim.n):
            if item in known or not has_results(folder):
                continue
            known[item] = _read_item(farm, item, atoms, folder, writer)
        writer.sync()
        state = "finished" if len(known) == claim.n else "waiting"
    finally:
        writer.close()
        farm.store.report(claim, known.values(), state)
    return len(known) - before


def _read_item(farm: Farm, item: int, atoms: Atoms, folder: Path, writer: RecordWriter) -> Outcome:
    try:
        label = read_run(folder, atoms)
        label.check(len(atoms), need_stress=True)
        farm.config.accept.check_label(label)
    except LabelFailedError as error:
        status = "rejected" if isinstance(error, LabelRejectedError) else FAILED
        writer.failed(item, str(error), 0.0, status)
        return Outcome(item, status, 0, 0.0, str(error))
    writer.done(item, label, 0.0)
    return Outcome(item, "labelled", 0, 0.0)
