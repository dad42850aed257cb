"""Relaxation of files: resumable, in the order of the input, without copies, with a table of how each one ended."""

from __future__ import annotations

import csv
import io
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io.extxyz import read_xyz, write_extxyz

from grace_md.interrupt import StopRequest
from grace_md.merging.entries import atoms_of_frame
from grace_md.merging.journal import Journal, file_stamp
from grace_md.merging.writers import check_writer, open_writer
from grace_md.progress import ProgressBar
from grace_md.smax.relax_copies import Distinct
from grace_md.smax.relaxation import KEPT, REASONS, Evaluates, Relaxed, RelaxSettings, relax_stream
from grace_md.training.data.readers import Part, Source, expand, read_part, scan
from grace_md.training.data.storage import write_json

__all__ = ["RelaxSummary", "relax_files"]

PART_ATOMS = 20_000  # of a piece of a file that is read at a time
SYNC_SECONDS = 2.0  # of work that a power failure may cost
COLUMNS = (
    "index", "reason", "cell", "steps", "fmax_first", "fmax", "energy_per_atom_first", "energy_per_atom",
    "volume_ratio", "frames",
)  # fmt: skip


@dataclass
class RelaxSummary:
    """What became of the structures of a run.

    Attributes
    ----------
    outcomes : structures by reason
    n_written, n_copies : frames in the output, and frames left out as copies
    fmax_first, fmax : eV/A, medians over the kept structures
    stopped : whether the run was interrupted; the same call goes on
    """

    outcomes: dict[str, int]
    n_written: int = 0
    n_copies: int = 0
    fmax_first: float | None = None
    fmax: float | None = None
    seconds: float = 0.0
    stopped: bool = False
    output: str = ""
    settings: dict[str, Any] = field(default_factory=dict)

    def text(self) -> str:
        """Return the table for people."""
        kinds = {reason: "kept" if reason in KEPT else "dropped" for reason in self.outcomes}
        lines = [f"{reason:<16}{kinds[reason]:<9}{n:>9}" for reason, n in self.outcomes.items()]
        if self.fmax is not None and self.fmax_first is not None:
            lines.append(f"largest force, median of the kept ones: {self.fmax_first:.3g} -> {self.fmax:.3g} eV/A")
        lines.append(f"{self.n_written} frames -> {self.output} ({self.n_copies} copies left out)")
        return "\n".join(lines) + "\n"


def _frames(sources: Sequence[tuple[Source, list[Part]]], done: set[int]) -> Iterator[tuple[int, Atoms]]:
    index = 0
    for source, parts in sources:
        for part in parts:
            if done.issuperset(range(index, index + len(part.rows))):
                index += len(part.rows)
                continue
            for frame in read_part(source, part):
                if index not in done:
                    yield index, atoms_of_frame(frame)
                index += 1


class _Pieces:
    """Frames as they come, in OUT.frames, and the journal of where each structure's frames are."""

    def __init__(self, out: Path, request: dict[str, Any], *, force: bool) -> None:
        self.part = out.with_name(out.name + ".frames")
        self.journal = Journal(out.with_name(out.name + ".journal"), request, force=force)
        end = self.journal.lines[-1]["end"] if self.journal.lines else 0
        if not self.part.exists() or self.part.stat().st_size < end:
            if end:
                self.journal.close()
                raise ValueError(f"{self.part} is missing or shorter than its journal says; add --force to start anew.")
            self.part.write_bytes(b"")
        os.truncate(self.part, end)
        self.lines: list[dict[str, Any]] = list(self.journal.lines)
        self._stream = self.part.open("a", encoding="utf-8")
        self._end, self._pending, self._synced = end, [], time.monotonic()

    _pending: list[dict[str, Any]]

    def add(self, result: Relaxed) -> None:
        """Append a result."""
        text = io.StringIO()
        if result.frames:
            write_extxyz(text, result.frames)
        self._stream.write(text.getvalue())
        begin, self._end = self._end, self._end + len(text.getvalue().encode())
        numbers = [result.fmax_first, result.fmax, result.energy_first, result.energy, result.volume_ratio]
        clean = [float(f"{x:.8g}") if np.isfinite(x) else None for x in numbers]
        cell = "variable" if result.variable else "fixed"
        row = [result.index, result.reason, cell, result.steps, *clean, len(result.frames)]
        self._pending.append({"row": row, "begin": begin, "end": self._end})
        if time.monotonic() - self._synced > SYNC_SECONDS:
            self.sync()

    def sync(self) -> None:
        """Bring everything to the disk: frames first, then the journal that speaks of them."""
        self._stream.flush()
        os.fsync(self._stream.fileno())
        for line in self._pending:
            self.journal.append(line, sync=line is self._pending[-1])
        self.lines += self._pending
        self._pending, self._synced = [], time.monotonic()

    def read(self) -> Iterator[tuple[dict[str, Any], list[Atoms]]]:
        """Yield results and their frames in the order of the input."""
        with self.part.open("rb") as stream:
            for line in sorted(self.lines, key=lambda line: int(line["row"][0])):
                stream.seek(line["begin"])
                text = stream.read(line["end"] - line["begin"]).decode()
                yield line, list(read_xyz(io.StringIO(text), index=slice(None))) if text else []

    def close(self, *, remove: bool) -> None:
        """Close the files; delete them when the output is complete."""
        self._stream.close()
        self.journal.close(remove=remove)
        if remove:
            self.part.unlink(missing_ok=True)


def relax_files(
    inputs: Sequence[str],
    out: str | Path,
    calculator: Evaluates,
    settings: RelaxSettings | None = None,
    *,
    tolerance: float = 1e-3,
    descriptor: str = "snap",
    force: bool = False,
    progress: bool = True,
) -> RelaxSummary:
    """Relax all structures of files and write those that are worth a label.

    Parameters
    ----------
    inputs : files, directories or patterns of any format that training reads
    out : ``.extxyz``, ``.db`` or ``.aselmdb``; beside it ``OUT.outcomes.csv``, ``OUT.summary.json`` and, where
        matplotlib is installed, ``OUT.png``
    calculator : GraceCalculator
    tolerance, descriptor : of copies, see `Distinct`; 0 keeps them
    force : overwrite, and forget an interrupted run

    Raises
    ------
    FileExistsError
        The output exists, or an interrupted run had other inputs or settings.
    ValueError
        No structure could be kept for want of known elements; settings or files that are not understood.
    """
    begin = time.perf_counter()
    chosen, target = settings or RelaxSettings(), Path(out)
    if target.exists() and not force:
        raise FileExistsError(f"{target} exists; add --force to overwrite it, or choose another name.")
    distinct = Distinct(tolerance, descriptor)
    check_writer(target)  # before the work
    sources = [(one, scan(one, PART_ATOMS)) for name in inputs for one in expand(Source(name))]
    request = {
        "files": [[*file_stamp(source.file), source.path] for source, _ in sources],
        "model": str(getattr(calculator.model, "sha256", "")),
        "settings": {k: v for k, v in asdict(chosen).items() if k != "batch_atoms"},
    }
    total = sum(len(part.rows) for _, parts in sources for part in parts)
    pieces = _Pieces(target, request, force=force)
    finished = False
    try:
        with StopRequest() as stop:
            done = {int(line["row"][0]) for line in pieces.lines}
            stream = None if progress else io.StringIO()
            with ProgressBar(total, "relaxed", start=len(done), stream=stream) as bar:
                for result in relax_stream(_frames(sources, done), calculator, chosen, stop):
                    pieces.add(result)
                    bar.update()
            pieces.sync()
            summary = RelaxSummary(_outcomes(pieces), settings=asdict(chosen), output=str(target), stopped=stop.asked)
            if len(pieces.lines) == total:
                _refuse_if_nothing_is_known(pieces, calculator)
                with ProgressBar(total, "written", stream=stream) as bar:
                    finished = _write(pieces, target, distinct, summary, bar, stop)
                summary.stopped = not finished
    finally:
        pieces.close(remove=finished)
    summary.seconds = time.perf_counter() - begin
    if finished:
        write_json(target.with_name(target.name + ".summary.json"), asdict(summary))
        _draw(target, pieces.lines)
    return summary


def _outcomes(pieces: _Pieces) -> dict[str, int]:
    counts = Counter(line["row"][1] for line in pieces.lines)
    return {reason: counts[reason] for reason in REASONS if counts[reason]}


def _refuse_if_nothing_is_known(pieces: _Pieces, calculator: Evaluates) -> None:
    if pieces.lines and all(line["row"][1] == "unknown element" for line in pieces.lines):
        raise ValueError(
            f"Every structure has elements outside the model, which knows {' '.join(calculator.model.elements)}."
        )


def _write(
    pieces: _Pieces, target: Path, distinct: Distinct, summary: RelaxSummary, bar: ProgressBar, stop: StopRequest
) -> bool:
    """Write the frames that are no copies, and the table of outcomes; False if it was stopped, with nothing written."""
    table = target.with_name(target.name + ".outcomes.csv")
    part = table.with_name(table.name + ".part")
    first, last = [], []
    with part.open("w", encoding="utf-8", newline="") as file, ExitStack() as stack:
        writer = open_writer(target)
        stack.callback(writer.abort)  # harmless after finish
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow([*COLUMNS, "frames_written"])
        for line, frames in pieces.read():
            if stop.asked:
                part.unlink()
                return False
            bar.update()
            new = [atoms for atoms in frames if distinct.is_new(atoms)]
            for atoms in new:
                writer.write(atoms)
            rows.writerow([*line["row"], len(new)])
            summary.n_written += len(new)
            summary.n_copies += len(frames) - len(new)
            if line["row"][1] in KEPT:
                first.append(line["row"][4])
                last.append(line["row"][5])
        writer.finish()
    part.replace(table)
    if last:
        summary.fmax_first, summary.fmax = float(np.median(first)), float(np.median(last))
    return True


def _draw(target: Path, lines: Sequence[dict[str, Any]]) -> bool:
    """Draw histograms of the largest forces before and after; False where matplotlib is missing."""
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - optional
    except ImportError:
        return False
    figure = Figure(figsize=(7.0, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    kept = [line["row"] for line in lines if line["row"][1] in KEPT]
    values = [np.array([row[k] for row in kept if row[k]]) for k in (4, 5)]
    if all(map(len, values)):
        bins = np.geomspace(min(v.min() for v in values), max(v.max() for v in values) * 1.001, 40)
        for one, label in zip(values, ("before", "after"), strict=True):
            left.hist(one, bins=bins, alpha=0.7, label=label)
        left.set_xscale("log")
        left.legend(frameon=False)
    left.set_xlabel("largest force (eV/A)")
    left.set_ylabel("structures kept")
    counts = Counter(line["row"][1] for line in lines)
    right.barh(list(counts), list(counts.values()), color="0.6")
    right.set_xlabel("structures")
    picture = target.with_name(target.name + ".png")
    part = picture.with_name(picture.name + ".part")
    figure.savefig(part, dpi=150, format="png")
    part.replace(picture)
    return True
