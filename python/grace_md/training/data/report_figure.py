"""Picture of a data report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from grace_md.training.data.report import DataReport

MOST_POINTS = 20_000  # drawn of a scatter
CLIP = (0.5, 99.5)  # percentiles that are shown: a few extreme structures must not flatten the rest
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "savefig.dpi": 150,
}
BLUE = "#1f4e8c"


def _pyplot() -> Any:
    try:
        import matplotlib  # noqa: PLC0415 - optional
    except ImportError:
        raise RuntimeError("The picture needs matplotlib; pip install matplotlib (or grace_md[plot]).") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415

    return pyplot


def _histogram(axis: Any, values: Any, title: str, *, log: bool = False) -> None:
    known = values[np.isfinite(values) & ((values > 0) | (not log))]
    axis.set_title(title)
    if len(known) < 2 or np.ptp(known) == 0.0:
        axis.text(0.5, 0.5, "no data" if not len(known) else f"all {known[0]:.4g}", ha="center", va="center")
        axis.set_axis_off()
        return
    low, high = np.percentile(known, CLIP)
    high = high if high > low else known.max()
    edges = np.geomspace(low, high, 50) if log and low < high else np.linspace(low, high, 50)
    axis.hist(known, bins=edges, color=BLUE, alpha=0.85)
    if log:
        axis.set_xscale("log")
    outside = int(((known < low) | (known > high)).sum())
    if outside:
        side = ("left", 0.02) if log else ("right", 0.98)
        axis.text(side[1], 0.95, f"{outside} outside", transform=axis.transAxes, ha=side[0], va="top", color="0.4")


def draw(report: DataReport, path: Path) -> None:
    """Write the picture: elements, residual energies, forces, pressures, contacts, neighbours.

    Raises RuntimeError without matplotlib.
    """
    plt = _pyplot()
    columns, elements = report.columns, report.summary["elements"]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(2, 3, figsize=(10.5, 5.6), layout="constrained")
        names = sorted(elements, key=lambda e: -elements[e]["atoms"])[:20]
        axes[0, 0].bar(names, [elements[e]["atoms"] for e in names], color=BLUE, alpha=0.85)
        axes[0, 0].set_title("atoms")
        _histogram(axes[0, 1], columns["energy_residual"], "energy over references (eV/atom)")
        _histogram(axes[0, 2], columns["force_max"], "largest force (eV/Å)", log=True)
        pressure, volume = columns["pressure"], columns["volume"]
        both = np.flatnonzero(np.isfinite(pressure) & np.isfinite(volume))
        axes[1, 0].set_title("pressure (GPa) against volume (Å³/atom)")
        if len(both):
            shown = both[:: max(1, len(both) // MOST_POINTS)]
            axes[1, 0].plot(volume[shown], pressure[shown], ".", ms=2, color=BLUE, alpha=0.4, rasterized=True)
            low, high = np.percentile(pressure[both], CLIP)
            axes[1, 0].set_ylim(low - 0.05 * (high - low) - 1e-3, high + 0.05 * (high - low) + 1e-3)
            axes[1, 0].set_xscale("log")
        _histogram(axes[1, 1], columns["contact"], "closest contact / covalent radii")
        _histogram(axes[1, 2], columns["neighbors"], "neighbours per atom")
        for axis in axes.flat[1:]:
            axis.set_ylabel("structures" if axis is not axes[1, 0] else "")
        title = f"{report.summary['structures']:,} structures, {report.summary['atoms']:,} atoms"
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        figure.savefig(path)
        plt.close(figure)
