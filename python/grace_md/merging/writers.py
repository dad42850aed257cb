"""Files of structures that appear complete or not at all: extended XYZ, ASE databases, aselmdb.

Everything is written beside its place as ``NAME.part``, synchronised to the disk and renamed by `finish`.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from ase import Atoms
from ase.db import connect
from ase.io.extxyz import write_extxyz
from ase.io.jsonio import encode

from grace_md.merging.entries import plain_info

__all__ = ["AselmdbWriter", "DatabaseWriter", "ExtxyzWriter", "StructureWriter", "check_writer", "open_writer"]

FLUSH_FRAMES = 64  # structures that are handed over together
FIRST_MAP = 1 << 26  # bytes; an LMDB file is mapped with a size that is doubled whenever it is full
LABELS = ("energy", "forces", "stress")
ENDINGS = {".extxyz": "extxyz", ".xyz": "extxyz", ".db": "db", ".aselmdb": "aselmdb", ".lmdb": "aselmdb"}


class StructureWriter(Protocol):
    """What takes structures one by one; a `with` block ends with `finish`, or with `abort` after an error."""

    def write(self, atoms: Atoms) -> None:
        """Add a structure."""

    def finish(self) -> None:
        """Write what is held back and give the file its name."""

    def abort(self) -> None:
        """Close and delete the unfinished file."""

    def __enter__(self) -> Any: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class _Writer:
    """Places, and what happens at the end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.part = path.with_name(path.name + ".part")
        self.part.parent.mkdir(parents=True, exist_ok=True)
        self.part.unlink(missing_ok=True)

    def finish(self) -> None:
        """Write what is held back and give the file its name."""
        self._close(complete=True)
        _sync(self.part)
        self.part.replace(self.path)

    def abort(self) -> None:
        """Close and delete the unfinished file."""
        self._close(complete=False)
        self.part.unlink(missing_ok=True)

    def _close(self, *, complete: bool) -> None:
        raise NotImplementedError

    def __enter__(self) -> Any:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()
        else:
            self.abort()


class ExtxyzWriter(_Writer):
    """Extended XYZ."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._stream = self.part.open("w", encoding="utf-8")
        self._held: list[Atoms] = []

    def write(self, atoms: Atoms) -> None:
        """Add a structure."""
        self._held.append(atoms)
        if len(self._held) >= FLUSH_FRAMES:
            self._flush()

    def _flush(self) -> None:
        if self._held:
            write_extxyz(self._stream, self._held)
            self._held = []

    def _close(self, *, complete: bool) -> None:
        if not self._stream.closed:
            try:
                if complete:
                    self._flush()
            finally:
                self._stream.close()


class DatabaseWriter(_Writer):
    """SQLite database of ASE; text and numbers of `info` are key-value pairs where ASE allows them, else data."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._database = connect(str(self.part), type="db", append=False)
        self._held: list[Atoms] = []

    def write(self, atoms: Atoms) -> None:
        """Add a structure."""
        self._held.append(atoms)
        if len(self._held) >= FLUSH_FRAMES:
            self._flush()

    def _flush(self) -> None:
        with self._database:  # one transaction
            for atoms in self._held:
                self._database.write(atoms, data=_plain_data(atoms))
        self._held = []

    def _close(self, *, complete: bool) -> None:
        if complete:
            self._flush()


def _plain_data(atoms: Atoms) -> dict[str, Any]:
    """`info` and extra arrays of a structure, as what JSON can hold."""
    known = {"numbers", "positions", "tags", "momenta", "masses", "initial_magmoms", "initial_charges"}
    extra = {key: values for key, values in atoms.arrays.items() if key not in known}
    return {**{k: v for k, v in plain_info(atoms).items() if _plain(v)}, **extra}


def _plain(value: Any) -> bool:
    return isinstance(value, (str, bool, int, float, list, tuple, dict, np.ndarray))


def _lmdb(path: Path) -> Any:
    try:
        import lmdb  # noqa: PLC0415 - optional
    except ImportError:
        text = f"Writing `{path}` needs the package lmdb; pip install lmdb (or grace_md[data])."
        raise RuntimeError(text) from None
    return lmdb


class AselmdbWriter(_Writer):
    """One LMDB file of compressed JSON rows with the keys 1, 2, ... as fairchem and `ase-db-backends` read it.

    Raises RuntimeError where the package `lmdb` is missing.
    """

    def __init__(self, path: Path, metadata: dict[str, Any] | None = None) -> None:
        lmdb = _lmdb(path)
        super().__init__(path)
        self._full = lmdb.MapFullError
        self._size = FIRST_MAP
        self._environment: Any = lmdb.open(
            str(self.part), subdir=False, lock=False, map_size=self._size, sync=False, metasync=False
        )
        self._metadata = metadata or {}
        self._count = 0
        self._held: list[tuple[bytes, bytes]] = []

    def write(self, atoms: Atoms) -> None:
        """Add a structure."""
        self._count += 1
        self._held.append((str(self._count).encode("ascii"), zlib.compress(_row(atoms))))
        if len(self._held) >= FLUSH_FRAMES:
            self._flush()

    def _flush(self) -> None:
        while self._held:
            try:
                with self._environment.begin(write=True) as transaction:
                    for key, value in self._held:
                        transaction.put(key, value)
                self._held = []
            except self._full:
                self._size *= 2
                self._environment.set_mapsize(self._size)

    def _close(self, *, complete: bool) -> None:
        if self._environment is None:
            return
        if not complete:
            self._environment.close()
            self._environment = None
            return
        ends = {"nextid": self._count + 1, "deleted_ids": [], "metadata": self._metadata}
        self._held += [(key.encode("ascii"), zlib.compress(json.dumps(value).encode())) for key, value in ends.items()]
        try:
            self._flush()
            self._environment.sync(True)
        finally:
            self._environment.close()
            self._environment = None


def _row(atoms: Atoms) -> bytes:
    """One structure as a row of an ASE database in JSON; the same structure always makes the same bytes."""
    results = atoms.calc.results if atoms.calc is not None else {}
    labels = {key: results[key] for key in LABELS if results.get(key) is not None}
    info = {key: value for key, value in plain_info(atoms).items() if _plain(value)}
    known = {"numbers", "positions"}
    row = {
        "numbers": atoms.numbers,
        "positions": atoms.positions,
        "cell": np.asarray(atoms.cell[:]),
        "pbc": atoms.pbc,
        "ctime": 0.0,
        "mtime": 0.0,
        "user": "",
        "calculator": "unknown",
        "calculator_parameters": {},
        **labels,
        "key_value_pairs": {},
        "data": {**info, **{key: values for key, values in atoms.arrays.items() if key not in known}},
    }
    text = encode(row)
    unique = hashlib.sha256(text.encode()).hexdigest()[:32]
    return str(text[:-1] + f', "unique_id": "{unique}"}}').encode()


def check_writer(path: Path) -> str:
    """Return the format of a name: extxyz, db or aselmdb.

    Raises ValueError for an ending that is not known, RuntimeError where a package is missing.
    """
    kind = ENDINGS.get(path.suffix)
    if kind is None:
        raise ValueError(f"`{path}`: the ending {path.suffix!r} is unknown; it is one of {', '.join(ENDINGS)}.")
    if kind == "aselmdb":
        _lmdb(path)
    return kind


def open_writer(path: Path) -> StructureWriter:
    """Return the writer for the ending of a name; raises as `check_writer` does."""
    kind = check_writer(path)
    writers: dict[str, type[ExtxyzWriter] | type[DatabaseWriter] | type[AselmdbWriter]] = {
        "extxyz": ExtxyzWriter, "db": DatabaseWriter, "aselmdb": AselmdbWriter
    }  # fmt: skip
    return writers[kind](path)
