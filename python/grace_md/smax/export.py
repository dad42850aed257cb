"""Accepted structures as one file."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from ase import Atoms
from ase.db import connect

from grace_md.smax.frames import RADII, format_frames

__all__ = ["export"]

FRAMES_PER_WRITE = 200


def export(structures: Iterable[Atoms], path: str | Path) -> int:
    """Write structures to ``.extxyz`` or ``.xyz`` (also ``.gz``), with all digits, or to an ASE database ``.db``.

    The file appears complete or not at all; one that exists is replaced. Returns the number of structures.

    Raises ValueError for another ending, OSError if the disk is full.
    """
    path = Path(path)
    inner = Path(path.stem) if path.suffix == ".gz" else path
    database = path.suffix == ".db"
    if not database and inner.suffix not in {".extxyz", ".xyz"}:
        raise ValueError(f"`{path}` ends in {path.suffix!r}; give a name that ends in .extxyz, .extxyz.gz or .db.")
    part = path.with_name(f".part-{path.name}")
    part.unlink(missing_ok=True)
    try:
        count = _write_database(structures, part) if database else _write_text(structures, part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return count


def _write_text(structures: Iterable[Atoms], path: Path) -> int:
    count, stream = 0, iter(structures)
    with path.open("wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) if path.suffix == ".gz" else raw as out:
        while group := list(islice(stream, FRAMES_PER_WRITE)):
            out.write(format_frames(group))
            count += len(group)
    return count


def _write_database(structures: Iterable[Atoms], path: Path) -> int:
    def rows(database: object) -> Iterator[None]:
        for atoms in structures:
            pairs = {key: value for key, value in atoms.info.items() if isinstance(value, (bool, int, float, str))}
            database.write(atoms, key_value_pairs=pairs, data={RADII: atoms.arrays[RADII]})  # type: ignore[attr-defined]
            yield

    with connect(path, append=False) as database:  # one transaction
        return sum(1 for _ in rows(database))
