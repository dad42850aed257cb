"""Files of data sets: flat arrays that are mapped into memory, with checksums and an index.

A set is a directory::

    index.json            what is in it, where it came from, checksums; written last
    shard-00000.bin       arrays one after the other, each one aligned to 64 bytes
    shard-00000.json      their names, types, shapes and places; written when the shard is complete

Nothing is read when a set is opened but the index; a batch touches the pages of its own structures.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from grace_md.training.data.build import Arrays

__all__ = ["FORMAT", "CorruptShardError", "Shard", "read_index", "shard_is_complete", "write_json", "write_shard"]

FORMAT = "grace_md shards 1"
ALIGNMENT = 64


class CorruptShardError(ValueError):
    """A shard whose file is missing, truncated or altered; the message says how to make it again."""


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON so that the file is complete or absent, also after a power failure."""
    _write_file(path, [(json.dumps(content, indent=1, allow_nan=False) + "\n").encode()])


def _write_file(path: Path, pieces: Sequence[bytes]) -> None:
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as stream:
            for piece in pieces:
                stream.write(piece)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(
                error.errno,
                f"The disk of `{path.parent}` is full; complete shards are kept: free some space and run the same "
                "command again to go on",
            ) from None
        raise


def write_shard(stem: Path, arrays: Arrays | None, extra: Mapping[str, Any]) -> dict[str, Any]:
    """Write ``<stem>.bin``, then ``<stem>.json`` with `extra`; return what the latter says. None: no structures.

    Raises OSError in one sentence for a full disk; the shard is then absent, never half.
    """
    if arrays is None:
        card: dict[str, Any] = {"file": f"{stem.name}.bin", "n_structures": 0, "n_atoms": 0, "n_bonds": 0, **extra}
        write_json(stem.with_suffix(".json"), card)
        return card
    places: dict[str, Any] = {}
    pieces: list[bytes] = []
    digest, offset = hashlib.sha256(), 0
    for name, values in arrays.items():
        plain = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<"), copy=False))
        places[name] = {"dtype": plain.dtype.str, "shape": list(plain.shape), "offset": offset}
        for piece in (plain.tobytes(), bytes(-plain.nbytes % ALIGNMENT)):
            pieces.append(piece)
            digest.update(piece)
            offset += len(piece)
    card = {
        "file": f"{stem.name}.bin",
        "n_structures": len(arrays["n_atoms"]),
        "n_atoms": int(arrays["n_atoms"].sum(dtype=np.int64)),
        "n_bonds": int(arrays["n_bonds"].sum(dtype=np.int64)),
        "atomic_numbers": [int(z) for z in np.unique(arrays["numbers"])],
        "bytes": offset,
        "sha256": digest.hexdigest(),
        "arrays": places,
        **extra,
    }
    _write_file(stem.with_suffix(".bin"), pieces)
    write_json(stem.with_suffix(".json"), card)
    return card


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError):
        raise CorruptShardError(f"`{path}` is damaged; delete it and run the conversion again.") from None


def _problem(folder: Path, card: Mapping[str, Any], *, full: bool) -> str:
    path = folder / card["file"]
    if not card["n_structures"]:
        return ""  # every structure of the part was left out: there is no file
    if not path.is_file():
        return f"`{path}` is missing"
    size = path.stat().st_size
    if size != card["bytes"]:
        return f"`{path}` has {size} bytes instead of {card['bytes']}: it is truncated"
    if full:
        digest = hashlib.sha256()
        with path.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
        if digest.hexdigest() != card["sha256"]:
            return f"the checksum of `{path}` is wrong: its content has changed"
    return ""


def shard_is_complete(stem: Path, *, full: bool = False) -> dict[str, Any] | None:
    """Return the card of a shard that is on disk and whole, else None; `full` compares the checksum too."""
    path = stem.with_suffix(".json")
    try:
        card: dict[str, Any] | None = _read_json(path) if path.is_file() else None
    except CorruptShardError:
        return None
    return card if card is not None and not _problem(stem.parent, card, full=full) else None


def read_index(folder: Path) -> dict[str, Any]:
    """Read and check ``index.json``.

    Raises FileNotFoundError for a directory that is no finished set, ValueError for one of another version.
    """
    path = folder / "index.json"
    if not path.is_file():
        unfinished = " (its conversion was not finished: run the same command again)" if folder.is_dir() else ""
        raise FileNotFoundError(f"`{folder}` is not a set of shards{unfinished}: there is no {path.name}.")
    index: dict[str, Any] = _read_json(path)
    if index.get("format") != FORMAT:
        raise ValueError(f"`{path}` has the format {index.get('format')!r}, not {FORMAT!r}; convert the data again.")
    return index


class Shard:
    """Arrays of one shard, mapped on first use (or in memory, where `arrays` are given).

    Attributes
    ----------
    card : what the JSON file of the shard says
    first_atom, first_bond : int64 [n_structures + 1], where each structure begins; of an open shard
    """

    def __init__(self, folder: Path | None, card: Mapping[str, Any], arrays: Arrays | None = None) -> None:
        self.folder, self.card = folder, card
        self.first_atom = self.first_bond = np.zeros(1, dtype=np.int64)
        self._arrays: Arrays | None = None
        if arrays is not None:
            self._set(arrays)

    def _set(self, arrays: Arrays) -> Arrays:
        self._arrays = arrays
        self.first_atom = np.concatenate([[0], np.cumsum(arrays["n_atoms"], dtype=np.int64)])
        self.first_bond = np.concatenate([[0], np.cumsum(arrays["n_bonds"], dtype=np.int64)])
        return arrays

    @property
    def is_mapped(self) -> bool:
        """Whether the file is open."""
        return self.folder is not None and self._arrays is not None

    def arrays(self) -> Arrays:
        """Return the arrays by name; CorruptShardError if the file cannot be mapped."""
        if self._arrays is not None:
            return self._arrays
        assert self.folder is not None
        path = self.folder / self.card["file"]
        try:
            raw = np.asarray(np.memmap(path, dtype=np.uint8, mode="r", shape=(int(self.card["bytes"]),)))
        except (OSError, ValueError) as error:
            raise CorruptShardError(f"`{path}` cannot be mapped ({error}); run the conversion again.") from None
        arrays: Arrays = {}
        for name, place in self.card["arrays"].items():
            dtype = np.dtype(place["dtype"])
            size = int(np.prod(place["shape"])) * dtype.itemsize
            arrays[name] = raw[place["offset"] : place["offset"] + size].view(dtype).reshape(place["shape"])
        return self._set(arrays)

    def close(self) -> None:
        """Unmap the file once nobody uses its arrays."""
        if self.folder is not None:
            self._arrays = None

    def problem(self, *, full: bool = False) -> str:
        """Return what is wrong with the file, empty if nothing is; `full` reads it all and compares the checksum."""
        return "" if self.folder is None else _problem(self.folder, self.card, full=full)
