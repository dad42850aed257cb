"""Data sets that are compared: names, files, a choice of configuration types; read structure by structure."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from grace_md.training.data.labels import LabelKeys, Record, extract, resolve_keys
from grace_md.training.data.readers import Part, Source, expand, merged, read_part, sample_frames, scan

__all__ = ["DataSet", "open_sets"]

ATOMS_PER_PART = 200  # small parts: a sample skips those without chosen structures
BYTES_PER_PART = 10_000_000  # bytes of a file for each further atom of a part: bounds the number of parts
ATOMS_PER_READ = 20_000  # of joined parts, where everything is read


@dataclass
class DataSet:
    """Structures of one or several files under one name.

    Make them with `open_sets`. Nothing is kept of the structures: every `read` goes through the files again.

    Attributes
    ----------
    name : what the report calls the set
    source : files, keys and units of labels
    types : pattern of configuration types that belong to the set, such as ``random_*``; empty: all
    run : folder, if the set is a run of the generator
    n_scanned : structures of the files, of all types
    """

    name: str
    source: Source
    types: str = ""
    run: Path | None = None
    _found: list[tuple[Source, LabelKeys, list[Part]]] = field(default_factory=list, repr=False)
    n_scanned: int = 0

    @property
    def files(self) -> list[Source]:
        """A source for each file; FileNotFoundError if there is none."""
        return expand(self.source)

    @property
    def n_bytes(self) -> int:
        """Size of all files."""
        return sum(Path(one.file).stat().st_size for one in self.files if Path(one.file).is_file())

    def scan(self, advance: Callable[[int], None] = lambda _: None) -> None:
        """Find the parts of all files, and the keys of their labels; a set without labels is welcome.

        `advance` is called now and then with the bytes that were read since, out of `n_bytes`.

        Raises ValueError for a damaged file, or labels of which one has to be chosen.
        """
        for one in self.files:
            n_bytes = Path(one.file).stat().st_size if Path(one.file).is_file() else 0
            parts = scan(one, max(ATOMS_PER_PART, n_bytes // BYTES_PER_PART), advance)
            keys = resolve_keys(one.keys, sample_frames(one, parts), one.label, needs_labels=False)
            self._found.append((one, keys, parts))
            self.n_scanned += sum(len(part.rows) for part in parts)

    def read(self, chosen: NDArray[np.int64] | None = None) -> Iterator[tuple[int, Record]]:
        """Yield (number, structure) in the order of the files.

        Parameters
        ----------
        chosen : sorted numbers of structures, 0 .. n_scanned - 1, of those that are wanted; default all. Structures of
            other types than `types` are left out.

        Raises
        ------
        ValueError
            A structure that cannot be read, or whose labels have the wrong shape; the message has its number.
        """
        start = 0
        for source, keys, parts in self._found:
            for part in merged(parts, ATOMS_PER_READ) if chosen is None else parts:
                stop = start + len(part.rows)
                first, last = (0, 1) if chosen is None else np.searchsorted(chosen, [start, stop])
                if last > first:
                    wanted = None if chosen is None else set(chosen[first:last].tolist())
                    for number, frame in enumerate(read_part(source, part), start):
                        if wanted is None or number in wanted:
                            record = extract(frame, keys)
                            if not self.types or fnmatch.fnmatchcase(record.config_type, self.types):
                                yield number, record
                start = stop


def _set_of(word: str, keys: LabelKeys, *, trust_pickle: bool) -> DataSet:
    name, equals, rest = word.partition("=")
    if not equals or "/" in name:
        name, rest = "", word
    path, mark, types = rest.rpartition("#")
    if not mark:
        path, types = rest, ""
    if not path:
        raise ValueError(f"The data set `{word}` has no file; give [NAME=]FILE[@RANGE][#TYPES].")
    folder = Path(path)
    run = (folder / "shards").is_dir()  # of the generator: its shards are compressed and lie one level down
    source = Source(f"{folder}/shards/*.extxyz.gz" if run else path, keys=keys, trust_pickle=trust_pickle)
    name = name or types.rstrip("_*") or (folder.name if run else Path(source.file).stem) or path
    return DataSet(name, source, types, folder if run else None)


def open_sets(
    words: Sequence[str],
    names: Sequence[str] = (),
    keys: LabelKeys | None = None,
    *,
    trust_pickle: bool = False,
) -> list[DataSet]:
    """Return the sets, not yet scanned, that words such as ``random=train.extxyz@0:1000#random_*`` name.

    Parameters
    ----------
    words : [NAME=]FILE[@RANGE][#TYPES]; a folder stands for every data file below it
    names : replace the names of the words, in their order
    keys : keys and units of the labels, default as found
    trust_pickle : unpickle anything: only for files of your own

    Raises
    ------
    FileNotFoundError, ValueError
        No such file; two sets of one name; another number of names than of sets.
    """
    if names and len(names) != len(words):
        raise ValueError(f"`--names` has {len(names)} names for {len(words)} data sets; give one for each, in order.")
    sets = [_set_of(word, keys or LabelKeys(), trust_pickle=trust_pickle) for word in words]
    for one, name in zip(sets, names, strict=False):
        one.name = name.strip()
    for one in sets:
        if not one.name or sum(one.name == other.name for other in sets) > 1:
            raise ValueError(f"There are two data sets `{one.name}`; give each a name of its own with NAME=FILE.")
    return sets
