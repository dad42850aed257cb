"""One process at a time in a folder."""

from __future__ import annotations

import contextlib
import errno
from pathlib import Path
from types import TracebackType
from typing import IO

__all__ = ["FolderLock"]

LOCK_FILE = ".lock"


class FolderLock:
    """Keeps other processes from writing to a folder; the system takes it back when the process ends, however it does.

    File systems without locks are used without them.
    """

    def __init__(self) -> None:
        self._stream: IO[str] | None = None

    def acquire(self, folder: Path) -> None:
        """Lock a folder, if it exists and is not locked by this object already.

        Raises
        ------
        RuntimeError
            If another process works there.
        """
        if self._stream is not None or not folder.is_dir():
            return
        try:
            import fcntl  # noqa: PLC0415 - not on every system
        except ImportError:
            return
        stream = (folder / LOCK_FILE).open("w")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            stream.close()
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise RuntimeError(
                    f"another process is generating in {folder}; wait for it, stop it, or choose another folder."
                ) from None
            return  # the file system knows no locks
        self._stream = stream

    def __enter__(self) -> FolderLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            with contextlib.suppress(OSError):
                self._stream.close()
            self._stream = None
