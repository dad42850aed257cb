"""Growth of the entropy of a run of the generator, next to random structures of the same settings."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from grace_md.analysis.dataset_sets import DataSet
from grace_md.smax.config import SmaxConfig
from grace_md.smax.statistics import SingularStatisticsError, Statistics

if TYPE_CHECKING:
    from grace_md.smax.candidate import Mode

__all__ = ["logged_growth", "random_growth"]

LOG_FILE, MANIFEST_FILE = "metrics.jsonl", "manifest.json"  # of a run
FIRST_RANDOM = 1 << 40  # numbers of random candidates: none that a run comes to
AT_ONCE = 64  # candidates drawn side by side
POINTS_PER_E_FOLD = 20  # of the random curve

Curve = dict[str, Any]


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue  # a line that was cut off when the run was killed
            if isinstance(row, dict):
                yield row


def _curve(one: DataSet, mode: str, points: list[tuple[int, float, float | None]], *, random: bool) -> Curve:
    name = f"{one.name}, per {'configuration' if mode == 'config' else mode}"
    return {
        "set": one.name,
        "name": f"{name}: random" if random else name,
        "mode": mode,
        "random": random,
        "accepted": [point[0] for point in points],
        "log_det": [point[1] for point in points],
        "effective_dimension": [point[2] for point in points],
    }


def logged_growth(one: DataSet) -> list[Curve]:
    """Return a curve for each kind of items that a run logs; an empty list for sets that are no run.

    Curves are dictionaries for `dataset_space_figures.plot_growth`: set, name, mode, random, and the lists accepted,
    log_det and effective_dimension.
    """
    if one.run is None:
        return []
    found = []
    rows = list(_rows(one.run / LOG_FILE))
    for mode in ("atom", "config"):
        points = [
            (int(row["step"]), float(row[f"{mode}_log_det"]), row.get(f"{mode}_dimension"))
            for row in rows
            if row.get("step") is not None and row.get(f"{mode}_log_det") is not None
        ]
        if points:
            found.append(_curve(one, mode, points, random=False))
    return found


def random_growth(one: DataSet, n: int, advance: Callable[[int], None] = lambda _: None) -> list[Curve]:
    """Draw random structures with the settings of a run, relax their cores and nothing else, and add them up.

    They are what the seed phase of a run consists of: same elements, radii, cells and densities, same hard checks.

    Parameters
    ----------
    one : set that is a run; others have no curve
    n : structures
    advance : called with the number of structures done since

    Raises
    ------
    ValueError
        A manifest that is missing or damaged.
    """
    if one.run is None or n < 1:
        return []
    path = one.run / MANIFEST_FILE
    try:
        config = SmaxConfig.of(json.loads(path.read_text(encoding="utf-8"))["config"])
    except (OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"`{path}` does not hold the settings of a run ({error}); restore it from a copy.") from None
    mode = config.statistics.mode
    modes: list[Mode] = ["atom", "config"] if mode == "mixed" else [mode]
    return [
        _curve(one, kind, points, random=True)
        for kind, points in _added_up(config, modes, n, advance).items()
        if points
    ]


def _added_up(
    config: SmaxConfig, modes: list[Mode], n: int, advance: Callable[[int], None]
) -> dict[Mode, list[tuple[int, float, float | None]]]:
    points: dict[Mode, list[tuple[int, float, float | None]]] = {kind: [] for kind in modes}
    sums: dict[Mode, Statistics] = {}
    count, wanted = 0, 1.0
    for features in _random_features(config):
        count += 1
        for kind in modes:
            statistics = sums.setdefault(kind, Statistics.empty(features.shape[1]))
            statistics.add(features if kind == "atom" else features.mean(axis=0, keepdims=True))
            if count >= wanted or count == n:
                try:
                    value = statistics.log_det()
                except SingularStatisticsError:
                    continue  # fewer items than features
                if np.isfinite(value) and statistics.count > statistics.n_features:
                    points[kind].append((count, value, statistics.effective_dimension()))
        if count >= wanted:
            wanted = max(count + 1.0, count * np.exp(1.0 / POINTS_PER_E_FOLD))
        advance(1)
        if count == n:
            return points
    return points


def _random_features(config: SmaxConfig) -> Iterator[NDArray[np.float64]]:
    from grace_md.smax.search import search  # noqa: PLC0415

    first = FIRST_RANDOM
    while True:
        for found in search(config, None, range(first, first + AT_ONCE)):
            if found.reason is None:
                yield found.features
        first += AT_ONCE
