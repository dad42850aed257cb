"""Pictures of data sets in the space of features (figures 1 and 10 of the paper), and of the growth of entropy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from grace_md.analysis.dataset_figures import set_colors
from grace_md.analysis.dataset_space import CONFIDENCE
from grace_md.analysis.plots import STYLE, require_matplotlib

if TYPE_CHECKING:
    from grace_md.analysis.dataset_coverage import Coverage

__all__ = ["plot_coverage", "plot_growth", "plot_higher", "plot_mahalanobis", "plot_matrix", "plot_scalars"]

Floats = NDArray[np.float64]
_POINTS = 15_000  # of a set in an overlay
_MARGIN = 0.04
_PAIRS = ((0, 2), (1, 2), (2, 3), (4, 5), (6, 7), (8, 9))  # components of the second figure


def _overlay(axis: Any, coverage: Coverage, pair: tuple[int, int], *, hulls: bool) -> None:
    """Scatter all sets, the widest one first so that it does not hide the others."""
    colors = set_colors(coverage.names)
    a, b = pair
    spread = [float(np.prod(np.ptp(rows[:, [a, b]], axis=0))) for rows in coverage.samples]
    for k in np.argsort(spread)[::-1]:
        points = coverage.samples[k][:_POINTS]
        axis.plot(
            points[:, a], points[:, b], ".", ms=2.0, alpha=0.35, mew=0, color=colors[coverage.names[k]], rasterized=True
        )
        if hulls:
            corners = coverage.hulls[k].corners
            closed = np.concatenate([corners, corners[:1]])
            axis.plot(closed[:, 0], closed[:, 1], color=colors[coverage.names[k]], lw=1.0)
    axis.set(xlabel=_axis_label(coverage, a), ylabel=_axis_label(coverage, b))


def _axis_label(coverage: Coverage, component: int) -> str:
    return f"PC{component + 1} ({100.0 * coverage.axes.shares[component]:.2g} %)"


def _limits(coverage: Coverage) -> list[tuple[float, float]]:
    corners = np.concatenate([hull.corners for hull in coverage.hulls])
    low, high = corners.min(axis=0), corners.max(axis=0)
    margin = _MARGIN * (high - low) + 1e-12
    return list(zip((low - margin).tolist(), (high + margin).tolist(), strict=True))


def _legend(figure: Any, coverage: Coverage) -> None:
    from matplotlib.lines import Line2D  # noqa: PLC0415 - optional

    colors = set_colors(coverage.names)
    handles = [Line2D([], [], color=colors[name], lw=0, marker="o", ms=6) for name in coverage.names]
    figure.legend(handles, coverage.names, loc="outside upper left", ncols=min(6, len(handles)))


def plot_coverage(path: Path, coverage: Coverage) -> None:
    """PC1-PC2: all sets over each other with their convex hulls, then the density of each set in its own panel."""
    plt = require_matplotlib()
    n_panels = 1 + len(coverage.names)
    columns = min(3, n_panels) if n_panels != 4 else 2
    rows = -(-n_panels // columns)
    xlim, ylim = _limits(coverage)
    colors = set_colors(coverage.names)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            rows, columns, figsize=(10.5, 0.5 + 8.6 * rows / columns), squeeze=False, layout="constrained"
        )
        _overlay(axes.flat[0], coverage, (0, 1), hulls=True)
        axes.flat[0].set_title("all sets with their convex hulls")
        outline = _union(coverage)
        for axis, name, rows_of_set in zip(axes.flat[1:], coverage.names, coverage.samples, strict=False):
            axis.plot(outline[:, 0], outline[:, 1], color="0.75", lw=0.8)
            drawn = axis.hexbin(
                rows_of_set[:, 0], rows_of_set[:, 1], gridsize=60, bins="log", mincnt=1, extent=(*xlim, *ylim),
                cmap="viridis", linewidths=0.1,
            )  # fmt: skip
            axis.set_title(name, color=colors[name])
            axis.set(xlabel=_axis_label(coverage, 0), ylabel=_axis_label(coverage, 1))
            figure.colorbar(drawn, ax=axis, label="atoms", shrink=0.8, pad=0.01)
        for axis in axes.flat[:n_panels]:
            axis.set(xlim=xlim, ylim=ylim)
        for axis in axes.flat[n_panels:]:
            axis.set_axis_off()
        _legend(figure, coverage)
        figure.savefig(path)
        plt.close(figure)


def _union(coverage: Coverage) -> Floats:
    """Return the closed hull of all sets."""
    hull = type(coverage.hulls[0])()
    for one in coverage.hulls:
        hull.add(one.corners)
    return np.concatenate([hull.corners, hull.corners[:1]])


def plot_higher(path: Path, coverage: Coverage) -> bool:
    """Overlays of higher components; return False if there are fewer than three."""
    n = coverage.samples[0].shape[1]
    pairs = [pair for pair in _PAIRS if max(pair) < n]
    if not pairs:
        return False
    plt = require_matplotlib()
    columns = min(3, len(pairs))
    rows = -(-len(pairs) // columns)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            rows, columns, figsize=(3.5 * columns, 0.5 + 3.2 * rows), squeeze=False, layout="constrained"
        )
        for axis, pair in zip(axes.flat, pairs, strict=False):
            _overlay(axis, coverage, pair, hulls=False)
        for axis in axes.flat[len(pairs) :]:
            axis.set_axis_off()
        _legend(figure, coverage)
        figure.savefig(path)
        plt.close(figure)
    return True


def plot_matrix(path: Path, coverage: Coverage) -> None:
    """Per cent of the atoms of one set outside of the ellipsoid of another."""
    plt = require_matplotlib()
    shares, names = 100.0 * coverage.matrix, coverage.names
    size = 2.6 + 0.75 * len(names)
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(size + 1.2, size), layout="constrained")
        drawn = axis.imshow(shares, vmin=0.0, vmax=100.0, cmap="magma_r")
        for a, row in enumerate(shares):
            for b, share in enumerate(row):
                ink = "white" if share > 55.0 else "0.1"
                axis.text(b, a, f"{share:.3g}", ha="center", va="center", color=ink)
        axis.set_xticks(range(len(names)), names, rotation=35, ha="right", rotation_mode="anchor")
        axis.set_yticks(range(len(names)), names)
        axis.set(xlabel=f"outside of the {100 * CONFIDENCE:g} % ellipsoid of", ylabel="atoms of")
        axis.spines[:].set_visible(False)
        figure.colorbar(drawn, ax=axis, label="%", shrink=0.85)
        figure.savefig(path)
        plt.close(figure)


def chi_square_density(x: Floats, k: int) -> Floats:
    """Return the density of chi-square with k degrees of freedom, x^(k/2-1) e^(-x/2) / (2^(k/2) Gamma(k/2)), x > 0."""
    density: Floats = np.exp((0.5 * k - 1.0) * np.log(x) - 0.5 * x - 0.5 * k * math.log(2.0) - math.lgamma(0.5 * k))
    return density


def plot_mahalanobis(path: Path, coverage: Coverage) -> None:
    """Squared Mahalanobis distances of each set within itself against chi-square, both axes logarithmic."""
    plt = require_matplotlib()
    colors = set_colors(coverage.names)
    k = coverage.samples[0].shape[1]
    distances = [
        ellipsoid.squared_distances(rows) for rows, ellipsoid in zip(coverage.samples, coverage.ellipsoids, strict=True)
    ]
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(8.0, 4.2), layout="constrained")
        low = max(min(float(np.quantile(d, 1e-4)) for d in distances), 1e-3)
        edges = np.geomspace(low, max(float(d.max()) for d in distances) * 1.0001, 90)
        density = [np.histogram(d, edges)[0] / np.diff(edges) / len(d) for d in distances]
        for name, height, ellipsoid in zip(coverage.names, density, coverage.ellipsoids, strict=True):
            axis.stairs(height, edges, color=colors[name], lw=1.2, label=name)
            axis.axvline(ellipsoid.radius2, color=colors[name], lw=0.8, ls=":")
        x = np.geomspace(edges[0], edges[-1], 400)
        axis.plot(x, chi_square_density(x, k), color="k", lw=1.0, ls="--", label=f"chi-square, {k} degrees of freedom")
        axis.set_xscale("log")
        axis.set_yscale("log")
        lowest = min(height[height > 0].min() for height in density)
        axis.set_ylim(0.5 * lowest, 3.0 * max(height.max() for height in density))
        axis.set(xlabel="squared Mahalanobis distance $d^2$ (dotted: 99.9 % of the set)", ylabel="density")
        figure.legend(loc="outside upper left", ncols=min(4, len(coverage.names) + 1))
        figure.savefig(path)
        plt.close(figure)


def plot_scalars(path: Path, coverage: Coverage) -> None:
    """Bars of the scalars of each set."""
    plt = require_matplotlib()
    colors = set_colors(coverage.names)
    panels = [
        ("log_det", "ln det of the covariance"),
        ("effective_dimension", "effective dimension"),
        ("hull_area", "area of the hull in PC1-PC2"),
        ("radius", "99.9 % Mahalanobis radius"),
    ]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, 4, figsize=(11.0, 0.9 + 0.34 * len(coverage.names)), sharey=True, layout="constrained"
        )
        for axis, (key, title) in zip(axes, panels, strict=True):
            values = [coverage.scalars[name][key] for name in coverage.names]
            low, high = min(*values, 0.0), max(*values, 0.0)
            axis.barh(coverage.names, values, color=[colors[name] for name in coverage.names])
            axis.bar_label(axis.containers[0], fmt="%.4g", padding=3, fontsize=8)
            room = 0.38 * (high - low)
            axis.set_xlim(low - (room if low < 0 else 0.0), high + (room if high > 0 else 0.0))
            axis.axvline(0.0, color="0.6", lw=0.6)
            axis.set_title(title, fontsize=9)
            axis.tick_params(axis="x", labelsize=7)
        axes[0].invert_yaxis()
        figure.savefig(path)
        plt.close(figure)


def plot_growth(path: Path, curves: Sequence[dict[str, Any]]) -> None:
    """Growth: ln det of the covariance and effective dimension against accepted structures.

    Parameters
    ----------
    curves : name, accepted, log_det and effective_dimension (may hold None), and `random` for a random reference
    """
    plt = require_matplotlib()
    colors = set_colors(list(dict.fromkeys(str(curve["set"]) for curve in curves)))
    panels = [("log_det", "ln det of the covariance"), ("effective_dimension", "effective dimension")]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(10.5, 3.6), layout="constrained")
        for axis, (key, title) in zip(axes, panels, strict=True):
            for curve in curves:
                known = [(n, v) for n, v in zip(curve["accepted"], curve[key], strict=True) if v is not None]
                if known:
                    style = {"ls": "--", "lw": 1.0} if curve["random"] else {"ls": "-", "lw": 1.5}
                    axis.plot(*np.array(known).T, color=colors[curve["set"]], label=curve["name"], **style)
            axis.set(title=title, xlabel="structures")
            axis.grid(alpha=0.25, lw=0.5)
        axes[0].legend(loc="lower right")
        figure.savefig(path)
        plt.close(figure)
