"""Structures of files, one after the other: extended XYZ, ASE databases, aselmdb, pickled tables, all that ASE reads.

A source is scanned once and cut into parts of consecutive structures; parts are read independently, so that processes
share the work and no file has to fit into memory.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import IO, Any, cast

import ase.io
import numpy as np
from ase import Atoms
from ase.io.extxyz import read_xyz

from grace_md.training.data.labels import Frame, LabelError, LabelKeys

__all__ = ["Part", "Source", "expand", "frame_from_atoms", "merged", "read_part", "sample_frames", "scan"]

INDEX = re.compile(r"^(?P<path>.+)@(?P<index>-?\d+|-?\d*:-?\d*(:-?\d+)?)$")
COMPRESSED: dict[str, Callable[..., Any]] = {
    ".gz": gzip.open, ".gzip": gzip.open, ".bz2": bz2.open, ".xz": lzma.open
}  # fmt: skip
SUFFIXES = {
    ".extxyz": "extxyz", ".xyz": "extxyz", ".db": "ase-db", ".aselmdb": "aselmdb", ".lmdb": "aselmdb",
    ".pkl": "pickle", ".pckl": "pickle", ".pickle": "pickle",
}  # fmt: skip
FORMATS = ("extxyz", "ase-db", "aselmdb", "pickle", "ase")
SERVERS = ("postgresql://", "postgres://", "mysql://", "mariadb://")  # databases that are no files
BYTES_PER_NOTE = 1 << 24  # between two calls that tell how far the scan of a file is
FRAMES_PER_PARSE = 64  # of an XYZ file: bounds memory, and hides the cost of starting the parser


@dataclass(frozen=True)
class Source:
    """Where structures come from.

    Attributes
    ----------
    path : str
        File, database, directory (every data file below it) or glob pattern, with an optional range of structures as in
        ASE: ``train.extxyz@0:1000``.
    name : str
        What reports call it; default the path.
    keys : LabelKeys
        Keys and units of its labels.
    weight : float
        Multiplies the weights of its structures.
    format : str
        "auto" (by the ending of the name), "extxyz", "ase-db", "aselmdb", "pickle" or "ase" (whatever `ase.io` reads).
    trust_pickle : bool
        Unpickle anything: a pickle can run any program, so only for files of your own. Without it, only tables of
        plain `ase.Atoms`, arrays and numbers are accepted.
    """

    path: str
    name: str = ""
    keys: LabelKeys = field(default_factory=LabelKeys)
    weight: float = 1.0
    format: str = "auto"
    trust_pickle: bool = False

    def __post_init__(self) -> None:
        if not (np.isfinite(self.weight) and self.weight >= 0.0):
            raise ValueError(f"`weight` = {self.weight} of the source {self.path} must be a finite number >= 0.")
        if self.format != "auto" and self.format not in FORMATS:
            raise ValueError(f"`format` = {self.format!r} is unknown; it is one of auto, {', '.join(FORMATS)}.")

    @property
    def file(self) -> str:
        """The path without the range."""
        match = INDEX.match(self.path)
        return match["path"] if match else self.path

    @property
    def selection(self) -> slice:
        """The range of structures."""
        match = INDEX.match(self.path)
        if match is None:
            return slice(None)
        if ":" not in match["index"]:
            one = int(match["index"])
            return slice(one, one + 1 or None)
        return slice(*(int(word) if word else None for word in match["index"].split(":")))

    @property
    def label(self) -> str:
        """Name for reports."""
        return self.name or self.path

    @property
    def kind(self) -> str:
        """The format, found from the ending of the name if it is "auto"."""
        if self.format != "auto":
            return self.format
        if self.file.startswith(SERVERS):
            return "ase-db"
        path = Path(self.file)
        inner = path.with_suffix("") if path.suffix in COMPRESSED else path
        kind = SUFFIXES.get(inner.suffix, "ase")
        if kind == "extxyz" or inner is path or kind == "pickle":
            return kind
        raise ValueError(f"`{self.file}` is a compressed {kind}; unpack it first.")


@dataclass(frozen=True)
class Part:
    """Consecutive structures of a source that are read together.

    Attributes
    ----------
    start, stop, step : int
        Structures of the file, as `range`; numbered as the file orders them, from 0.
    n_atoms : int
        About how many atoms they have.
    begin, end : int
        Bytes of a text file, or ids of a database.
    """

    start: int
    stop: int
    step: int
    n_atoms: int
    begin: int = 0
    end: int = 0

    @property
    def rows(self) -> range:
        """Numbers of the structures."""
        return range(self.start, self.stop, self.step)


def _is_data(path: Path) -> bool:
    """Whether a file of a directory is taken; pickles only by their own name."""
    if path.suffix in COMPRESSED:
        return SUFFIXES.get(path.with_suffix("").suffix) == "extxyz"
    return SUFFIXES.get(path.suffix, "pickle") != "pickle"


def expand(source: Source) -> list[Source]:
    """Return one source per file of a directory or glob pattern; FileNotFoundError if there is none."""
    if source.file.startswith(SERVERS) or Path(source.file).is_file():
        return [source]
    path = Path(source.file)
    if path.is_dir():
        files = [p for p in sorted(path.rglob("*")) if _is_data(p) and p.is_file()]
    else:
        anchor = Path(path.anchor) if path.is_absolute() else Path()
        pattern = str(path.relative_to(anchor)) if path.is_absolute() else str(path)
        files = sorted(anchor.glob(pattern)) if any(c in pattern for c in "*?[") else []
    if not files:
        raise FileNotFoundError(f"There is no data file `{source.file}`; check the path.")
    tail = source.path[len(source.file) :]
    return [replace(source, path=f"{p}{tail}", name=source.name or str(p)) for p in files]


def _same(a: Any, b: Any) -> bool:
    return np.shape(a) == np.shape(b) and bool(np.all(np.asarray(a) == np.asarray(b)))


def frame_from_atoms(atoms: Atoms, row: int, source: str = "") -> Frame:
    """Return what an `ase.Atoms` knows: its info, its arrays and the results of its calculator.

    Raises LabelError where the info or the arrays contradict the calculator under the same key.
    """
    values: dict[str, Any] = {**atoms.arrays, **atoms.info}
    for key in ("numbers", "positions"):
        values.pop(key, None)
    frame = Frame(
        numbers=np.asarray(atoms.numbers, dtype=np.int64),
        positions=np.array(atoms.positions, dtype=np.float64),
        cell=np.array(atoms.cell[:], dtype=np.float64),
        pbc=np.array(atoms.pbc, dtype=np.bool_),
        values=values,
        row=row,
        source=source,
    )
    for key, value in (atoms.calc.results if atoms.calc is not None else {}).items():
        if value is None:
            continue
        if key in values and not _same(values[key], value):
            raise LabelError(
                f"{frame.where} has two values of `{key}`, one in its info or arrays and one in its calculator; "
                "remove one of them."
            )
        values[key] = value
    return frame


def _cut(rows: range, atoms_of: Callable[[int], int], target_atoms: int) -> Iterator[tuple[int, int, int]]:
    """Cut `rows` into (first, after last, atoms) positions within `rows` of about `target_atoms` each."""
    first = count = 0
    for position, row in enumerate(rows):
        count += atoms_of(row)
        if count >= target_atoms or position == len(rows) - 1:
            yield first, position + 1, count
            first, count = position + 1, 0


def _rows(selection: slice, n_rows: int, path: str) -> range:
    rows = range(n_rows)[selection]
    if not rows:
        raise ValueError(f"`{path}` selects no structure: the file has {n_rows}.")
    return rows if rows.step > 0 else rows[::-1]


def _part(rows: range, first: int, stop: int, n_atoms: int, begin: int = 0, end: int = 0) -> Part:
    chosen = rows[first:stop]
    return Part(chosen.start, chosen.stop, chosen.step, n_atoms, begin, end)


# Extended XYZ ---------------------------------------------------------------------------------------------------------


def _open(path: str) -> IO[bytes]:
    return cast("IO[bytes]", COMPRESSED.get(Path(path).suffix, open)(path, "rb"))


def _index_xyz(path: str, advance: Callable[[int], None]) -> tuple[list[int], list[int]]:
    """Atoms and first byte of each structure (and the end of the last one)."""
    counts: list[int] = []
    offsets, offset, told = [0], 0, 0
    with _open(path) as stream:
        while line := stream.readline():
            if not line.strip():
                break  # blank lines at the end
            try:
                n = int(line)
            except ValueError:
                raise ValueError(
                    f"`{path}`: structure {len(counts)} does not begin with its number of atoms but with "
                    f"{line[:40].decode(errors='replace').strip()!r}; it is not an XYZ file, or it is damaged there."
                ) from None
            lengths = [len(text) for text in islice(stream, n + 1)]
            if len(lengths) < n + 1:
                raise ValueError(f"`{path}` ends within structure {len(counts)}; it is truncated.")
            offset += len(line) + sum(lengths)
            counts.append(n)
            offsets.append(offset)
            if offset - told > BYTES_PER_NOTE:
                advance(offset - told)
                told = offset
    return counts, offsets


def _scan_xyz(source: Source, target_atoms: int, advance: Callable[[int], None]) -> list[Part]:
    counts, offsets = _index_xyz(source.file, advance)
    rows = _rows(source.selection, len(counts), source.path)
    return [
        _part(rows, a, b, n, offsets[rows[a]], offsets[rows[b - 1] + 1])
        for a, b, n in _cut(rows, counts.__getitem__, target_atoms)
    ]


def _read_xyz(source: Source, part: Part) -> Iterator[Frame]:
    with _open(source.file) as stream:
        stream.seek(part.begin)
        row, last = part.start, part.rows[-1]
        while row <= last:
            wanted, text = [], io.BytesIO()
            for _ in range(FRAMES_PER_PARSE):
                lines = list(islice(stream, 1))
                lines += list(islice(stream, int(lines[0]) + 1))
                if (row - part.start) % part.step == 0:
                    text.writelines(lines)
                    wanted.append(row)
                row += 1
                if row > last:
                    break
            try:
                found = list(read_xyz(io.StringIO(text.getvalue().decode()), index=slice(None))) if wanted else []
            except Exception as error:  # the parser has many ways to fail
                raise ValueError(
                    f"`{source.file}`: one of the structures {wanted[0]} to {wanted[-1]} cannot be read ({error})."
                ) from error
            for number, atoms in zip(wanted, found, strict=True):
                yield frame_from_atoms(atoms, number, source.label)


# Everything else that ASE reads ---------------------------------------------------------------------------------------


def _scan_ase(source: Source, target_atoms: int) -> list[Part]:
    counts = [len(atoms) for atoms in ase.io.iread(source.file, index=":")]
    rows = _rows(source.selection, len(counts), source.path)
    return [_part(rows, a, b, n) for a, b, n in _cut(rows, counts.__getitem__, target_atoms)]


def _read_ase(source: Source, part: Part) -> Iterator[Frame]:
    found = ase.io.iread(source.file, index=slice(part.start, part.stop, part.step))
    for row, atoms in zip(part.rows, found, strict=True):
        yield frame_from_atoms(atoms, row, source.label)


def merged(parts: Sequence[Part], target_atoms: int) -> list[Part]:
    """Join successive parts of one source until they have about `target_atoms` atoms."""
    found: list[Part] = []
    for part in parts:
        if found and found[-1].n_atoms < target_atoms:
            found[-1] = replace(
                found[-1], stop=part.stop, n_atoms=found[-1].n_atoms + part.n_atoms, end=max(part.end, found[-1].end)
            )
        else:
            found.append(part)
    return found


def scan(source: Source, target_atoms: int, advance: Callable[[int], None] = lambda _: None) -> list[Part]:
    """Cut a source into parts of about `target_atoms` atoms (at least one structure each).

    `advance` is called now and then with the bytes that were read since, for progress bars.

    Raises
    ------
    FileNotFoundError, ValueError
        No such file; a file that is damaged, or a range without structures.
    """
    from grace_md.training.data import databases, pickled  # noqa: PLC0415 - they use this module

    if not source.file.startswith(SERVERS) and not Path(source.file).is_file():
        raise FileNotFoundError(f"There is no data file `{source.file}`; check the path.")
    if source.kind == "extxyz":
        return _scan_xyz(source, target_atoms, advance)
    scanners: dict[str, Callable[[Source, int], list[Part]]] = {
        "ase": _scan_ase,
        "ase-db": databases.scan_ase_db,
        "aselmdb": databases.scan_aselmdb,
        "pickle": pickled.scan_table,
    }
    return scanners[source.kind](source, target_atoms)


def read_part(source: Source, part: Part) -> Iterator[Frame]:
    """Yield the structures of one part, in order.

    Raises ValueError for structures that cannot be read; the message has their numbers.
    """
    from grace_md.training.data import databases, pickled  # noqa: PLC0415 - they use this module

    readers: dict[str, Callable[[Source, Part], Iterator[Frame]]] = {
        "extxyz": _read_xyz,
        "ase": _read_ase,
        "ase-db": databases.read_ase_db,
        "aselmdb": databases.read_aselmdb,
        "pickle": pickled.read_table,
    }
    return readers[source.kind](source, part)


def sample_frames(source: Source, parts: Sequence[Part], n_places: int = 5, n_each: int = 40) -> list[Frame]:
    """Return runs of up to `n_each` consecutive structures from `n_places` places of a source."""
    places = sorted({int(x) for x in np.linspace(0, len(parts) - 1, min(n_places, len(parts)))})
    return [frame for place in places for frame in islice(read_part(source, parts[place]), n_each)]
