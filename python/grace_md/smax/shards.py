"""Structures on disk: shards that only grow, with checksums.

A shard is extended XYZ in gzip members, one member for each commit, so that appending never touches what is there and
any program that reads ``.extxyz.gz`` reads it. How far a shard is valid (bytes and their SHA-256) is written elsewhere,
after its bytes are on the disk: what lies beyond is the tail of a commit that was interrupted.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ase import Atoms

from grace_md.smax.frames import format_frames, parse_frames
from grace_md.training.data.storage import CorruptShardError

__all__ = ["CorruptShardError", "ShardCard", "ShardWriter", "copy_prefix", "read_shard", "verify_shards"]

GZIP_LEVEL = 6
BLOCK = 1 << 22  # bytes read at a time for a checksum


@dataclass(frozen=True)
class ShardCard:
    """What a shard holds.

    Attributes
    ----------
    file : name within the folder of the run
    n_structures, n_atoms : counts
    bytes : length of the valid part
    sha256 : checksum of the valid part, hexadecimal
    """

    file: str
    n_structures: int
    n_atoms: int
    bytes: int
    sha256: str

    def plain(self) -> dict[str, Any]:
        """Return a dictionary for JSON."""
        return asdict(self)


def _hash_prefix(path: Path, length: int) -> Any:
    digest, left = hashlib.sha256(), length
    with path.open("rb") as stream:
        while left and (block := stream.read(min(BLOCK, left))):
            digest.update(block)
            left -= len(block)
    return digest


def _problem(folder: Path, card: ShardCard) -> str:
    path = folder / card.file
    if not path.is_file():
        return f"`{path}` is missing"
    size = path.stat().st_size
    if size < card.bytes:
        return f"`{path}` has {size} bytes instead of {card.bytes}: it is truncated"
    if _hash_prefix(path, card.bytes).hexdigest() != card.sha256:
        return f"the checksum of `{path}` is wrong: its content has changed"
    return ""


def verify_shards(folder: Path, cards: Sequence[ShardCard]) -> None:
    """Compare lengths and checksums of all shards with their cards; CorruptShardError names the first bad file."""
    for card in cards:
        if problem := _problem(folder, card):
            raise CorruptShardError(
                f"{problem}; restore it from a copy, or begin a new folder with --extend on the other shards "
                f"(`{folder / 'shards'}`), or start anew with --force."
            )


def read_shard(folder: Path, card: ShardCard) -> Iterator[Atoms]:
    """Yield the structures of a shard; CorruptShardError if its file is missing, short or cannot be unpacked."""
    path = folder / card.file
    try:
        with path.open("rb") as stream:
            packed = stream.read(card.bytes)
        if len(packed) < card.bytes:
            raise EOFError(f"{len(packed)} bytes instead of {card.bytes}")
        text = gzip.decompress(packed)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise CorruptShardError(f"`{path}` cannot be read ({error}); restore it from a copy.") from None
    yield from parse_frames(text)


def _full_disk(folder: Path, error: OSError) -> OSError:
    """The error in one sentence if the disk is full, or as it is."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return error
    return OSError(
        error.errno,
        f"The disk of `{folder}` is full; all accepted structures are kept: free some space and run the same command "
        "again (with --resume, if it was `generate`)",
    )


def copy_prefix(source: Path, target: Path, length: int) -> None:
    """Copy the first bytes of a file and wait until they are on the disk; OSError in one sentence if it is full."""
    try:
        with source.open("rb") as stream, target.open("wb") as out:
            while length and (block := stream.read(min(BLOCK, length))):
                out.write(block)
                length -= len(block)
            out.flush()
            os.fsync(out.fileno())
    except OSError as error:
        target.unlink(missing_ok=True)
        raise _full_disk(target.parent.parent, error) from None


class ShardWriter:
    """Appends structures to the last shard and begins a new one when it is full.

    Parameters
    ----------
    folder : of the run; shards are in ``folder/shards``
    cards : of the shards that are there; the last one is truncated to its valid part and grows
    structures_per_shard : where a new shard begins

    Attributes
    ----------
    cards : list of ShardCard, as of the last commit that came to its end
    """

    def __init__(self, folder: Path, cards: Sequence[ShardCard], structures_per_shard: int) -> None:
        self.folder, self.limit = folder, structures_per_shard
        self.cards = list(cards)
        (folder / "shards").mkdir(parents=True, exist_ok=True)
        self._remove_tails()
        self._digest: Any = _hash_prefix(folder / cards[-1].file, cards[-1].bytes) if cards else None

    def _remove_tails(self) -> None:
        """Cut off what an interrupted commit left: bytes beyond the valid part, shards without a card."""
        known = {card.file for card in self.cards}
        for path in (self.folder / "shards").glob("*.extxyz.gz"):
            if f"shards/{path.name}" not in known:
                path.unlink()
        for card in self.cards:
            path = self.folder / card.file
            if path.stat().st_size > card.bytes:
                os.truncate(path, card.bytes)

    def append(self, structures: Sequence[Atoms]) -> None:
        """Write structures and wait until they are on the disk.

        Raises
        ------
        OSError
            For a full disk and the like, in one sentence; the shards are then as before.
        """
        cards, left, digest = list(self.cards), list(structures), self._digest
        try:
            while left:
                if not cards or cards[-1].n_structures >= self.limit:
                    digest = hashlib.sha256()
                    cards.append(ShardCard(f"shards/{len(cards):05d}.extxyz.gz", 0, 0, 0, digest.hexdigest()))
                room = self.limit - cards[-1].n_structures
                digest = digest.copy()  # the one before counts if the disk is full
                cards[-1] = self._extend(cards[-1], left[:room], digest)
                left = left[room:]
        except OSError as error:
            self._remove_tails()
            raise _full_disk(self.folder, error) from None
        self.cards, self._digest = cards, digest

    def _extend(self, card: ShardCard, structures: Sequence[Atoms], digest: Any) -> ShardCard:
        member = gzip.compress(format_frames(structures), GZIP_LEVEL, mtime=0)
        with (self.folder / card.file).open("ab") as stream:
            stream.write(member)
            stream.flush()
            os.fsync(stream.fileno())
        digest.update(member)
        return ShardCard(
            file=card.file,
            n_structures=card.n_structures + len(structures),
            n_atoms=card.n_atoms + sum(len(atoms) for atoms in structures),
            bytes=card.bytes + len(member),
            sha256=digest.hexdigest(),
        )
