"""Structures of ASE databases, and of aselmdb files (OMat24, OMol25) without more than the package `lmdb`.

An aselmdb file is one LMDB file. Its keys are decimal ids from 1 in ASCII; its values are rows of an ASE database as
JSON, compressed with zlib. Three keys are reserved: ``nextid``, ``deleted_ids`` and ``metadata``. Arrays are written as
``{"__ndarray__": [shape, dtype, numbers]}``.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from ase.calculators.calculator import all_properties
from ase.db import connect
from numpy.typing import NDArray

from grace_md.training.data.labels import Frame
from grace_md.training.data.readers import Part, Source, _cut, _part, _rows

SIZE_SAMPLE = 50  # rows that are read to estimate the number of atoms per row


def _plan(rows: range, ids: list[int], atoms_per_row: int, target_atoms: int) -> list[Part]:
    return [
        _part(rows, a, b, n, ids[rows[a]], ids[rows[b - 1]] + 1)
        for a, b, n in _cut(rows, lambda _: max(1, atoms_per_row), target_atoms)
    ]


def _frame(source: Source, row: int, values: dict[str, Any]) -> Frame:
    """Make a frame of the plain dictionary of a row; key-value pairs and data do not hide its own entries."""
    for extra in ("data", "key_value_pairs"):
        for key, value in (values.pop(extra, None) or {}).items():
            values.setdefault(key, value)
    numbers = np.asarray(values.pop("numbers"), dtype=np.int64).reshape(-1)
    cell = values.pop("cell", None)
    pbc = values.pop("pbc", None)
    return Frame(
        numbers=numbers,
        positions=np.array(values.pop("positions"), dtype=np.float64).reshape(len(numbers), 3),
        cell=np.zeros((3, 3)) if cell is None else np.array(cell, dtype=np.float64).reshape(3, 3),
        pbc=np.zeros(3, dtype=np.bool_) if pbc is None else np.array(pbc, dtype=np.bool_).reshape(3),
        values=values,
        row=row,
        source=source.label,
    )


# Databases that ASE opens ---------------------------------------------------------------------------------------------


def scan_ase_db(source: Source, target_atoms: int) -> list[Part]:
    """Cut an ASE database into parts."""
    with connect(source.file) as database:
        ids = sorted(int(row.id) for row in database.select(columns=["id"], include_data=False))
        rows = _rows(source.selection, len(ids), source.path)
        few = [database.get(id=ids[row]).natoms for row in rows[:: max(1, len(rows) // SIZE_SAMPLE)]]
    return _plan(rows, ids, int(np.mean(few)), target_atoms)


def read_ase_db(source: Source, part: Part) -> Iterator[Frame]:
    """Yield the rows of one part."""
    with connect(source.file) as database:
        found = database.select([("id", ">=", part.begin), ("id", "<", part.end)], sort="id")
        for position, row in enumerate(found):
            if position % part.step:
                continue
            values = {key: row.get(key) for key in all_properties if row.get(key) is not None}
            values |= {key: value for key, value in row.key_value_pairs.items() if key not in values}
            values |= {"data": row.data, "numbers": row.numbers, "positions": row.positions}
            values |= {"cell": row.cell, "pbc": row.pbc}
            yield _frame(source, part.start + position, values)


# aselmdb --------------------------------------------------------------------------------------------------------------


@contextmanager
def _environment(path: str) -> Iterator[Any]:
    try:
        import lmdb  # noqa: PLC0415 - optional
    except ImportError:
        raise RuntimeError(f"`{path}` needs the package lmdb; pip install lmdb (or grace_md[data]).") from None
    try:
        environment = lmdb.open(path, subdir=False, readonly=True, lock=False, readahead=True, meminit=False)
    except lmdb.Error as error:
        raise ValueError(f"`{path}` is not an aselmdb file ({error}).") from None
    try:
        with environment.begin() as transaction:
            yield transaction
    finally:
        environment.close()


def _array_hook(entry: dict[str, Any]) -> Any:
    if "__ndarray__" in entry:
        shape, dtype, numbers = entry["__ndarray__"]
        if not str(dtype).startswith(("float", "int", "uint", "bool", "<U", "str", "complex")):
            raise ValueError(f"an array has the type {dtype!r}")
        if str(dtype).startswith("complex"):
            pairs = np.array(numbers, dtype=np.float64).reshape(-1, 2)
            return (pairs[:, 0] + 1j * pairs[:, 1]).reshape(shape)
        return np.array(numbers, dtype=dtype).reshape(shape)
    return entry


def _decode(value: bytes) -> Any:
    return json.loads(zlib.decompress(value), object_hook=_array_hook)


def _ids(transaction: Any, path: str) -> list[int]:
    """Ids of the rows, from ``nextid`` and ``deleted_ids`` as the format defines."""
    following = transaction.get(b"nextid")
    if following is None:
        raise ValueError(f"`{path}` lacks the key `nextid`; it is not an aselmdb file, or it was not closed properly.")
    removed = transaction.get(b"deleted_ids")
    deleted = set(_decode(removed)) if removed is not None else set()
    return [number for number in range(1, int(_decode(following))) if number not in deleted]


def _row(transaction: Any, number: int, path: str) -> dict[str, Any]:
    value = transaction.get(str(number).encode("ascii"))
    if value is None:
        raise ValueError(f"`{path}` lacks the row {number} that its index promises; the file is damaged or incomplete.")
    try:
        found: dict[str, Any] = _decode(value)
    except (ValueError, zlib.error) as error:
        raise ValueError(f"`{path}`: row {number} cannot be decoded ({error}); the file is damaged.") from None
    if not {"numbers", "positions"} <= found.keys():
        raise ValueError(f"`{path}`: row {number} has no atoms; the file is damaged.")
    return found


def scan_aselmdb(source: Source, target_atoms: int) -> list[Part]:
    """Cut an aselmdb file into parts."""
    with _environment(source.file) as transaction:
        ids = _ids(transaction, source.file)
        rows = _rows(source.selection, len(ids), source.path)
        few = [
            len(_row(transaction, ids[row], source.file)["numbers"])
            for row in rows[:: max(1, len(rows) // SIZE_SAMPLE)]
        ]
    return _plan(rows, ids, int(np.mean(few)), target_atoms)


def read_aselmdb(source: Source, part: Part) -> Iterator[Frame]:
    """Yield the rows of one part."""
    with _environment(source.file) as transaction:
        removed = transaction.get(b"deleted_ids")
        deleted: set[int] = set(_decode(removed)) if removed is not None else set()
        ids: NDArray[np.int64] = np.array([n for n in range(part.begin, part.end) if n not in deleted], dtype=np.int64)
        for position in range(0, len(ids), part.step):
            values = _row(transaction, int(ids[position]), source.file)
            values.pop("calculator_parameters", None)
            yield _frame(source, part.start + position, values)
