"""Pictures of a quench: curves against time, radial distribution functions, snapshots, clusters, bond matrix."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from grace_md.analysis.clusters import BondCounts
from grace_md.analysis.rdf import PartialRdf
from grace_md.analysis.render import element_colors, element_radii, render_atoms

__all__ = [
    "STYLE",
    "plot_bonds",
    "plot_clusters",
    "plot_communities",
    "plot_rdfs",
    "plot_snapshots",
    "plot_thermo",
    "require_matplotlib",
]

STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "figure.dpi": 100,
    "savefig.dpi": 160,
    "savefig.bbox": "tight",
}
_ACTUAL, _SMOOTH, _TARGET = "#9db8d9", "#1f4e8c", "#c0392b"
_BAR_PER_GPA = 1.0e4


def require_matplotlib() -> Any:
    """`matplotlib.pyplot` with a backend that needs no display.

    Raises
    ------
    RuntimeError
        If matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: PLC0415 - optional dependency
    except ImportError:
        raise RuntimeError("pictures need matplotlib; install it with `pip install 'grace_md[plot]'`.") from None
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415

    return plt


def plot_thermo(path: Path, thermo: Mapping[str, NDArray[np.float64]], n_atoms: int, title: str) -> None:
    """Temperature, pressure, density and energy per atom against time: actual values, running mean and target."""
    plt = require_matplotlib()
    time = thermo["Time"]
    panels = [
        ("temperature (K)", thermo["Temp"], thermo["v_T_target"]),
        ("pressure (GPa)", thermo["Press"] / _BAR_PER_GPA, thermo["v_P_target"] / _BAR_PER_GPA),
        ("density (g/cm³)", thermo["Density"], None),
        ("potential energy (eV/atom)", thermo["PotEng"] / n_atoms, None),
    ]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(2, 2, figsize=(8.6, 5.4), sharex=True, layout="constrained")
        for axis, (label, values, target) in zip(axes.flat, panels, strict=True):
            axis.plot(time, values, color=_ACTUAL, lw=0.7, label="actual")
            axis.plot(time, running_mean(values), color=_SMOOTH, lw=1.5, label="running mean")
            if target is not None:
                axis.plot(time, target, color=_TARGET, lw=1.2, ls="--", label="target")
            axis.set_title(label)
            axis.margins(x=0.01)
            axis.grid(alpha=0.25, lw=0.5)
        # The first steps after the minimisation may lie far outside; they must not flatten the rest of the curve.
        shown = np.concatenate([np.percentile(panels[1][1], [0.5, 99.5]), thermo["v_P_target"] / _BAR_PER_GPA])
        margin = 0.1 * np.ptp(shown) + 0.1
        axes[0, 1].set_ylim(shown.min() - margin, shown.max() + margin)
        axes[0, 0].legend(loc="upper right")
        for axis in axes[1]:
            axis.set_xlabel("time (ps)")
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        _save(plt, figure, path)


def running_mean(values: NDArray[np.float64], share: float = 0.02) -> NDArray[np.float64]:
    """Mean over a centred window of `share` of the data, at least 5 points; shorter windows at both ends."""
    half = max(2, int(share * len(values) / 2))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low, high = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    mean: NDArray[np.float64] = (sums[high] - sums[low]) / (high - low)
    return mean


def plot_rdfs(
    path: Path,
    final: Mapping[tuple[str, str], PartialRdf],
    hot: Mapping[tuple[str, str], PartialRdf] | None,
    labels: tuple[str, str],
) -> None:
    """Partial radial distribution functions, one panel per pair: end of the run over the hot melt."""
    plt = require_matplotlib()
    pairs = [pair for pair, rdf in final.items() if rdf.n_pairs.sum() > 0]
    if not pairs:
        return
    columns = min(4, len(pairs))
    rows = -(-len(pairs) // columns)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            rows, columns, figsize=(2.5 * columns, 1.9 * rows + 0.5), sharex=True, squeeze=False, layout="constrained"
        )
        for axis in axes.flat[len(pairs) :]:
            axis.axis("off")
        for axis, pair in zip(axes.flat, pairs, strict=False):
            rdf = final[pair]
            if hot is not None and pair in hot:
                axis.fill_between(hot[pair].r, hot[pair].smooth_g(), color="#e8b28a", lw=0, alpha=0.8, label=labels[0])
            axis.plot(rdf.r, rdf.smooth_g(), color=_SMOOTH, lw=1.2, label=labels[1])
            axis.axhline(1.0, color="0.6", lw=0.6, ls=":")
            peak = rdf.first_peak()
            if peak is not None:
                axis.axvline(peak[0], color=_TARGET, lw=0.7, ls="--")
                axis.text(0.97, 0.93, f"{peak[0]:.2f} Å", transform=axis.transAxes, ha="right", va="top", color=_TARGET)
            axis.set_title("–".join(pair))
            axis.set_xlim(1.0, float(rdf.r[-1]))
            axis.set_ylim(bottom=0.0)
        for axis in axes[-1]:
            axis.set_xlabel("r (Å)")
        for axis in axes[:, 0]:
            axis.set_ylabel("g(r)")
        handles, names = axes.flat[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper left", ncols=2)
        _save(plt, figure, path)


def plot_snapshots(path: Path, snapshots: Sequence[tuple[str, Atoms]], elements: Sequence[str]) -> None:
    """Atoms coloured by element, one panel per snapshot, all at one scale, with a legend."""
    plt = require_matplotlib()
    colors = element_colors(elements)
    longest = max(float(atoms.cell.lengths().max()) for _, atoms in snapshots)
    with plt.rc_context(STYLE):
        columns = -(-len(elements) // 16)
        figure, axes = plt.subplots(
            1, len(snapshots), figsize=(4.6 * len(snapshots) + 0.45 * columns, 4.9), squeeze=False, layout="constrained"
        )
        # Panels share the scale in A, so that shrinking and elongation can be seen.
        pictures = [render_atoms(atoms, colors, pixels_per_angstrom=600.0 / longest) for _, atoms in snapshots]
        for axis, (title, _), picture in zip(axes[0], snapshots, _same_size(pictures), strict=True):
            axis.imshow(picture, interpolation="antialiased")
            axis.set_title(title)
            axis.axis("off")
        _element_legend(plt, figure, elements, columns)
        _save(plt, figure, path)


def plot_communities(path: Path, atoms: Atoms, groups: Sequence[Sequence[str]]) -> None:
    """Atoms of each of the given groups of elements, one panel per group; all other atoms are left out."""
    plt = require_matplotlib()
    symbols = np.array(atoms.get_chemical_symbols())
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, len(groups), figsize=(3.9 * len(groups), 4.4), squeeze=False, layout="constrained"
        )
        for axis, group in zip(axes[0], groups, strict=True):
            axis.imshow(render_atoms(atoms[np.isin(symbols, list(group))], size=700), interpolation="antialiased")
            axis.set_title(textwrap.fill(" ".join(group), 42), fontsize=8, fontweight="normal")
            axis.axis("off")
        _save(plt, figure, path)


def plot_clusters(
    path: Path, atoms: Atoms, clusters: Sequence[NDArray[np.int64]], elements: Sequence[str], title: str
) -> None:
    """Clustered atoms inside the faded rest, and the number of atoms in clusters of each size."""
    plt = require_matplotlib()
    inside = np.zeros(len(atoms), dtype=bool)
    for cluster in clusters:
        if len(cluster) > 1:
            inside[cluster] = True
    symbols = atoms.get_chemical_symbols()
    colors = element_colors(sorted(set(symbols)))
    rgb = np.array([colors[symbol] for symbol in symbols])
    rgb[~inside] = 0.87
    radii = np.where(inside, element_radii(atoms), 0.3 * element_radii(atoms))
    names, atoms_in, counts = cluster_histogram([len(cluster) for cluster in clusters])
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(
            1, 2, figsize=(9.2, 4.6), layout="constrained", gridspec_kw={"width_ratios": [1.25, 1.0]}
        )
        left.imshow(render_atoms(atoms, rgb, radii=radii, size=1000), interpolation="antialiased")
        left.axis("off")
        left.set_title(title)
        right.bar(names, atoms_in, color=_SMOOTH, width=0.7)
        for k, (height, count) in enumerate(zip(atoms_in, counts, strict=True)):
            right.text(k, height, f"{count}×", ha="center", va="bottom", fontsize=8)
        right.tick_params(axis="x", labelsize=8)
        right.set_xlabel("atoms in a cluster")
        right.set_ylabel("atoms in clusters of this size")
        right.set_title("cluster sizes (number of clusters on the bars)")
        _element_legend(plt, figure, elements, 1)
        _save(plt, figure, path)


def cluster_histogram(sizes: Sequence[int]) -> tuple[list[str], list[int], list[int]]:
    """Names of size classes, atoms in clusters of each class, and number of clusters.

    Every size is a class while there are few; otherwise 1, 2, 3-4, 5-8, 9-16 and so on.
    """
    distinct = sorted(set(sizes))
    if len(distinct) <= 8:
        bounds = [(size, size) for size in distinct]
    else:
        powers = range(int(np.ceil(np.log2(distinct[-1]))) + 1)
        bounds = [(2 ** (k - 1) + 1 if k else 1, 2**k) for k in powers]
    names = [str(high) if low == high else f"{low}–{high}" for low, high in bounds]
    members = [[size for size in sizes if low <= size <= high] for low, high in bounds]
    return names, [sum(group) for group in members], [len(group) for group in members]


def plot_bonds(path: Path, bonds: BondCounts, labels: NDArray[np.int64]) -> None:
    """Bond enrichment between elements, ordered by community, communities framed; number of bonds in small matrices."""
    plt = require_matplotlib()
    order = np.lexsort((-bonds.weights.sum(axis=1), labels))
    matrix = bonds.enrichment()[np.ix_(order, order)]
    names = [bonds.elements[k] for k in order]
    n = len(names)
    with plt.rc_context(STYLE):
        side = min(14.0, 2.2 + 0.42 * n)
        figure, axis = plt.subplots(figsize=(side + 0.8, side), layout="constrained")
        with np.errstate(divide="ignore"):
            logarithm = np.clip(np.log2(matrix), -2.0, 2.0)
        image = axis.imshow(logarithm, cmap="RdBu_r", vmin=-2.0, vmax=2.0)
        axis.set_facecolor("0.92")
        axis.set_xticks(range(n), names, fontsize=9 if n <= 30 else 6)
        axis.set_yticks(range(n), names, fontsize=9 if n <= 30 else 6)
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
        if n <= 20:
            counts = bonds.counts[np.ix_(order, order)]
            for a in range(n):
                for b in range(n):
                    dark = bool(abs(logarithm[a, b]) > 1.2)
                    axis.text(b, a, f"{counts[a, b]:.0f}", ha="center", va="center", fontsize=7.5,
                              color="white" if dark else "0.15")  # fmt: skip
        start = 0
        for label in np.unique(labels):
            width = int((labels == label).sum())
            frame = plt.Rectangle((start - 0.5, start - 0.5), width, width, fill=False, ec="#1f4e8c", lw=2.0)
            axis.add_patch(frame)
            start += width
        axis.set_title("bonds between elements: number, and enrichment over random pairing")
        bar = figure.colorbar(image, ax=axis, shrink=0.75, pad=0.02, ticks=[-2, -1, 0, 1, 2])
        bar.ax.set_yticklabels(["≤ ¼", "½", "1", "2", "≥ 4"])
        bar.outline.set_visible(False)
        _save(plt, figure, path)


def _element_legend(plt: Any, figure: Any, elements: Sequence[str], columns: int) -> None:
    colors = element_colors(elements)
    size = element_radii(Atoms(list(elements))) if len(elements) else np.empty(0)
    handles = [
        plt.Line2D([], [], marker="o", ls="", ms=5.5 * float(r) / 0.8, mfc=colors[e], mec="0.25", mew=0.5, label=e)
        for e, r in zip(elements, size, strict=True)
    ]
    figure.legend(handles=handles, loc="outside right center", ncols=columns, handletextpad=0.3, columnspacing=0.8)


def _same_size(pictures: Sequence[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
    """Pictures padded with white to a common height and width, content in the middle."""
    height, width = (max(picture.shape[k] for picture in pictures) for k in (0, 1))
    padded = []
    for picture in pictures:
        canvas = np.ones((height, width, 3))
        top, left = (height - picture.shape[0]) // 2, (width - picture.shape[1]) // 2
        canvas[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
        padded.append(canvas)
    return padded


def _save(plt: Any, figure: Any, path: Path) -> None:
    figure.savefig(path)
    plt.close(figure)
