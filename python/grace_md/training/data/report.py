"""What is in a data set and what looks wrong in it: counts, distributions, outliers, duplicates, checks of labels."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ase.units
import numpy as np
from ase import Atoms
from numpy.typing import ArrayLike, NDArray

from grace_md.training.data.checks import check_records, sample_of
from grace_md.training.data.labels import LabelKeys
from grace_md.training.data.shards import ShardSet

__all__ = ["DataReport", "data_report"]

PERCENTILES = (0, 1, 25, 50, 75, 99, 100)
MOST_FITTED = 200_000  # structures of the fit of reference energies
RIDGE = 1e-8
ROUNDS, HUBER = 10, 2.0  # of the robust fit; beyond this many median residuals a structure counts less
OUTLIER = 10.0  # robust standard deviations of the residual energy per atom
SMALLEST_SCALE = 1e-3  # eV/atom; below, a residual is no outlier however tight the others are
CLOSE = 0.5  # of the sum of the covalent radii
NET_FORCE = 0.05  # eV/A per atom, mean of a structure: forces of a complete structure sum to zero
LISTED = 10  # worst structures that are named
MOST_ROWS = 30  # configuration types and sources that are listed
SAME_ENERGY = 1e-3  # eV/atom, of copies of one structure

Floats = NDArray[np.float64]


@dataclass
class DataReport:
    """Description of a data set.

    Attributes
    ----------
    summary : dict of plain values, as in ``report.json``
    columns : per structure, for pictures: energy_residual (eV/atom), force_max (eV/A), pressure (GPa), volume (A^3 per
        atom), contact (closest distance over the sum of covalent radii), neighbors (per atom); float64 [n_structures]
    """

    summary: dict[str, Any]
    columns: dict[str, Floats] = field(repr=False, default_factory=dict)

    def text(self) -> str:
        """Return the report for people."""
        s = self.summary
        lines = [
            f"{s['structures']:,} structures, {s['atoms']:,} atoms, {s['bonds']:,} directed bonds",
            f"neighbours per atom {_number(s['average_neighbors'])}, rms force {_number(s['force_rms'])} eV/A",
            "",
            f"{'element':<10}{'atoms':>12}{'structures':>12}   reference energy (eV, robust least squares)",
        ]
        for element, row in s["elements"].items():
            lines.append(
                f"{element:<10}{row['atoms']:>12,}{row['structures']:>12,}   {_number(row['reference_energy'])}"
            )
        if s["reference_warning"]:
            lines.append(f"  {s['reference_warning']}")
        for title, key in (("source", "sources"), ("type", "config_types")):
            lines += ["", f"{title:<32}{'structures':>12}{'atoms':>12}{'E':>10}{'F':>10}{'S':>10}{'rms F':>9}"]
            for name, row in list(s[key].items())[:MOST_ROWS]:
                counts = "".join(f"{row[label]:>10,}" for label in ("energies", "forces", "stresses"))
                lines.append(
                    f"{name[-32:]:<32}{row['structures']:>12,}{row['atoms']:>12,}{counts}{_number(row['force_rms']):>9}"
                )
            if len(s[key]) > MOST_ROWS:
                lines.append(f"... and {len(s[key]) - MOST_ROWS} more")
        lines += ["", f"{'percentile':<36}" + "".join(f"{p:>10}" for p in PERCENTILES)]
        for name, values in s["distributions"].items():
            lines.append(f"{name:<36}" + "".join(f"{_number(v):>10}" for v in values))
        lines += ["", "missing and unusual"]
        lines += [f"  {count:>10,}  {what}" for what, count in s["counts"].items() if count]
        for what, rows in s["worst"].items():
            if rows:
                lines += ["", what]
                lines += [f"  {_number(row['value']):>10}  {row['structure']}" for row in rows]
        lines += ["", "checks of units and signs"]
        lines += [f"  {check['verdict']:<13} {check['message']}" for check in s["checks"]] or ["  none were made"]
        return "\n".join(lines) + "\n"

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return self.summary

    def figure(self, path: Path) -> None:
        """Draw the distributions; RuntimeError without matplotlib."""
        from grace_md.training.data.report_figure import draw  # noqa: PLC0415

        draw(self, path)

    def write(self, folder: Path) -> list[Path]:
        """Write ``report.txt``, ``report.json`` and, with matplotlib, ``report.png``; return the paths."""
        paths = [folder / "report.txt", folder / "report.json", folder / "report.png"]
        try:
            self.figure(paths[2])
        except RuntimeError:
            paths = paths[:2]
        paths[0].write_text(self.text(), encoding="utf-8")
        part = folder / "report.json.part"
        part.write_text(json.dumps(self.summary, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        part.replace(paths[1])
        return paths


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _percentiles(values: Floats) -> list[float | None]:
    known = values[np.isfinite(values)]
    return [_plain(v) for v in np.percentile(known, PERCENTILES)] if len(known) else [None] * len(PERCENTILES)


def _references(shards: ShardSet) -> tuple[Floats, Floats, str]:
    """Energies per element by robust least squares, residual energies per atom, a warning on what is not determined.

    Robust: residuals beyond a few deviations count linearly, so that hot structures do not shift all others. Returns
    float64 [n_elements] (eV; NaN where the element has no energy), float64 [n_structures] (eV/atom).
    """
    known = np.flatnonzero(~np.isnan(shards.energy))
    n_elements, present = len(shards.elements), list(shards.elements)
    if not len(known):
        return np.full(n_elements, np.nan), np.full(len(shards), np.nan), "There are no energies."
    fitted = known[np.unique(np.linspace(0, len(known) - 1, min(len(known), MOST_FITTED)).astype(np.int64))]
    shares = shards.composition_counts(fitted) / shards.n_atoms[fitted][:, None]
    target = shards.energy[fitted] / shards.n_atoms[fitted]
    used = shares.any(axis=0)
    a = shares[:, used]
    energies = np.full(n_elements, np.nan)
    weights = np.ones(len(target))
    for _ in range(ROUNDS):
        normal = (a.T * weights) @ a
        solution = np.linalg.solve(normal + RIDGE * np.trace(normal) * np.eye(len(normal)), (a.T * weights) @ target)
        away = np.abs(target - a @ solution)
        weights = np.minimum(1.0, HUBER * max(float(np.median(away)), SMALLEST_SCALE) / np.maximum(away, 1e-12))
    energies[used] = solution
    rank = int(np.linalg.matrix_rank(a))
    warning = ""
    if rank < int(used.sum()):
        names = " ".join(e for e, u in zip(present, np.atleast_1d(used), strict=True) if u)
        warning = f"The compositions determine only {rank} combinations of the {int(used.sum())} energies of {names}."
    residual = np.full(len(shards), np.nan)
    residual[fitted] = target - a @ energies[used]
    return energies, residual, warning


def _rows(labels: Sequence[str], of: NDArray[Any], shards: ShardSet) -> dict[str, Any]:
    """Counts by source or type."""
    n = len(labels)
    square, n_forces = shards.column("force_square"), shards.column("n_forces")

    def total(values: NDArray[Any]) -> list[float]:
        return [float(v) for v in np.bincount(of, weights=values.astype(np.float64), minlength=n)]

    columns = {
        "structures": total(np.ones(len(of))),
        "atoms": total(shards.n_atoms),
        "energies": total(~np.isnan(shards.energy)),
        "forces": total(n_forces > 0),
        "stresses": total(~np.isnan(shards.stress[:, 0])),
    }
    forces, squares = total(n_forces), total(square)
    found = {}
    for k, label in enumerate(labels):
        row: dict[str, Any] = {name: int(values[k]) for name, values in columns.items()}
        row["force_rms"] = float(np.sqrt(squares[k] / (3 * forces[k]))) if forces[k] else None
        found[label or "(none)"] = row
    return found


def _worst(shards: ShardSet, values: Floats, chosen: NDArray[Any], *, smallest: bool = False) -> list[dict[str, Any]]:
    rows = np.flatnonzero(chosen)
    order = np.argsort(values[rows] if smallest else -np.abs(values[rows]), kind="stable")[:LISTED]
    return [
        {"value": float(values[row]), "index": int(row), "structure": shards.describe(int(row))} for row in rows[order]
    ]


def _duplicates(shards: ShardSet) -> tuple[int, int, NDArray[np.bool_]]:
    """Count copies beyond the first of each structure, and those in another source; mark those of another energy."""
    _, group = np.unique(shards.column("geometry"), return_inverse=True)
    order = np.argsort(group, kind="stable")
    repeated = np.flatnonzero(np.diff(group[order]) == 0)
    first, second = order[repeated], order[repeated + 1]
    energy = shards.energy / shards.n_atoms
    differ = np.zeros(len(shards), dtype=np.bool_)
    differ[second[np.abs(energy[first] - energy[second]) > SAME_ENERGY]] = True
    return len(repeated), int(np.count_nonzero(shards.source_of[first] != shards.source_of[second])), differ


def data_report(
    data: ShardSet | Iterable[Atoms],
    elements: Sequence[str] | None = None,
    pair_cutoffs: ArrayLike = 6.0,
    keys: LabelKeys | None = None,
) -> DataReport:
    """Describe a set of shards, or some structures in memory.

    Parameters
    ----------
    data : ShardSet or structures
    elements, pair_cutoffs, keys : of structures in memory, as for `convert`; default all elements, 6 A, found keys
    """
    if isinstance(data, ShardSet):
        shards = data
    else:
        structures = list(data)
        symbols = sorted({symbol for atoms in structures for symbol in atoms.symbols})
        shards = ShardSet.from_atoms(structures, elements or symbols, pair_cutoffs, keys)
    n_atoms = shards.n_atoms.astype(np.float64)
    energies, residual, warning = _references(shards)
    force_max, force_net = shards.column("force_max"), shards.column("force_net")
    contact, periodic = shards.column("contact"), shards.column("pbc").all(axis=1)
    no_stress, n_forces = np.isnan(shards.stress[:, 0]), shards.column("n_forces")
    columns = {
        "energy_residual": residual,
        "force_max": force_max,
        "pressure": -shards.stress[:, :3].mean(axis=1) / ase.units.GPa,
        "volume": shards.column("volume") / n_atoms,
        "contact": np.where(np.isfinite(contact), contact, np.nan),
        "neighbors": shards.n_bonds / n_atoms,
    }
    spread = np.nanmedian(np.abs(residual - np.nanmedian(residual))) if np.isfinite(residual).any() else np.nan
    scale = max(1.4826 * float(spread), SMALLEST_SCALE) if np.isfinite(spread) else np.inf
    middle = float(np.nanmedian(residual)) if np.isfinite(residual).any() else 0.0
    far = np.abs(residual - middle) > OUTLIER * scale
    unbalanced = force_net / n_atoms > NET_FORCE
    close = contact < CLOSE
    copies, across, differ = _duplicates(shards)
    atoms_of, structures_of = np.zeros(len(shards.elements)), np.zeros(len(shards.elements))
    for start in range(0, len(shards), MOST_FITTED):  # bounds the memory of large sets
        counts = shards.composition_counts(np.arange(start, min(start + MOST_FITTED, len(shards))))
        atoms_of += counts.sum(axis=0)
        structures_of += (counts > 0).sum(axis=0)
    summary: dict[str, Any] = {
        "structures": len(shards),
        "atoms": int(n_atoms.sum()),
        "bonds": int(shards.n_bonds.sum()),
        "sha256": shards.sha256,
        "average_neighbors": shards.average_neighbors(),
        "force_rms": _plain(shards.force_rms()),
        "elements": {
            element: {"atoms": int(a), "structures": int(n), "reference_energy": _plain(e)}
            for element, a, n, e in zip(shards.elements, atoms_of, structures_of, energies, strict=True)
        },
        "reference_warning": warning,
        "sources": _rows(shards.source_names, shards.source_of, shards),
        "config_types": _rows(shards.config_types, shards.config_type_of, shards),
        "percentiles": list(PERCENTILES),
        "distributions": {
            "atoms per structure": _percentiles(n_atoms),
            "energy (eV/atom)": _percentiles(shards.energy / n_atoms),
            "energy over references (eV/atom)": _percentiles(residual),
            "largest force (eV/A)": _percentiles(force_max),
            "net force (eV/A)": _percentiles(force_net),
            "pressure (GPa)": _percentiles(columns["pressure"]),
            "volume (A^3/atom)": _percentiles(columns["volume"]),
            "closest contact (A)": _percentiles(shards.column("closest")),
            "closest contact / covalent radii": _percentiles(columns["contact"]),
            "neighbours per atom": _percentiles(columns["neighbors"]),
        },
        "counts": {
            "structures without energy": int(np.isnan(shards.energy).sum()),
            "structures without forces": int((n_forces == 0).sum()),
            "structures where some atoms have no forces": int(((n_forces > 0) & (n_forces < shards.n_atoms)).sum()),
            "periodic structures without stress": int((no_stress & periodic).sum()),
            "structures without volume": int((~periodic).sum()),
            "structures whose stress is exactly zero": int((shards.stress == 0.0).all(axis=1).sum()),
            "structures of several atoms whose forces are all zero": int(((force_max == 0.0) & (n_atoms > 1)).sum()),
            "structures without any neighbour": int((shards.n_bonds == 0).sum()),
            "atoms without neighbours": int(shards.column("n_isolated").sum()),
            f"energies more than {OUTLIER:g} robust deviations off": int(far.sum()),
            f"structures with net forces above {NET_FORCE:g} eV/A per atom": int(unbalanced.sum()),
            f"structures with contacts below {CLOSE:g} of the covalent radii": int(close.sum()),
            "copies of other structures": copies,
            "copies of structures of another source": across,
            f"copies whose energies differ by more than {SAME_ENERGY:g} eV/atom": int(differ.sum()),
            "structures of weight zero": int((shards.column("weights").max(axis=1) == 0.0).sum()),
        },
        "worst": {
            "energies far from their references (eV/atom)": _worst(shards, residual, far),
            "largest forces (eV/A)": _worst(shards, force_max, ~np.isnan(force_max)),
            "net forces (eV/A)": _worst(shards, force_net, unbalanced),
            "closest contacts (of the covalent radii)": _worst(shards, contact, close, smallest=True),
            "copies with other energies (eV)": _worst(shards, shards.energy, differ),
        },
        "checks": shards.checks or [c.to_json() for k in range(len(shards.source_names)) for c in _checks(shards, k)],
    }
    return DataReport(summary, columns)


def _checks(shards: ShardSet, source: int) -> Any:
    return check_records(sample_of(shards, source))
