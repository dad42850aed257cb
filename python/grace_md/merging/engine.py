"""Merge labelled sets: drop entries by rules, bring energies to one scale, split by composition.

Two passes over the sources, piece by piece, so that no set has to fit into memory. The first one applies the rules and
journals every piece, so that a killed merge goes on where it was; the second one writes what is kept. Outputs appear
complete or not at all.
"""

from __future__ import annotations

import csv
import io
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grace_md.interrupt import StopRequest
from grace_md.merging.counts import MergeResult, draw_counts
from grace_md.merging.entries import Entry, OpenSource, batches, labelled_atoms, open_sources
from grace_md.merging.journal import Journal, file_stamp
from grace_md.merging.offsets import Lowest, fit_offsets
from grace_md.merging.parse import ordered, parse_rules
from grace_md.merging.rules import Rule, Valid
from grace_md.merging.split import Split, choose_compositions
from grace_md.merging.stress import StressOutlier
from grace_md.merging.writers import StructureWriter, check_writer, open_writer
from grace_md.progress import ProgressBar
from grace_md.training.data.readers import Part, Source
from grace_md.training.data.storage import write_json

__all__ = ["merge"]

Drops = list[tuple[int, str, str]]  # (position in the piece, rule, reason)


class _Merge:
    """State of the first pass."""

    def __init__(self, sources: list[OpenSource], rules: Sequence[Rule], names: list[str]) -> None:
        self.sources = sources
        self.rules = [Valid(), *ordered(rules)]
        self.result = MergeResult(names, [rule.name for rule in self.rules])
        self.lowest = [Lowest() for _ in names]
        self.compositions: Counter[str] = Counter()
        self.dropped: list[NDArray[np.int64]] = []  # by piece
        self.first_problem: dict[int, str] = {}
        self.unchecked_before = 0

    def unchecked(self) -> int:
        """Return how many entries the model could not judge in this call."""
        return sum(rule.unchecked for rule in self.rules if isinstance(rule, StressOutlier))

    def pieces(self) -> Iterator[tuple[OpenSource, Part]]:
        """Yield every piece of every file, in order."""
        return ((source, part) for source in self.sources for part in source.parts)

    def judge(self, entries: list[Entry]) -> Drops:
        """Apply the rules in turn to what the earlier ones left."""
        drops: Drops = []
        left = list(enumerate(entries))
        for rule in self.rules:
            answers = rule.check([entry for _, entry in left])
            drops += [(k, rule.name, why) for (k, _), why in zip(left, answers, strict=True) if why is not None]
            left = [one for one, why in zip(left, answers, strict=True) if why is None]
        return drops

    def remember(self, entries: list[Entry]) -> None:
        """Show kept entries of a journalled piece to the rules that depend on them."""
        for rule in self.rules:
            if rule.stateful:
                rule.observe(entries)

    def count(self, entries: list[Entry], drops: Drops) -> None:
        """Add a batch to the numbers."""
        gone = {k for k, _, _ in drops}
        stateful = {rule.name for rule in self.rules if rule.stateful}
        copies = {k for k, rule, _ in drops if rule in stateful}  # their energies still tell how two sets differ
        for k, entry in enumerate(entries):
            self.result.read[entry.group] += 1
            if entry.problem:
                self.first_problem.setdefault(entry.group, entry.problem)
            if k in copies:
                self.lowest[entry.group].add(entry)
            if k not in gone:
                self.result.atoms_kept += len(entry.frame.numbers)
                self.compositions[entry.composition] += 1
                self.lowest[entry.group].add(entry)
        for k, rule, _ in drops:
            self.result.dropped[entries[k].group][rule] += 1

    def refuse_broken_sets(self) -> None:
        """Raise if all labels of a set are broken: then its keys or units are wrong, not its entries."""
        for group, name in enumerate(self.result.sets):
            read, broken = self.result.read[group], self.result.dropped[group]["valid"]
            if read and read == broken:
                raise ValueError(f"No entry of {name} has valid labels; the first one: {self.first_problem[group]}")


def _batch_drops(state: _Merge, source: OpenSource, part: Part, known: Drops | None) -> Iterator[tuple[Entry, Any]]:
    """Judge one piece; yield its entries with (rule, reason) or None. `known`: from the journal."""
    position = 0
    journalled = {k: (rule, why) for k, rule, why in known or []}
    for entries in batches(source.read(part)):
        if known is None:
            drops = state.judge(entries)
        else:
            drops = [(k, *journalled[position + k]) for k in range(len(entries)) if position + k in journalled]
            gone = {k for k, _, _ in drops}
            state.remember([entry for k, entry in enumerate(entries) if k not in gone])
        state.count(entries, drops)
        reasons: dict[int, tuple[str, str]] = {k: (rule, why) for k, rule, why in drops}
        yield from ((entry, reasons.get(k)) for k, entry in enumerate(entries))
        position += len(entries)


def _first_pass(state: _Merge, journal: Journal, table: Any, bar: ProgressBar, stop: StopRequest) -> bool:
    """Judge everything; return False if it was stopped."""
    for number, (source, part) in enumerate(state.pieces()):
        known: Drops | None = None
        before = state.unchecked()
        if number < len(journal.lines):
            state.unchecked_before += journal.lines[number]["unchecked"]
            known = [(int(k), rule, why) for k, rule, why in journal.lines[number]["drops"]]
        drops: Drops = []
        for position, (entry, reason) in enumerate(_batch_drops(state, source, part, known)):
            if reason is not None:
                drops.append((position, *reason))
                formula = entry.atoms.get_chemical_formula()
                table.writerow([entry.source, entry.row, *reason, formula, len(entry.frame.numbers)])
        state.dropped.append(np.array([k for k, _, _ in drops], dtype=np.int64))
        if known is None:
            journal.append({"piece": number, "drops": drops, "unchecked": state.unchecked() - before})
        bar.update(len(part.rows))
        if stop.asked:
            return False
    return True


def _kept(state: _Merge, bar: ProgressBar) -> Iterator[Entry]:
    for (source, part), dropped in zip(state.pieces(), state.dropped, strict=True):
        gone = set(dropped.tolist())
        for position, entry in enumerate(source.read(part)):
            bar.update(1)
            if position not in gone:
                yield entry


def _output_paths(out: Path, split: Split | None) -> list[Path]:
    if split is None:
        return [out]
    return [out.with_name(f"{out.stem}.{part}{out.suffix}") for part in ("train", "test")]


def _second_pass(
    state: _Merge, paths: list[Path], split: Split | None, offsets: bool, bar: ProgressBar, stop: StopRequest
) -> bool:
    """Write what is kept; return False if it was stopped, with nothing left behind."""
    result = state.result
    if offsets:
        fits = [fit_offsets(state.lowest[0], lowest) for lowest in state.lowest[1:]]
        result.offsets = dict(zip(result.sets[1:], fits, strict=True))
    test = choose_compositions(state.compositions, split) if split is not None else set()
    counts = [0] * len(paths)
    writers: list[StructureWriter] = []
    try:
        for path in paths:
            writers.append(open_writer(path))
        for entry in _kept(state, bar):
            if stop.asked:
                break
            shift = fits[entry.group - 1].of(entry.counts) if offsets and entry.group else 0.0
            place = 1 if entry.composition in test else 0
            writers[place].write(labelled_atoms(entry, shift))
            counts[place] += 1
        else:
            while writers:
                writers[0].finish()
                writers.pop(0)
            result.outputs = {str(path): n for path, n in zip(paths, counts, strict=True)}
            return True
        return False
    finally:
        for writer in writers:
            writer.abort()


def _names(sets: Sequence[Source | str]) -> list[str]:
    names = [source if isinstance(source, str) else source.label for source in sets]
    return [name if names.count(name) == 1 else f"{name} ({k})" for k, name in enumerate(names, 1)]


def _refuse(paths: Sequence[Path], *, force: bool) -> None:
    for path in paths:
        if path.exists() and not force:
            raise FileExistsError(f"{path} exists; add --force to overwrite it, or choose another name.")


def merge(
    sets: Sequence[Source | str],
    out: str | Path | None,
    rules: str | Sequence[Rule] = "",
    *,
    model: Any = None,
    drop_list: str | Path | None = None,
    offsets: bool = False,
    split: Split | None = None,
    force: bool = False,
    progress: bool = True,
) -> MergeResult:
    """Merge labelled sets into one file, or two with a split.

    Parameters
    ----------
    sets : files, directories or patterns of any format that training reads; the first one is the energy reference
    out : ``.extxyz``, ``.db`` or ``.aselmdb``; None: a dry run that only counts
    rules : words for `parse_rules`, or rules; the first one that objects to an entry counts, `duplicates` comes last
    model : GraceCalculator or weight file, for the rule stress-outlier
    drop_list : CSV file with every dropped entry and the reason
    offsets : fit an energy offset per element of every further set against the first one, and subtract it
    split : write ``NAME.train`` and ``NAME.test`` without a common composition
    force : overwrite files, and forget an interrupted merge

    Returns
    -------
    MergeResult; with an output, also ``OUT.summary.json`` and, where matplotlib is installed, ``OUT.png``.

    Raises
    ------
    FileNotFoundError, FileExistsError
        A source that does not exist; an output that exists, or an interrupted merge with other rules or files.
    ValueError, LabelError
        Rules that are not understood, damaged files, labels whose keys are ambiguous, a set without any valid entry.
    """
    begin = time.perf_counter()
    if not sets:
        raise ValueError("`sets` is empty: give at least one file of labelled structures.")
    chosen = parse_rules(rules, model) if isinstance(rules, str) else list(rules)
    target = Path(out) if out is not None else None
    paths = _output_paths(target, split) if target is not None else []
    table_path = Path(drop_list) if drop_list is not None else None
    if target is not None:
        check_writer(target)
    _refuse([*paths, *([table_path] if table_path else [])], force=force)
    state = _Merge(open_sources(sets), chosen, _names(sets))
    request = {
        "rules": [rule.describe() for rule in state.rules],
        "files": [[*file_stamp(one.source.file), one.source.path] for one in state.sources],
        "keys": [one.keys.to_json() for one in state.sources],
        "model": str(getattr(getattr(_calculator(state.rules), "model", None), "sha256", "")),
    }
    total = sum(one.n_rows for one in state.sources)
    journal_path = target.with_name(target.name + ".journal") if target is not None else None
    part = table_path.with_name(table_path.name + ".part") if table_path is not None else None
    with ExitStack() as stack:
        stop = stack.enter_context(StopRequest())
        stream = None if progress else io.StringIO()
        journal = Journal(journal_path, request, force=force)
        stack.callback(journal.close)
        file = stack.enter_context(part.open("w", encoding="utf-8", newline="") if part else io.StringIO())
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["source", "row", "rule", "reason", "formula", "n_atoms"])
        with ProgressBar(total, "judging", stream=stream) as bar:
            done = _first_pass(state, journal, table, bar, stop)
        if done:
            state.refuse_broken_sets()
        if done and paths:
            with ProgressBar(total, "writing", stream=stream) as bar:
                done = _second_pass(state, paths, split, offsets, bar, stop)
        elif done and offsets:
            fits = [fit_offsets(state.lowest[0], lowest) for lowest in state.lowest[1:]]
            state.result.offsets = dict(zip(state.result.sets[1:], fits, strict=True))
        file.flush()
        if done:
            journal.close(remove=True)
    return _finish(state, replace_table=(part, table_path), target=target, done=done, begin=begin)


def _calculator(rules: Sequence[Rule]) -> Any:
    return next((rule.calculator for rule in rules if isinstance(rule, StressOutlier)), None)


def _finish(
    state: _Merge, replace_table: tuple[Path | None, Path | None], target: Path | None, *, done: bool, begin: float
) -> MergeResult:
    part, table_path = replace_table
    if part is not None and table_path is not None:
        if done:
            part.replace(table_path)
        else:
            part.unlink(missing_ok=True)
    result = replace(
        state.result,
        unchecked=state.unchecked_before + state.unchecked(),
        n_compositions=len(state.compositions),
        seconds=time.perf_counter() - begin,
        stopped=not done,
    )
    if done and target is not None:
        write_json(target.with_name(target.name + ".summary.json"), result.to_json())
        draw_counts(target.with_name(target.name + ".png"), result.sets, result.kept, result.dropped)
    return result
