"""Who works on which job: the state machine of a farm, in one SQLite file.

    waiting --claim--> claimed --finish--> finished --retry--> waiting
                          |  release, or no sign of life
                          +--> waiting

The rollback journal is used, not WAL: WAL needs memory that all processes share and so does not work across hosts. A
worker makes a transaction every few seconds, so the slower journal costs nothing.
"""

from __future__ import annotations

import os
import socket
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from grace_md.labels.records import FAILED, REJECTED, Outcome, full_disk

__all__ = ["HEARTBEAT_SECONDS", "STALE_SECONDS", "Claim", "Counts", "JobStore"]

HEARTBEAT_SECONDS = 20.0
# A claim without a sign of life for so long is given to someone else. Clocks of hosts may differ by a few minutes.
STALE_SECONDS = 600.0
BUSY_SECONDS = 60.0

_SCHEMA = """
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY, n INTEGER NOT NULL, state TEXT NOT NULL DEFAULT 'waiting',
    round INTEGER NOT NULL DEFAULT 0, attempt INTEGER NOT NULL DEFAULT 0,
    done INTEGER NOT NULL DEFAULT 0, failed INTEGER NOT NULL DEFAULT 0, rejected INTEGER NOT NULL DEFAULT 0,
    seconds REAL NOT NULL DEFAULT 0, host TEXT, process TEXT, heartbeat REAL);
CREATE INDEX jobs_by_state ON jobs (state, id);
CREATE TABLE reasons (
    job INTEGER NOT NULL, item INTEGER NOT NULL, status TEXT NOT NULL, reason TEXT NOT NULL, PRIMARY KEY (job, item));
"""


@dataclass(frozen=True)
class Claim:
    """A job that this process works on: nobody else has the same job and attempt."""

    job: int
    n: int
    round: int
    attempt: int


@dataclass(frozen=True)
class Counts:
    """Structures by outcome, and jobs by state."""

    total: int
    done: int
    failed: int
    rejected: int
    seconds: float
    waiting: int
    claimed: int
    finished: int

    @property
    def settled(self) -> int:
        """Structures that need no more work."""
        return self.done + self.failed + self.rejected


def host_identity() -> str:
    """Name of the host, of its boot and of its process numbers: two containers may share the first."""
    parts = [socket.gethostname()]
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        parts += [boot[:8], os.readlink("/proc/self/ns/pid")]
    except OSError:  # not Linux
        parts.append("-")
    return " ".join(parts)


def process_identity(pid: int) -> str | None:
    """Number and start time of a process, so that a number used again is not mistaken; None if there is none."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return str(pid)
    return None if fields[0] == "Z" else f"{pid} {fields[19]}"


class JobStore:
    """The database of a farm; every method is one transaction.

    Parameters
    ----------
    path : of an existing database
    clock : seconds since the epoch; replaced in tests
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        if not path.is_file():
            raise FileNotFoundError(f"There is no farm in `{path.parent}`: make one with `grace-md label init`.")
        self.path = path
        self._clock = clock
        self._host = host_identity()
        self._process = process_identity(os.getpid()) or str(os.getpid())

    @staticmethod
    def create(path: Path, sizes: Iterable[int]) -> None:
        """Write a database of waiting jobs with `sizes` structures; it appears complete or not at all."""
        part = path.with_name(path.name + ".part")
        part.unlink(missing_ok=True)
        try:
            with closing(sqlite3.connect(part)) as connection, connection:
                connection.executescript(_SCHEMA)
                connection.executemany("INSERT INTO jobs (n) VALUES (?)", ((n,) for n in sizes))
            handle = os.open(part, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
            part.replace(path)
        except (OSError, sqlite3.Error) as error:
            part.unlink(missing_ok=True)
            raise full_disk(error, path.parent) or error from error

    @contextmanager
    def _transaction(self, *, reads: bool = False) -> Iterator[sqlite3.Connection]:
        """A connection of its own each time: cheap beside a label, and safe in threads and after a fork."""
        try:
            with closing(sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)) as connection:
                connection.execute("BEGIN" if reads else "BEGIN IMMEDIATE")
                try:
                    yield connection
                except BaseException:
                    connection.rollback()
                    raise
                connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            raise full_disk(error, self.path.parent) or RuntimeError(f"`{self.path}`: {error}.") from error

    def claim(self, job: int | None = None) -> Claim | None:
        """Take the next waiting job, or one whose worker is gone, or `job` if it is free; None if there is none."""
        columns = "SELECT id, n, round, attempt, state, host, process, heartbeat FROM jobs"
        with self._transaction() as db:
            if job is None:
                row = db.execute(f"{columns} WHERE state = 'waiting' ORDER BY id LIMIT 1").fetchone()
                candidates = [row] if row else db.execute(f"{columns} WHERE state = 'claimed' ORDER BY id").fetchall()
            else:
                candidates = db.execute(f"{columns} WHERE id = ? AND state != 'finished'", (job,)).fetchall()
            row = next((r[:4] for r in candidates if r[4] == "waiting" or self._is_stale(*r[5:])), None)
            if row is None:
                return None
            found, n, round_, attempt = row
            db.execute(
                "UPDATE jobs SET state = 'claimed', attempt = ?, host = ?, process = ?, heartbeat = ? WHERE id = ?",
                (attempt + 1, self._host, self._process, self._clock(), found),
            )
            return Claim(found, n, round_, attempt + 1)

    def _is_stale(self, host: str, process: str, heartbeat: float) -> bool:
        if host == self._host:
            return process_identity(int(process.split(maxsplit=1)[0])) != process
        return self._clock() - heartbeat > STALE_SECONDS

    def heartbeat(self, claim: Claim) -> bool:
        """Show that the worker lives; False if the job was given to someone else."""
        with self._transaction() as db:
            changed = db.execute(
                "UPDATE jobs SET heartbeat = ? WHERE id = ? AND attempt = ? AND state = 'claimed'",
                (self._clock(), claim.job, claim.attempt),
            )
            return changed.rowcount == 1

    def report(self, claim: Claim, outcomes: Iterable[Outcome], state: str = "claimed") -> bool:
        """Note how far a claimed job is; `state` is ``"finished"`` or ``"waiting"`` (given back) at its end.

        False if the job was given to someone else meanwhile; then nothing is changed.
        """
        known = list(outcomes)
        problems = [(claim.job, o.item, o.status, o.reason) for o in known if o.status in (FAILED, REJECTED)]
        failed = sum(o.status == FAILED for o in known)
        with self._transaction() as db:
            changed = db.execute(
                "UPDATE jobs SET state = ?, done = ?, failed = ?, rejected = ?, seconds = ?, heartbeat = ? "
                "WHERE id = ? AND attempt = ? AND state = 'claimed'",
                (
                    state,
                    len(known) - len(problems),
                    failed,
                    len(problems) - failed,
                    sum(o.seconds for o in known),
                    self._clock(),
                    claim.job,
                    claim.attempt,
                ),
            )
            if changed.rowcount != 1:
                return False
            db.execute("DELETE FROM reasons WHERE job = ?", (claim.job,))
            db.executemany("INSERT INTO reasons VALUES (?, ?, ?, ?)", problems)
            return True

    def retry(self, *, rejected: bool = False) -> int:
        """Let finished jobs with failures wait again; return how many structures get another chance."""
        which = "failed + rejected" if rejected else "failed"
        with self._transaction() as db:
            total = db.execute(f"SELECT COALESCE(SUM({which}), 0) FROM jobs WHERE state = 'finished'").fetchone()[0]
            db.execute(
                "UPDATE jobs SET state = 'waiting', round = round + 1, failed = 0, rejected = 0 "
                f"WHERE state = 'finished' AND {which} > 0"
            )
            db.execute("DELETE FROM reasons WHERE job IN (SELECT id FROM jobs WHERE state = 'waiting')")
            return int(total)

    def counts(self) -> Counts:
        """Return structures by outcome and jobs by state."""
        with self._transaction(reads=True) as db:
            sums = db.execute(
                "SELECT COALESCE(SUM(n), 0), COALESCE(SUM(done), 0), COALESCE(SUM(failed), 0), "
                "COALESCE(SUM(rejected), 0), COALESCE(SUM(seconds), 0) FROM jobs"
            ).fetchone()
            states = dict(db.execute("SELECT state, COUNT(*) FROM jobs GROUP BY state"))
        return Counts(*sums, *(states.get(state, 0) for state in ("waiting", "claimed", "finished")))

    def jobs(self) -> list[tuple[int, int, int, str]]:
        """Return number, size, round and state of all jobs."""
        with self._transaction(reads=True) as db:
            return list(db.execute("SELECT id, n, round, state FROM jobs ORDER BY id"))

    def reasons(self) -> list[tuple[int, int, str, str]]:
        """Return job, item, status and reason of every structure without a label that was tried."""
        with self._transaction(reads=True) as db:
            return list(db.execute("SELECT job, item, status, reason FROM reasons ORDER BY job, item"))

    def workers(self) -> list[tuple[int, str, str, float]]:
        """Return job, host, process and seconds since the last sign of life of every claim."""
        with self._transaction(reads=True) as db:
            query = "SELECT id, host, process, ? - heartbeat FROM jobs WHERE state = 'claimed'"
            return list(db.execute(query, (self._clock(),)))
