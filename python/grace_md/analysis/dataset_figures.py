"""Pictures of labels, compositions and geometries of several data sets (figures 9 and 11 of the paper)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from grace_md.analysis.dataset_histogram import SparseHistogram
from grace_md.analysis.dataset_statistics import GEOMETRY, LABELS, QUANTITIES, SetStatistics
from grace_md.analysis.plots import STYLE, require_matplotlib
from grace_md.periodic_table import N_GROUPS, position

__all__ = ["plot_composition", "plot_elements", "plot_geometry", "plot_labels", "set_colors"]

# Okabe & Ito 2008, readable with every colour vision; the pale yellow is left out.
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555")
_BINS = 100
_TAIL = 30.0  # ranges beyond this many 2-98 % spreads are drawn on an axis that is linear near zero, else logarithmic
_SHOWN_ATOMS = 0.999  # share of the configurations whose numbers of atoms are shown
_LOWER_GAP = 1.0  # rows between the main table and the lanthanides


def set_colors(names: Sequence[str]) -> dict[str, str]:
    """Return the colour of each set; colours repeat after seven."""
    return {name: _COLORS[k % len(_COLORS)] for k, name in enumerate(names)}


def _edges(histograms: Sequence[SparseHistogram]) -> tuple[NDArray[np.float64], float]:
    """Return common edges on multiples of the widest bin, and the linear range of the axis (0: all of it)."""
    known = [h for h in histograms if h.count]
    width = max(h.width for h in known)
    low, high = min(h.minimum for h in known), max(h.maximum for h in known)
    spread = max(h.quantiles([0.98])[0] - h.quantiles([0.02])[0] for h in known)
    if high - low <= _TAIL * max(spread, width):
        step = width * max(1, int(np.ceil((high - low) / (_BINS * width))))
        first, last = np.floor(low / step), np.floor(high / step) + 1
        return step * np.arange(first, last + 1), 0.0
    linear = max(spread / 2.0, 8.0 * width)
    grid = np.linspace(np.arcsinh(low / linear), np.arcsinh(high / linear), _BINS + 1)
    whole = np.unique(np.round(linear * np.sinh(grid) / width))
    whole[0], whole[-1] = np.floor(low / width), np.floor(high / width) + 1
    return width * np.unique(whole), linear


def _draw(axis: Any, quantity: str, sets: Sequence[SetStatistics], *, counted: str) -> None:
    """Draw the histograms of one quantity; `counted` says what is counted."""
    words, unit, _ = QUANTITIES[quantity]
    axis.set_title(words)
    histograms = [one.histograms[quantity] for one in sets]
    if not any(h.count for h in histograms):
        axis.text(0.5, 0.5, "no data", ha="center", va="center", transform=axis.transAxes, color="0.4")
        axis.set_axis_off()
        return
    edges, linear = _edges(histograms)
    widths = np.diff(edges) if linear else np.ones(len(edges) - 1)
    colors = set_colors([one.name for one in sets])
    lowest = np.inf
    for one, histogram in zip(sets, histograms, strict=True):
        if histogram.count:
            heights = histogram.rebinned(edges) / widths
            lowest = min(lowest, heights[heights > 0].min())
            axis.stairs(heights, edges, color=colors[one.name], lw=1.1, label=one.name)
    axis.set_yscale("log")
    axis.set_ylim(bottom=0.6 * lowest)
    axis.margins(x=0.01)
    if linear:
        axis.set_xscale("symlog", linthresh=linear)
        axis.tick_params(axis="x", labelsize=7)
    axis.set_xlabel(unit or words)
    axis.set_ylabel(f"{counted} per {unit}" if linear and unit else counted)
    axis.grid(alpha=0.2, lw=0.5)


def _legend(figure: Any, sets: Sequence[SetStatistics]) -> None:
    colors = set_colors([one.name for one in sets])
    handles = [_line(colors[one.name]) for one in sets]
    figure.legend(handles, [one.name for one in sets], loc="outside upper left", ncols=min(6, len(sets)))


def _line(color: str) -> Any:
    from matplotlib.lines import Line2D  # noqa: PLC0415 - optional

    return Line2D([], [], color=color, lw=2.0)


def _figure(path: Path, sets: Sequence[SetStatistics], panels: Sequence[tuple[str, str]], columns: int) -> None:
    plt = require_matplotlib()
    rows = -(-len(panels) // columns)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            rows, columns, figsize=(10.5, 0.5 + 3.0 * rows), squeeze=False, layout="constrained"
        )
        for axis, (quantity, counted) in zip(axes.flat, panels, strict=True):
            _draw(axis, quantity, sets, counted=counted)
        _legend(figure, sets)
        figure.savefig(path)
        plt.close(figure)


def plot_labels(path: Path, sets: Sequence[SetStatistics]) -> None:
    """Energies per atom, components of forces and of stresses, counts on a logarithmic axis.

    Where the tails reach far beyond the bulk, the axis is linear near zero and logarithmic outside, and heights are
    counts per unit.
    """
    counted = {"energy": "structures", "force": "components", "stress": "components"}
    _figure(path, sets, [(quantity, counted[quantity]) for quantity in LABELS], 3)


def plot_geometry(path: Path, sets: Sequence[SetStatistics]) -> None:
    """Shortest distances, packing numbers and aspects of cells."""
    _figure(path, sets, [(quantity, "structures") for quantity in GEOMETRY], 2)


def plot_composition(path: Path, sets: Sequence[SetStatistics]) -> None:
    """Numbers of elements and of atoms per configuration, as shares of each set."""
    plt = require_matplotlib()
    colors = set_colors([one.name for one in sets])
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(10.5, 3.5), layout="constrained")
        for axis, quantity in zip(axes, ("n_elements", "n_atoms"), strict=True):
            known = [one for one in sets if one.histograms[quantity].count]
            step, share = 1.0, _SHOWN_ATOMS
            highest = max((one.histograms[quantity].quantiles([share])[0] for one in known), default=1.0)
            if quantity == "n_atoms":
                step = float(max(1, int(highest) // 60))
            edges = np.arange(0.5, highest + step, step)
            for one in known:
                counts = one.histograms[quantity].rebinned(
                    edges + 0.5
                )  # a bin k holds the number k, its middle k + 1/2
                style = {"color": colors[one.name], "lw": 1.3}
                axis.stairs(100.0 * counts / one.n_structures, edges, **style)
            axis.set_yscale("log")
            low, high = axis.get_ylim()  # two decades at least, so that ticks are powers of ten
            axis.set_ylim(min(low, high / 200.0), high)
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter("")
            axis.xaxis.get_major_locator().set_params(integer=True)
            axis.margins(x=0.01)
            axis.set_title(QUANTITIES[quantity][0])
            axis.set(xlabel=QUANTITIES[quantity][0].split()[0], ylabel="% of the configurations")
            axis.grid(alpha=0.2, lw=0.5)
        _legend(figure, sets)
        figure.savefig(path)
        plt.close(figure)


def _compact(count: int) -> str:
    for size, letter in ((1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")):
        if count >= 10 * size:
            return f"{count / size:.0f}{letter}"
        if count >= size:
            return f"{count / size:.1f}{letter}"
    return str(count)


def _table_axis(axis: Any, counts: NDArray[np.int64], title: str, plt: Any) -> None:
    """Draw one periodic table."""
    colormap = plt.get_cmap("YlGnBu")
    present = counts[counts > 0]
    largest = float(np.log10(present.max())) if len(present) else 0.0
    decades = max(1.0, largest - float(np.log10(present.min()))) if len(present) else 1.0
    for z in range(1, 104):
        symbol = chemical_symbols[z]
        period, group = position(symbol)
        lower = 58 <= z <= 71 or 90 <= z <= 103  # these stand below the table
        y = period + (1.0 + _LOWER_GAP if lower else 0.0)
        share = 0.95 - 0.85 * (largest - float(np.log10(counts[z]))) / decades if counts[z] else 0.0
        face = colormap(share) if counts[z] else (0.955, 0.955, 0.955)
        axis.add_patch(plt.Rectangle((group - 0.48, y - 0.48), 0.96, 0.96, facecolor=face, edgecolor="none"))
        ink = "0.65" if not counts[z] else "white" if share > 0.55 else "0.1"
        axis.text(group, y - 0.14, symbol, ha="center", va="center", fontsize=8, color=ink)
        if counts[z]:
            axis.text(group, y + 0.26, _compact(int(counts[z])), ha="center", va="center", fontsize=6, color=ink)
    axis.set(xlim=(0.4, N_GROUPS + 0.6), ylim=(7 + 1 + _LOWER_GAP + 0.5, 0.4))
    axis.set_aspect("equal")
    axis.set_axis_off()
    axis.set_title(title, pad=2)


def plot_elements(path: Path, one: SetStatistics) -> None:
    """Two periodic tables of one set: configurations that contain an element, and its atoms; logarithmic colours."""
    plt = require_matplotlib()
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(2, 1, figsize=(8.0, 9.2), layout="constrained")
        _table_axis(axes[0], one.structures_of, f"{one.name}: configurations that contain the element", plt)
        _table_axis(axes[1], one.atoms_of, f"{one.name}: atoms", plt)
        figure.savefig(path)
        plt.close(figure)
