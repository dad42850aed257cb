"""Errors of a model on labelled structures: by configuration type and element, and of several models on several sets.

Every structure counts alike in energies per atom and stresses, every atom in forces, whatever weights a fit used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

__all__ = ["QUANTITIES", "FitErrors", "cross_table", "error_tables", "text_report"]

EV_PER_A3_IN_GPA = 160.21766208
# Quantity -> unit of tables and the factor from eV/atom, eV/A and eV/A^3.
QUANTITIES = {"energy": ("meV/atom", 1e3), "forces": ("meV/A", 1e3), "stress": ("GPa", EV_PER_A3_IN_GPA)}
WORST = 10  # structures that are named
ROUNDS, SMALL = 30, 1e-6  # of the fit of shifts; eV/atom

Floats = NDArray[np.float64]


@dataclass
class FitErrors:
    """Labels and predictions of one model on one set; NaN where there is no label.

    Attributes
    ----------
    model, data : names
    energy : [n_structures, 2] label and prediction, eV/atom
    forces : [n_atoms, 3, 2] eV/A
    stress : [n_structures, 6, 2] eV/A^3
    numbers : [n_atoms] atomic numbers; structure : [n_atoms] structure of each atom
    config_type : [n_structures] text; where : [n_structures] words for messages
    skipped : structures left out, which have elements that the model lacks
    """

    model: str
    data: str
    energy: Floats
    forces: Floats
    stress: Floats
    numbers: NDArray[np.int64]
    structure: NDArray[np.int64]
    config_type: NDArray[np.str_]
    where: list[str] = field(default_factory=list)
    skipped: int = 0

    @property
    def n_structures(self) -> int:
        """Structures that were evaluated."""
        return len(self.energy)

    def difference(self, quantity: str, structures: NDArray[np.bool_] | None = None, number: int = 0) -> Floats:
        """Return prediction minus label of what has a label, in the units of tables, flat.

        Parameters
        ----------
        quantity : "energy", "forces" or "stress"
        structures : [n_structures] which ones; default all
        number : for forces, atoms of this element only
        """
        values: Floats = getattr(self, quantity)
        chosen = np.ones(self.n_structures, dtype=bool) if structures is None else structures
        rows = chosen[self.structure] if quantity == "forces" else chosen
        if number and quantity == "forces":
            rows = rows & (self.numbers == number)
        found = (values[rows, ..., 1] - values[rows, ..., 0]).reshape(-1)
        kept: Floats = np.asarray(found[np.isfinite(found)] * QUANTITIES[quantity][1], dtype=np.float64)
        return kept

    def shares(self) -> Floats:
        """Return the share of each element in each structure, [n_structures, n_elements present]."""
        present = np.unique(self.numbers)
        shares = np.zeros((self.n_structures, len(present)))
        np.add.at(shares, (self.structure, np.searchsorted(present, self.numbers)), 1.0)
        normalised: Floats = shares / np.maximum(shares.sum(axis=1, keepdims=True), 1.0)
        return normalised


def _row(errors: FitErrors, structures: NDArray[np.bool_] | None = None, number: int = 0) -> dict[str, Any]:
    chosen = np.ones(errors.n_structures, dtype=bool) if structures is None else structures
    row: dict[str, Any] = {"structures": int(chosen.sum())}
    if number:
        row["atoms"] = int((errors.numbers == number).sum())
    for quantity in QUANTITIES:
        found = errors.difference(quantity, structures, number)
        row[f"{quantity}_mae"] = float(np.abs(found).mean()) if len(found) else None
        row[f"{quantity}_rmse"] = float(np.sqrt(np.mean(found**2))) if len(found) else None
    return row


def error_tables(errors: FitErrors) -> dict[str, Any]:
    """Return the errors of one model on one set as plain values.

    Returns
    -------
    dict with `all`, rows by `config_type`, by `group` (the type up to its first underscore), by `element` (forces on
    atoms of the element; energies and stresses of structures that have it), the `worst` structures, and
    `energy_mae_aligned`: what is left when a shift per element is taken out (labels of another reference).
    """

    def rows(labels: NDArray[np.str_]) -> dict[str, Any]:
        return {str(name) or "(none)": _row(errors, labels == name) for name in np.unique(labels)}

    groups = np.array([name.partition("_")[0] for name in errors.config_type.tolist()], dtype=str)
    elements = {}
    for number in np.unique(errors.numbers).tolist():
        having = np.zeros(errors.n_structures, dtype=bool)
        having[errors.structure[errors.numbers == number]] = True
        elements[chemical_symbols[number]] = _row(errors, having, number)
    everything = _row(errors)
    everything["energy_bias"] = _mean(errors.difference("energy"))
    everything["energy_mae_aligned"] = _aligned(errors)
    return {
        "model": errors.model,
        "data": errors.data,
        "skipped": errors.skipped,
        "units": {quantity: unit for quantity, (unit, _) in QUANTITIES.items()},
        "all": everything,
        "config_type": rows(errors.config_type),
        "group": rows(groups),
        "element": elements,
        "worst": {quantity: _worst(errors, quantity) for quantity in QUANTITIES},
    }


def _mean(values: Floats) -> float | None:
    return float(values.mean()) if len(values) else None


def _aligned(errors: FitErrors) -> float | None:
    """Mean absolute error of energies after the shift per element that makes it smallest, meV/atom."""
    difference = errors.energy[:, 1] - errors.energy[:, 0]
    labelled = np.isfinite(difference)
    if not labelled.any():
        return None
    shares = errors.shares()[labelled]
    target, root = difference[labelled], np.ones(int(labelled.sum()))
    for _ in range(ROUNDS):  # least squares with weights 1 / |residual|: the sum of absolute values
        shifts = np.linalg.lstsq(shares * root[:, None], target * root, rcond=1e-6)[0]
        residual = np.abs(target - shares @ shifts)
        root = 1.0 / np.sqrt(np.maximum(residual, SMALL))
    return float(1e3 * residual.mean())


def _worst(errors: FitErrors, quantity: str) -> list[dict[str, Any]]:
    values: Floats = np.abs(getattr(errors, quantity)[..., 1] - getattr(errors, quantity)[..., 0])
    flat = np.nan_to_num(values.reshape(len(values), -1).max(axis=1) if values.size else np.zeros(0), nan=-1.0)
    largest = np.full(errors.n_structures, -1.0)
    if quantity == "forces":
        np.maximum.at(largest, errors.structure, flat)
    else:
        largest = flat
    order = np.argsort(-largest, kind="stable")[:WORST]
    factor = QUANTITIES[quantity][1]
    return [{"where": errors.where[k], "error": float(factor * largest[k])} for k in order.tolist() if largest[k] >= 0]


def cross_table(tables: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of a table of models against sets: mean absolute errors in eV/A, GPa and eV/atom."""
    return [
        {
            "model": table["model"],
            "data": table["data"],
            "forces_eV_per_A": _scaled(table["all"]["forces_mae"]),
            "stress_GPa": table["all"]["stress_mae"],
            "energy_eV_per_atom": _scaled(table["all"]["energy_mae"]),
        }
        for table in tables
    ]


def _scaled(value: float | None) -> float | None:
    return None if value is None else 1e-3 * value


def number(value: float | None) -> str:
    """Return three significant digits, or a dash."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def table_cells(rows: dict[str, Any], title: str) -> list[list[str]]:
    """Return the cells of a table of errors, with its head."""
    head = [title, "structures", *[f"{q} {unit}" for q, (unit, _) in QUANTITIES.items()]]
    body = []
    for name, row in rows.items():
        pairs = [f"{number(row[f'{q}_mae'])} / {number(row[f'{q}_rmse'])}" for q in QUANTITIES]
        body.append([name, f"{row['structures']:,}", *pairs])
    return [head, *body]


def cross_cells(tables: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Return the cells of the table of models against sets."""
    head = ["model", "test set", "force MAE (eV/A)", "stress MAE (GPa)", "energy MAE (eV/atom)"]
    keys: list[Callable[[dict[str, Any]], str]] = [
        lambda r: str(r["model"]),
        lambda r: str(r["data"]),
        lambda r: number(r["forces_eV_per_A"]),
        lambda r: number(r["stress_GPa"]),
        lambda r: number(r["energy_eV_per_atom"]),
    ]
    return [head, *[[key(row) for key in keys] for row in cross_table(tables)]]


def _columns(cells: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[k]) for row in cells) for k in range(len(cells[0]))]
    return [
        "  ".join(
            cell.ljust(w) if k == 0 else cell.rjust(w) for k, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]


def text_report(tables: Sequence[dict[str, Any]]) -> str:
    """Return the whole report for people."""
    lines = ["Models against test sets, mean absolute errors", "", *_columns(cross_cells(tables))]
    for table in tables:
        lines += ["", "", f"{table['model']} on {table['data']} (MAE / RMSE)"]
        if table["skipped"]:
            lines.append(f"{table['skipped']} structures left out: they have elements that the model lacks")
        lines.append(
            f"energy bias {number(table['all']['energy_bias'])} meV/atom; MAE without a shift per element "
            f"{number(table['all']['energy_mae_aligned'])} meV/atom"
        )
        for title, rows in (("", {"all": table["all"]}), ("group", table["group"]),
                            ("type", table["config_type"]), ("element", table["element"])):  # fmt: skip
            lines += ["", *_columns(table_cells(rows, title))]
        for quantity, (unit, _) in QUANTITIES.items():
            if table["worst"][quantity]:
                lines += ["", f"largest errors of the {quantity} ({unit})"]
                lines += [f"  {number(row['error']):>8}  {row['where']}" for row in table["worst"][quantity]]
    return "\n".join(lines) + "\n"
