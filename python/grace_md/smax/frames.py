"""Structures as text: extended XYZ in which every number has all of its digits.

ASE writes eight decimals; here the shortest text that gives the same float64 back is written, so that features of a
structure that was read are those that were accepted. `ase.io.read` reads these files as any other extended XYZ.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from ase import Atoms
from ase.io.extxyz import read_xyz

__all__ = ["RADII", "format_frames", "parse_frames"]

RADII = "effective_radius"  # name of the array of radii, A
_KINDS = {"f": "R", "i": "I", "b": "L", "U": "S"}


def _word(value: Any) -> str:
    """One value of the comment line or of a column."""
    if isinstance(value, (bool, np.bool_)):
        return "T" if value else "F"
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    if isinstance(value, (float, np.floating)):
        return repr(float(value))
    text = str(value)
    return f'"{text}"' if not text or any(c in text for c in ' ="{}[],\\') else text


def _comment(atoms: Atoms, arrays: dict[str, Any]) -> str:
    cell = " ".join(map(repr, np.asarray(atoms.cell[:], dtype=float).ravel().tolist()))
    pbc = " ".join("T" if flag else "F" for flag in atoms.pbc)
    columns = "species:S:1:pos:R:3" + "".join(
        f":{name}:{_KINDS[values.dtype.kind]}:{1 if values.ndim == 1 else values.shape[1]}"
        for name, values in arrays.items()
    )
    info = [f"{key}={_word(value)}" for key, value in atoms.info.items()]
    return " ".join([f'Lattice="{cell}"', f"Properties={columns}", *info, f'pbc="{pbc}"'])


def format_frames(structures: Iterable[Atoms]) -> bytes:
    """Return structures as extended XYZ: species, positions, further arrays of one or two dimensions, info.

    Info values are numbers, flags or words. Arrays are written in the order in which they were set.
    """
    lines: list[str] = []
    for atoms in structures:
        arrays = {name: v for name, v in atoms.arrays.items() if name not in {"numbers", "positions"}}
        lines += [str(len(atoms)), _comment(atoms, arrays)]
        columns = [np.asarray(atoms.positions, dtype=float).tolist()]
        columns += [values.reshape(len(atoms), -1).tolist() for values in arrays.values()]
        for symbol, *rows in zip(atoms.get_chemical_symbols(), *columns, strict=True):
            lines.append(" ".join([symbol, *(_word(value) for row in rows for value in row)]))
    return ("\n".join(lines) + "\n").encode() if lines else b""


def parse_frames(text: bytes) -> Iterator[Atoms]:
    """Yield the structures of extended XYZ; info values are plain numbers, flags and words."""
    if text:
        for atoms in read_xyz(io.StringIO(text.decode()), index=slice(None)):
            atoms.info = {key: v.item() if isinstance(v, np.generic) else v for key, v in atoms.info.items()}
            yield atoms
