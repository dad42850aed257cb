"""Report on one or several data sets: text, numbers for machines, pictures, and one HTML page with all of it."""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from grace_md.analysis.dataset_coverage import Coverage, choose
from grace_md.analysis.dataset_sets import DataSet
from grace_md.analysis.dataset_space import CONFIDENCE
from grace_md.analysis.dataset_statistics import QUANTITIES, SHARES, SetStatistics
from grace_md.training.data.labels import Record

__all__ = ["DatasetReport", "measure_statistics"]

STRUCTURES_PER_BATCH = 256

Cells = list[list[str]]


def measure_statistics(
    one: DataSet, sample: int = 0, seed: int = 0, advance: Callable[[int], None] = lambda _: None
) -> SetStatistics:
    """Go through a scanned set, or a random sample of its files, once.

    Parameters
    ----------
    sample : structures of the files of the set, before types are chosen; 0: all
    advance : called with the number of structures done since

    Raises
    ------
    ValueError
        A structure that cannot be read; a set that is empty after types were chosen.
    """
    found = SetStatistics(one.name)
    chosen = choose(np.arange(one.n_scanned), sample, seed) if 0 < sample < one.n_scanned else None
    numbers: list[int] = []
    records: list[Record] = []
    done = 0
    for number, record in one.read(chosen):
        numbers.append(number)
        records.append(record)
        if len(records) == STRUCTURES_PER_BATCH:
            found.add(numbers, records)
            seen = number if chosen is None else int(np.searchsorted(chosen, number))
            advance(seen - done)
            done, numbers, records = seen, [], []
    found.add(numbers, records)
    advance((one.n_scanned if chosen is None else len(chosen)) - done)
    if not found.n_structures:
        types = f" of type `{one.types}`" if one.types else ""
        raise ValueError(f"the data set {one.name} has no structure{types}; check the file and the types.")
    return found


@dataclass
class DatasetReport:
    """What was found in some data sets.

    Attributes
    ----------
    statistics : of every set
    coverage : of the space of features; None where no features were asked for
    growth : curves of runs of the generator (`dataset_space_figures.plot_growth`)
    entropies : independent entropies by set, in nats; empty unless asked for
    note : why something is missing; empty if nothing is
    """

    statistics: list[SetStatistics]
    coverage: Coverage | None = None
    growth: list[dict[str, Any]] = field(default_factory=list)
    entropies: dict[str, float] = field(default_factory=dict)
    note: str = ""

    def tables(self) -> list[tuple[str, Cells]]:
        """Return (title, rows of text) of every table; the first row is the head."""
        found = [("sets", self._counts())]
        found += [(_title(quantity), self._percentiles(quantity)) for quantity in QUANTITIES]
        if self.coverage is not None:
            found += [("space of features", self._scalars()), (_matrix_title(), self._matrix())]
        if self.entropies:
            rows = [[name, _number(value)] for name, value in self.entropies.items()]
            found.append(("QUESTS entropy", [["set", "nats"], *rows]))
        return found

    def text(self) -> str:
        """Return the tables for a terminal."""
        parts = []
        for title, cells in self.tables():
            widths = [max(len(row[k]) for row in cells) for k in range(len(cells[0]))]
            lines = [
                "  ".join(
                    c.ljust(w) if k == 0 else c.rjust(w) for k, (c, w) in enumerate(zip(row, widths, strict=True))
                )
                for row in cells
            ]
            parts.append("\n".join([title, *(f"  {line}".rstrip() for line in lines)]))
        return "\n\n".join([*parts, *([self.note] if self.note else [])]) + "\n"

    def summary(self) -> dict[str, Any]:
        """Return plain values for machines."""
        return {
            "sets": {one.name: one.summary() for one in self.statistics},
            "coverage": None if self.coverage is None else self.coverage.summary(),
            "growth": self.growth,
            "quests_entropy": self.entropies,
            "note": self.note,
        }

    def _counts(self) -> Cells:
        head = ["set", "structures", "atoms", "elements", "energies", "force components", "stresses", "periodic"]
        rows = []
        for one in self.statistics:
            h = one.histograms
            counts = [one.n_structures, one.n_atoms, len(one.elements), h["energy"].count, h["force"].count]
            rows.append([one.name, *(f"{n:,}" for n in (*counts, h["stress"].count // 6, one.n_periodic))])
        return [head, *rows]

    def _percentiles(self, quantity: str) -> Cells:
        rows = []
        for one in self.statistics:
            h = one.histograms[quantity]
            values = [h.mean, h.rms, *h.quantiles(SHARES)]
            rows.append([one.name, f"{h.count:,}", *(_number(value) for value in values)])
        return [["set", "values", "mean", "rms", "min", *(f"{100 * s:g} %" for s in SHARES[1:-1]), "max"], *rows]

    def _scalars(self) -> Cells:
        assert self.coverage is not None
        keys = ("log_det", "effective_dimension", "hull_area", "radius")
        head = ["set", "atoms projected", "ln det", "effective dimension", "hull area PC1-PC2"]
        rows = []
        for name, values in self.coverage.scalars.items():
            left_out = f"{values['skipped']:,} structures, {values['dropped']:,} atoms"
            rows.append([name, f"{values['atoms']:,}", *(_number(values[key]) for key in keys), left_out])
        return [[*head, f"{100 * CONFIDENCE:g} % radius", "left out"], *rows]

    def _matrix(self) -> Cells:
        assert self.coverage is not None
        names = self.coverage.names
        rows = [
            [name, *(f"{100 * share:.3g}" for share in row)]
            for name, row in zip(names, self.coverage.matrix, strict=True)
        ]
        return [["atoms of", *names], *rows]

    # ---------------------------------------------------------------------------------------------- pictures

    def draw(self, folder: Path) -> list[tuple[str, str, list[Path]]]:
        """Draw all pictures; return (title, explanation, files) of each section. RuntimeError without matplotlib."""
        from grace_md.analysis import dataset_figures as figures  # noqa: PLC0415 - optional matplotlib
        from grace_md.analysis import dataset_space_figures as space  # noqa: PLC0415

        sections: list[tuple[str, str, list[Path]]] = []

        def section(title: str, text: str, *names: str) -> list[Path]:
            paths = [folder / f"{name}.png" for name in names]
            sections.append((title, text, paths))
            return paths

        coverage = self.coverage
        if coverage is not None:
            first, second = section(
                "Coverage of the space of features", self._space_words(), "coverage", "coverage_higher"
            )
            space.plot_coverage(first, coverage)
            if not space.plot_higher(second, coverage):
                sections[-1][2].remove(second)
            paths = section("How far sets reach beyond each other", _MATRIX_WORDS, "outside", "scalars", "mahalanobis")
            for draw, path in zip((space.plot_matrix, space.plot_scalars, space.plot_mahalanobis), paths, strict=True):
                draw(path, coverage)
        if self.growth:
            (path,) = section("Growth of the entropy", _GROWTH_WORDS, "growth")
            space.plot_growth(path, self.growth)
        (path,) = section("Labels", "Counts on a logarithmic axis.", "labels")
        figures.plot_labels(path, self.statistics)
        (path,) = section("Composition", "", "composition")
        figures.plot_composition(path, self.statistics)
        (path,) = section("Geometry", _GEOMETRY_WORDS, "geometry")
        figures.plot_geometry(path, self.statistics)
        paths = section("Elements", "", *(f"elements_{file_name(one.name)}" for one in self.statistics))
        for path, one in zip(paths, self.statistics, strict=True):
            figures.plot_elements(path, one)
        return sections

    def _space_words(self) -> str:
        c = self.coverage
        assert c is not None
        return (
            f"Features: {c.features}, {c.n_features:,} numbers per atom. The principal axes are those of {c.n_fit:,} "
            f"structures of each set; {len(c.axes.variance)} components hold {100 * c.axes.shares.sum():.4g} % of the "
            f"variance. ln det and effective dimension are those of {c.n_fair:,} atoms of each set."
        )

    def write(self, folder: Path) -> Path:
        """Write report.txt, report.json and, with matplotlib, pictures and report.html; return the file to open."""
        from grace_md.analysis import html_page  # noqa: PLC0415
        from grace_md.training.data.storage import write_json  # noqa: PLC0415

        folder.mkdir(parents=True, exist_ok=True)
        try:
            sections = self.draw(folder)
        except RuntimeError as error:
            self.note = " ".join([self.note, f"no pictures: {error}"]).strip()
            sections = []
        write_json(folder / "report.json", self.summary())
        (folder / "report.txt").write_text(self.text(), encoding="utf-8")
        if not sections:
            return folder / "report.txt"
        tables = self.tables()
        parts = [html_page.table(tables[0][1])]
        for title, words, paths in sections:
            parts.append(f"<h2>{html.escape(title)}</h2>" + (f"<p>{html.escape(words)}</p>" if words else ""))
            parts += [html_page.picture(path, title) for path in paths]
        parts.append("<h2>Numbers</h2>")
        parts += [f"<h3>{html.escape(title)}</h3>{html_page.table(cells)}" for title, cells in tables[1:]]
        if self.note:
            parts.append(f"<p>{html.escape(self.note)}</p>")
        names = ", ".join(one.name for one in self.statistics)
        html_page.write_page(folder / "report.html", f"Data sets: {names}", parts)
        return folder / "report.html"


_MATRIX_WORDS = (
    f"Share of the atoms of one set outside of the ellipsoid that holds {100 * CONFIDENCE:g} % of another, in the "
    f"space of all kept components; by construction {100 * (1 - CONFIDENCE):.1g} % of a set lie outside of its own."
)
_GROWTH_WORDS = "ln det of the covariance of the generator's descriptors against accepted structures."
_GEOMETRY_WORDS = (
    "Shortest distances count periodic images. Packing number: volume of spheres with covalent radii over the volume "
    "of the cell. Aspect: largest over smallest distance between opposite faces of the cell."
)


def _title(quantity: str) -> str:
    words, unit, _ = QUANTITIES[quantity]
    return f"{words} ({unit})" if unit else words


def _matrix_title() -> str:
    return f"% of the atoms outside of the {100 * CONFIDENCE:g} % ellipsoid of"


def _number(value: float) -> str:
    return f"{value:.4g}" if np.isfinite(value) else "-"


def file_name(text: str) -> str:
    """Return a text with everything replaced that is unsafe in names of files."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in text)
