"""Gather the labels of a farm in one extended XYZ file, in the order of the input."""

from __future__ import annotations

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.extxyz import write_extxyz

from grace_md.labels.farm import Farm, write_atomically
from grace_md.labels.records import DONE, Label, Outcome, full_disk

__all__ = ["CollectSummary", "collect", "with_label"]

FREE_ENERGY = "force_consistent_energy"  # not `free_energy`: readers could not choose between that and `energy`


@dataclass
class CollectSummary:
    """What was collected: structures by outcome, `missing` ones were not tried yet; reasons of the others by text."""

    labelled: int = 0
    failed: int = 0
    rejected: int = 0
    missing: int = 0
    seconds: float = 0.0
    versions: Counter[str] = field(default_factory=Counter)


def with_label(atoms: Atoms, outcome: Outcome) -> Atoms:
    """Return a copy of `atoms` with its label and where it came from."""
    label = outcome.label
    assert label is not None
    copy: Atoms = atoms.copy()
    results: dict[str, Any] = {"energy": label.energy, "forces": label.forces}
    if label.stress is not None:
        results["stress"] = label.stress
    _add_extra(copy, label, results)
    copy.calc = SinglePointCalculator(copy, **results)
    provenance = outcome.provenance
    copy.info["label_recipe"] = provenance.get("recipe", "unknown")
    copy.info["label_versions"] = _versions(provenance)
    copy.info["label_seconds"] = round(outcome.seconds, 2)
    return copy


def _add_extra(atoms: Atoms, label: Label, results: dict[str, Any]) -> None:
    if label.free_energy is not None:
        atoms.info[FREE_ENERGY] = label.free_energy
    for key, value in label.extra.items():
        if key == "magmoms" and len(value) == len(atoms):
            results["magmoms"] = np.array(value, dtype=np.float64)
        else:
            atoms.info[f"label_{key}"] = np.array(value) if isinstance(value, list) else value


def _versions(provenance: Mapping[str, Any]) -> str:
    return " ".join(f"{name} {number}" for name, number in provenance.get("versions", {}).items())


def collect(farm: Farm, output: Path) -> CollectSummary:
    """Write all labels to `output`, complete or not at all, with ``OUTPUT.failures.csv`` and ``OUTPUT.json`` beside.

    Labels are read from the job directories, so the result does not depend on what the database remembers.
    """
    summary = CollectSummary()
    problems = io.StringIO()
    table = csv.writer(problems, lineterminator="\n")
    table.writerow(["structure", "job", "item", "status", "reason"])
    part = output.with_name(output.name + ".part")
    first = 0
    try:
        with part.open("w", encoding="utf-8") as stream:
            for job, n, round_, _ in farm.store.jobs():
                outcomes = farm.outcomes(job, round_)
                images = []
                for item, atoms in enumerate(farm.structures(job)):
                    outcome = outcomes.get(item)
                    if outcome is None:
                        summary.missing += 1
                    elif outcome.status == DONE:
                        images.append(with_label(atoms, outcome))
                        summary.versions[_versions(outcome.provenance)] += 1
                        summary.seconds += outcome.seconds
                    else:
                        table.writerow([first + item, job, item, outcome.status, outcome.reason])
                        summary.failed += outcome.status == "failed"
                        summary.rejected += outcome.status == "rejected"
                if images:
                    write_extxyz(stream, images)
                    summary.labelled += len(images)
                first += n
            stream.flush()
            os.fsync(stream.fileno())
        if not summary.labelled:
            raise ValueError(f"There are no labels in `{farm.folder}` yet; `grace-md label run` makes them.")
        part.replace(output)
    except OSError as error:
        raise full_disk(error, output.parent) or error from error
    finally:
        part.unlink(missing_ok=True)
    write_atomically(output.with_name(output.name + ".failures.csv"), problems.getvalue())
    content = {
        **farm.config.to_json(),
        **{name: getattr(summary, name) for name in ("labelled", "failed", "rejected", "missing", "seconds")},
        "versions": dict(summary.versions),
    }
    write_atomically(output.with_name(output.name + ".json"), json.dumps(content, indent=1) + "\n")
    return summary
