"""A journal of a long run: one JSON line per finished piece of work, so that a killed run goes on where it was."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

__all__ = ["Journal", "file_stamp"]


def file_stamp(path: str) -> list[Any]:
    """Return name, size and time of change of a file: whether a journal is of the same input."""
    try:
        stat = Path(path).stat()
    except OSError:  # a database server
        return [path, 0, 0]
    return [os.path.abspath(path), stat.st_size, stat.st_mtime_ns]


def _lock(stream: IO[str], path: Path) -> None:
    """Keep other processes out; the lock ends with the process, however it ends."""
    try:
        import fcntl  # noqa: PLC0415 - not on Windows
    except ImportError:
        return
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        text = f"Another process works with {path}; wait for it, stop it, or choose another output."
        raise RuntimeError(text) from None


class Journal:
    """Lines of JSON; the first one says what was asked for.

    Parameters
    ----------
    path : of the file; None keeps nothing
    request : plain JSON values that the result depends on; a journal of another request is refused
    force : forget an earlier journal

    Attributes
    ----------
    lines : what an interrupted run had finished, in order

    Raises
    ------
    FileExistsError
        A journal of another request, and `force` is false.
    RuntimeError
        Another process has it open.
    """

    def __init__(self, path: Path | None, request: Mapping[str, Any], *, force: bool = False) -> None:
        self.path = path
        self.lines: list[dict[str, Any]] = []
        self._stream: IO[str] | None = None
        if path is None:
            return
        plain = json.loads(json.dumps(request))
        path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = path.open("a", encoding="utf-8")
        try:
            _lock(self._stream, path)
            if not force:
                self._read(path, plain)
        except BaseException:
            self._stream.close()
            raise
        if not self.lines:  # nothing is lost by beginning again
            os.truncate(path, 0)
            self.append({"request": plain})

    def _read(self, path: Path, request: Any) -> None:
        good = 0
        found: list[dict[str, Any]] = []
        with path.open("rb") as stream:
            for line in stream:
                try:
                    found.append(json.loads(line))
                except ValueError:
                    break  # the last line of a run that was killed
                if not line.endswith(b"\n"):
                    found.pop()
                    break
                good += len(line)
        if len(found) > 1 and found[0].get("request") != request:
            before = found[0].get("request", {})
            other = [key for key in {**before, **request} if before.get(key) != request.get(key)]
            raise FileExistsError(
                f"{path} is of an interrupted run with other {' and '.join(other)}; run it as before to go on, or "
                "add --force to start anew."
            )
        os.truncate(path, good)
        self.lines = found[1:]

    def append(self, line: Mapping[str, Any], *, sync: bool = True) -> None:
        """Add a line; `sync` waits until it is on the disk."""
        if self._stream is None:
            return
        self._stream.write(json.dumps(line) + "\n")
        self._stream.flush()
        if sync:
            os.fsync(self._stream.fileno())

    def close(self, *, remove: bool = False) -> None:
        """Close the file; delete it when the work is complete."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        if remove and self.path is not None:
            self.path.unlink(missing_ok=True)
