"""Pictures of a fit: parity, distributions of errors, errors by element and type, learning curves; the HTML page."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from grace_md.analysis.fit_errors import QUANTITIES, FitErrors, cross_cells, table_cells
from grace_md.analysis.html_page import picture, table, write_page
from grace_md.analysis.plots import STYLE, require_matplotlib

__all__ = ["plot_errors_by", "plot_learning_curve", "plot_parity", "write_html"]

_BLUE, _RED = "#1f4e8c", "#c0392b"
_MOST_BARS = 40
_AXES = {"energy": ("energy", "eV/atom", 1.0), "forces": ("force component", "eV/A", 1.0),
         "stress": ("stress component", "GPa", QUANTITIES["stress"][1])}  # fmt: skip


def plot_parity(path: Path, errors: FitErrors) -> None:
    """Predictions against labels in the upper row, distributions of errors below."""
    plt = require_matplotlib()
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(2, 3, figsize=(10.5, 6.4), layout="constrained")
        for column, (quantity, (name, unit, factor)) in enumerate(_AXES.items()):
            above, below = axes[:, column]
            pairs = factor * getattr(errors, quantity).reshape(-1, 2)
            pairs = pairs[np.isfinite(pairs).all(axis=1)]
            if not len(pairs):
                above.text(0.5, 0.5, f"no {quantity} labels", ha="center", transform=above.transAxes)
                above.axis("off")
                below.axis("off")
                continue
            low, high = pairs.min(), pairs.max()
            if len(pairs) > 2000:
                above.hexbin(*pairs.T, gridsize=70, bins="log", mincnt=1, cmap="viridis", linewidths=0.1)
            else:
                above.plot(*pairs.T, ".", color=_BLUE, markersize=3, alpha=0.6)
            above.plot([low, high], [low, high], color=_RED, linewidth=0.8)
            above.set(xlabel=f"label ({unit})", ylabel=f"model ({unit})", title=name)
            difference = errors.difference(quantity)
            limit = max(float(np.percentile(np.abs(difference), 99)), 1e-12)
            below.hist(np.clip(difference, -limit, limit), bins=80, color=_BLUE)
            below.set_yscale("log")
            mae, rmse = np.abs(difference).mean(), np.sqrt(np.mean(difference**2))
            below.set_title(f"MAE {mae:.3g}, RMSE {rmse:.3g} {QUANTITIES[quantity][0]}", fontweight="normal")
            below.set(xlabel=f"error ({QUANTITIES[quantity][0]}; outer 1 % at the ends)", ylabel="number")
        figure.suptitle(f"{errors.model} on {errors.data}: {errors.n_structures:,} structures", x=0.01, ha="left")
        figure.savefig(path)
        plt.close(figure)


def plot_errors_by(path: Path, table: dict[str, Any]) -> None:
    """Mean absolute errors of forces and energies by element and by configuration type, as bars."""
    plt = require_matplotlib()
    sorts = [("element", table["element"]), ("type", table["config_type"])]
    with plt.rc_context(STYLE):
        rows = max(min(len(found), _MOST_BARS) for _, found in sorts)
        figure, axes = plt.subplots(1, 4, figsize=(12, 1.2 + 0.2 * rows), layout="constrained")
        for axis, (title, found), quantity in zip(
            axes, [sorts[0], sorts[0], sorts[1], sorts[1]], ["forces", "energy"] * 2, strict=True
        ):
            values = {name: row[f"{quantity}_mae"] for name, row in found.items() if row[f"{quantity}_mae"] is not None}
            order = sorted(values, key=lambda name: values[name])[-_MOST_BARS:]
            axis.barh(order, [values[name] for name in order], color=_BLUE)
            axis.set_title(f"{quantity} by {title}")
            axis.set_xlabel(f"MAE ({QUANTITIES[quantity][0]})")
            axis.tick_params(axis="y", labelsize=7)
        figure.savefig(path)
        plt.close(figure)


def plot_learning_curve(path: Path, records: Sequence[dict[str, Any]], name: str) -> None:
    """Losses, validation errors and learning rate against epochs, from metrics.jsonl."""
    plt = require_matplotlib()
    epochs = [r for r in records if "epoch" in r]
    valid = [r for r in epochs if r.get("valid_loss") is not None]
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.4), layout="constrained")
        left.plot([r["epoch"] for r in epochs], [r["train_loss"] for r in epochs], color=_BLUE, label="training")
        left.plot(
            [r["epoch"] for r in valid], [r["valid_loss"] for r in valid], color=_RED, label="validation (average)"
        )
        best = [r for r in valid if r.get("best")]
        if best:
            left.plot(
                best[-1]["epoch"], best[-1]["valid_loss"], "o", color=_RED, label=f"best: {best[-1]['valid_loss']:.4g}"
            )
        left.set_yscale("log")
        left.set(xlabel="epoch", title=f"{name}: loss")
        left.legend()
        for quantity, (unit, _) in QUANTITIES.items():
            key = f"valid_{quantity}_mae_{unit.replace('/', '_per_')}"
            shown = [r for r in valid if r.get(key) is not None]
            right.plot([r["epoch"] for r in shown], [r[key] for r in shown], label=f"{quantity} ({unit})")
        right.set_yscale("log")
        right.set(xlabel="epoch", title="validation, mean absolute errors")
        right.legend()
        figure.savefig(path)
        plt.close(figure)


def write_html(path: Path, tables: Sequence[dict[str, Any]], pictures: dict[str, list[Path]]) -> None:
    """Write one page that needs no other file.

    Parameters
    ----------
    tables : of `error_tables`
    pictures : files by section; a section is ``"<model> on <data>"`` or any other title
    """

    def images(section: str) -> str:
        return "".join(picture(p, section) for p in pictures.get(section, []))

    parts = [table(cross_cells(tables))]
    sections = [f"{one['model']} on {one['data']}" for one in tables]
    parts += [f"<h2>{html.escape(name)}</h2>{images(name)}" for name in pictures if name not in sections]
    for section, found in zip(sections, tables, strict=True):
        parts.append(f"<h2>{html.escape(section)}</h2><p>MAE / RMSE</p>{images(section)}")
        for title, rows in (("group", found["group"]), ("type", found["config_type"]), ("element", found["element"])):
            parts.append(table(table_cells({**rows, "all": found["all"]}, title)))
        for quantity, (unit, _) in QUANTITIES.items():
            rows_worst = [[f"{row['error']:.3g}", row["where"]] for row in found["worst"][quantity]]
            if rows_worst:
                parts.append(table([[f"largest {quantity} error ({unit})", "structure"], *rows_worst]))
    write_page(path, "Errors of fits", parts)
