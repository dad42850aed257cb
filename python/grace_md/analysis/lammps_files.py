"""Readers for what a LAMMPS run leaves behind: thermo lines of the log, text dumps, data files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import atomic_masses
from numpy.typing import NDArray

__all__ = ["read_data", "read_frames", "read_thermo", "truncate_frames"]

Thermo = dict[str, NDArray[np.float64]]


def read_thermo(logs: Iterable[Path], start_mark: str | None = None) -> Thermo:
    """Thermo output of one or more logs as columns.

    Parameters
    ----------
    logs : iterable of Path
        Logs in the order in which they were written. A step that occurs more than once (segments, resumed runs)
        keeps the line written last.
    start_mark : str, optional
        Lines of each log before the first line that contains this text are ignored (minimisation).

    Returns
    -------
    dict of str to ndarray, shape (n_lines,)
        One array per column named as in the header; empty if there are no lines.
    """
    rows: dict[int, list[float]] = {}
    header: list[str] = []
    for log in logs:
        active, in_table = start_mark is None, False
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
            active = active or (start_mark is not None and start_mark in line)
            words = line.split()
            if active and words[:1] == ["Step"]:
                in_table, header = True, words
            elif in_table:
                values = _floats(words)
                if values is not None and len(values) == len(header):
                    rows[int(values[0])] = values
                elif words[:1] == ["Loop"] or words[:1] == ["ERROR"]:
                    in_table = False
    if not rows:
        return {}
    table = np.array([rows[step] for step in sorted(rows)])
    return {name: table[:, k] for k, name in enumerate(header)}


def read_frames(dump: Path, last: int | None = None) -> list[tuple[int, Atoms]]:
    """Frames of a text dump with columns ``id element x y z`` in an orthogonal box.

    Parameters
    ----------
    dump : Path
    last : int, optional
        Only this many frames from the end.

    Returns
    -------
    list of (step, ase.Atoms)
        Complete frames; a frame that was cut off while being written is left out. Positions are shifted so that the
        cell starts at the origin.
    """
    pieces = list(_frame_texts(dump.read_text(encoding="utf-8")))
    return [_parse_frame(piece) for piece in (pieces if last is None else pieces[-last:] if last else [])]


def truncate_frames(dump: Path, step: int) -> None:
    """Remove the frames after `step` from a text dump; used before a resumed run writes them again."""
    kept = [text for text in _frame_texts(dump.read_text(encoding="utf-8")) if int(text.split("\n", 2)[1]) <= step]
    part = dump.with_name(dump.name + ".part")
    part.write_text("".join(kept), encoding="utf-8")
    part.replace(dump)


def read_data(path: Path, elements: list[str]) -> Atoms:
    """Atoms of a LAMMPS data file (``atom_style atomic``, orthogonal box); type k is element k of `elements`."""
    lines = path.read_text(encoding="utf-8").splitlines()
    low, high = np.zeros(3), np.zeros(3)
    n_atoms, begin = 0, 0
    for k, line in enumerate(lines):
        words = line.split()
        if words[1:2] == ["atoms"]:
            n_atoms = int(words[0])
        for axis, name in enumerate("xyz"):
            if words[2:4] == [f"{name}lo", f"{name}hi"]:
                low[axis], high[axis] = float(words[0]), float(words[1])
        if words[:1] == ["Atoms"]:
            begin = k + 2
            break
    rows = sorted((line.split() for line in lines[begin : begin + n_atoms]), key=lambda row: int(row[0]))
    if n_atoms == 0 or len(rows) != n_atoms:
        raise ValueError(f"{path} holds {len(rows)} of {n_atoms} atoms; it is no complete LAMMPS data file.")
    positions = np.array([[float(value) for value in row[2:5]] for row in rows]) - low
    return Atoms([elements[int(row[1]) - 1] for row in rows], positions, cell=np.diag(high - low), pbc=True)


def mass_density(atoms: Atoms) -> float:
    """Mass density in g/cm^3."""
    return float(atomic_masses[atoms.numbers].sum() * 1.66053906660 / atoms.get_volume())


def _floats(words: list[str]) -> list[float] | None:
    try:
        return [float(word) for word in words]
    except ValueError:
        return None


def _frame_texts(text: str) -> Iterator[str]:
    marker = "ITEM: TIMESTEP\n"
    for body in text.split(marker)[1:]:
        frame = marker + body
        lines = body.split("\n", 3)
        if len(lines) > 3 and lines[2].isdigit() and body.endswith("\n") and body.count("\n") == 8 + int(lines[2]):
            yield frame


def _parse_frame(text: str) -> tuple[int, Atoms]:
    lines = text.splitlines()
    bounds = np.array([[float(word) for word in line.split()[:2]] for line in lines[5:8]])
    rows = [line.split() for line in lines[9:]]
    positions = np.array([row[2:5] for row in rows], dtype=float) - bounds[:, 0]
    cell = np.diag(bounds[:, 1] - bounds[:, 0])
    return int(lines[1]), Atoms([row[1] for row in rows], positions, cell=cell, pbc=True)
