"""aselmdb files as OMat24 has them, written row by row with nothing of the project."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.io.jsonio import encode


def row_of(atoms: Atoms, number: int) -> dict[str, Any]:
    results = {key: np.asarray(value) if np.ndim(value) else value for key, value in atoms.calc.results.items()}
    return {
        "numbers": atoms.numbers, "positions": atoms.positions, "cell": np.asarray(atoms.cell[:]), "pbc": atoms.pbc,
        "unique_id": f"{number:032x}", "ctime": 1.0, "mtime": 1.0, "user": "u", "calculator": "unknown",
        "calculator_parameters": {}, "key_value_pairs": {"config_type": atoms.info.get("config_type", "")},
        "data": {"sid": atoms.info.get("sid", f"s{number}")}, **results,
    }  # fmt: skip


def write_aselmdb(path: Path, structures: list[Atoms], deleted: tuple[int, ...] = ()) -> None:
    """Write the layout of OMat24: rows as compressed JSON by their ids, and three reserved keys."""
    lmdb = pytest.importorskip("lmdb")
    environment = lmdb.open(str(path), map_size=2**28, subdir=False, meminit=False, map_async=True)
    with environment.begin(write=True) as transaction:
        for number, atoms in enumerate(structures, 1):
            if number not in deleted:
                transaction.put(str(number).encode("ascii"), zlib.compress(encode(row_of(atoms, number)).encode()))
        transaction.put(b"nextid", zlib.compress(json.dumps(len(structures) + 1).encode()))
        transaction.put(b"deleted_ids", zlib.compress(json.dumps(list(deleted)).encode()))
        transaction.put(b"metadata", zlib.compress(json.dumps({"name": "test"}).encode()))
    environment.close()
