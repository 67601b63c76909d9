"""The file of a sweep: SQLite, shared by processes, safe against their death.

A *unit* is a piece of work that several points may share: a quantization, an exact run, a simulation. A process claims
a unit before it works on it, and nobody else takes it while that process lives. What is finished is never done again.

===========  =====================================================================================================
table        content
===========  =====================================================================================================
``units``    key, kind, status (running, done, failed), owner, attempts, error, seconds, time, result
``points``   key, settings, machine, quantization, status (done, failed), error, metrics, time, in order of arrival
``owners``   processes that have claimed something, and when they were last heard of
``about``    what the file was made for
===========  =====================================================================================================
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from accelsim.errors import DataError
from accelsim.explore.store_file import FORMAT, PATIENCE_SECONDS, SCHEMA, Reading, is_sweep

LEASE_SECONDS = 30.0
"""An owner on another computer that was not heard of for so long is dead; on this one its process is looked for."""
HEARTBEAT_SECONDS = 5.0
MAX_ATTEMPTS = 3
"""A unit whose worker died so often is given up."""

_POINTS = "SELECT key, settings, machine, ptq, status, error, metrics FROM points ORDER BY number"
_ABOUT = "SELECT name, value FROM about"


class Unit(NamedTuple):
    """What is known of a unit."""

    key: str
    status: str
    error: str | None
    result: bytes | None


@dataclass(frozen=True)
class PointRow:
    """A point as it is stored.

    Parameters
    ----------
    key : str
        Hash of model, data, configuration and version.
    settings, machine, ptq : dict
        What was asked for; the whole machine and quantization, None where they are not valid.
    status : str
        ``done`` or ``failed``.
    error : str or None
        Why it failed.
    metrics : dict
        Numbers by name; empty where it failed.
    """

    key: str
    settings: dict[str, Any]
    machine: dict[str, Any] | None
    ptq: dict[str, Any] | None
    status: str
    error: str | None
    metrics: dict[str, Any]


class Store:
    """One process's connection to the file of a sweep.

    Parameters
    ----------
    path : path
        The file; made if it does not exist.

    Raises
    ------
    DataError
        When the file is something else or cannot be opened; it is left as it is.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        where = f"sweep file {str(self.path)!r}"
        self._lock = threading.RLock()
        try:
            self._connection = sqlite3.connect(
                self.path, timeout=PATIENCE_SECONDS, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as failure:
            raise DataError(f"{where} cannot be opened: {failure}") from None
        try:
            self._prepare(where)
        except sqlite3.Error as failure:
            self._connection.close()
            raise DataError(f"{where} cannot be used: {failure}") from None
        except DataError:
            self._connection.close()
            raise
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._stop = threading.Event()
        self._pulse: threading.Thread | None = None

    def _prepare(self, where: str) -> None:
        """Make the tables, or check that they are ours."""
        self._log_ahead(where)
        self._connection.execute("PRAGMA synchronous = FULL")
        with self._transaction() as run:
            is_sweep(run, where)  # another process may have made it meanwhile
            for statement in SCHEMA.split(";"):
                run(statement)
            run("INSERT OR IGNORE INTO about VALUES ('format', ?)", (FORMAT,))

    def _log_ahead(self, where: str) -> None:
        """Let readers read while one process writes, in a file that is ours or empty.

        The change of a new file to this mode needs it alone, and SQLite does not wait for that as it waits for
        transactions: of several processes that make the file at once, one changes it and the others try again.
        """
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                is_sweep(self._connection.execute, where)
                self._connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as failure:
                if failure.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                    raise
            time.sleep(0.01)

    def close(self) -> None:
        """Give back what is claimed and not finished, and close the file."""
        self._stop.set()
        if self._pulse is not None:
            self._pulse.join()
        with self._transaction() as run:
            run("DELETE FROM units WHERE status = 'running' AND owner = ?", (self.owner,))
            run("DELETE FROM owners WHERE owner = ?", (self.owner,))
        self._connection.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        """Do some statements together or not at all, alone among all processes."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection.execute
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def unit(self, key: str) -> Unit | None:
        """Return a unit that somebody has claimed or finished."""
        with self._lock:
            query = "SELECT key, status, error, result FROM units WHERE key = ?"
            row = self._connection.execute(query, (key,)).fetchone()
        return None if row is None else Unit(*row)

    def statuses(self, keys: Sequence[str]) -> dict[str, str]:
        """Return the status of those units that are claimed or finished."""
        wanted = set(keys)
        with self._lock:
            rows = self._connection.execute("SELECT key, status FROM units").fetchall()
        return {key: status for key, status in rows if key in wanted}

    def claim(self, key: str, kind: str) -> bool:
        """Claim a unit; False where it is finished, or a living process works on it.

        A unit whose workers died `MAX_ATTEMPTS` times is recorded as failed.
        """
        self._beat()
        with self._transaction() as run:
            row = run("SELECT status, owner, attempts FROM units WHERE key = ?", (key,)).fetchone()
            if row is not None:
                status, owner, attempts = row
                if status != "running" or (owner != self.owner and self._alive(run, owner)):
                    return False
                if attempts >= MAX_ATTEMPTS:
                    error = f"its worker died {attempts} times; look for a lack of memory"
                    run("UPDATE units SET status = 'failed', error = ? WHERE key = ?", (error, key))
                    return False
            run(
                "INSERT INTO units (key, kind, status, owner, attempts) VALUES (?, ?, 'running', ?, 1) "
                "ON CONFLICT (key) DO UPDATE SET owner = excluded.owner, attempts = attempts + 1",
                (key, kind, self.owner),
            )
        return True

    def finish(self, key: str, seconds: float, result: bytes | None, error: str | None) -> bool:
        """Record the result, or the error, of a unit that this process has claimed; False where another one has it."""
        with self._transaction() as run:
            status = "done" if error is None else "failed"
            changed = run(
                "UPDATE units SET status = ?, error = ?, seconds = ?, finished = ?, result = ? "
                "WHERE key = ? AND status = 'running' AND owner = ?",
                (status, error, seconds, time.time(), result, key, self.owner),
            )
        return bool(changed.rowcount)

    def add_points(self, rows: Sequence[PointRow]) -> None:
        """Record points; one that is there already stays."""
        with self._transaction() as run:
            for row in rows:
                run(
                    "INSERT OR IGNORE INTO points (key, settings, machine, ptq, status, error, metrics, finished) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        row.key, *(json.dumps(part) for part in (row.settings, row.machine, row.ptq)), row.status,
                        row.error, json.dumps(row.metrics), time.time(),
                    ),
                )  # fmt: skip

    def points(self) -> list[PointRow]:
        """Return all points in the order in which they were finished."""
        with self._lock:
            return _points(self._connection.execute(_POINTS).fetchall())

    def forget_failures(self) -> None:
        """Drop failed units and points, so that they are tried again."""
        with self._transaction() as run:
            run("DELETE FROM units WHERE status = 'failed'")
            run("DELETE FROM points WHERE status = 'failed'")

    def note(self, about: Mapping[str, str]) -> None:
        """Keep what the sweep is about, for those who read the file."""
        with self._transaction() as run:
            for name, value in about.items():
                run("INSERT OR REPLACE INTO about VALUES (?, ?)", (name, value))

    def about(self) -> dict[str, str]:
        """Return what `note` kept."""
        with self._lock:
            return dict(self._connection.execute(_ABOUT).fetchall())

    def _beat(self) -> None:
        """Begin to tell the others that this process lives."""
        if self._pulse is None:
            self._tell()
            self._pulse = threading.Thread(target=self._beat_on, daemon=True)
            self._pulse.start()

    def _beat_on(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            self._tell()

    def _tell(self) -> None:
        with self._transaction() as run:
            run(
                "INSERT OR REPLACE INTO owners VALUES (?, ?, ?, ?, ?)",
                (self.owner, socket.gethostname(), os.getpid(), _started(os.getpid()), time.time()),
            )

    def _alive(self, run: Any, owner: str) -> bool:
        """Whether the process that has claimed something still lives."""
        row = run("SELECT host, pid, started, seen FROM owners WHERE owner = ?", (owner,)).fetchone()
        if row is None:
            return False
        host, pid, started, seen = row
        if host == socket.gethostname():
            return _started(pid) == started and started is not None
        return bool(time.time() - seen < LEASE_SECONDS)


def read_points(path: str | os.PathLike[str]) -> tuple[list[PointRow], dict[str, str]]:
    """Return the points of a sweep's file and what it is about, without a change to the file.

    Raises
    ------
    DataError
        When the file is missing, empty, something else, or cannot be read.
    """
    reading = Reading(Path(path), f"sweep file {os.fspath(path)!r}")
    return _points(reading.rows(_POINTS)), dict(reading.rows(_ABOUT))


def _points(rows: Iterable[Any]) -> list[PointRow]:
    """Return rows of the table of points."""
    return [
        PointRow(key, json.loads(settings), json.loads(machine), json.loads(ptq), status, error, json.loads(metrics))
        for key, settings, machine, ptq, status, error, metrics in rows
    ]


def _started(pid: int) -> str | None:
    """Return something that tells a process from a later one of the same number; None where there is no process."""
    if not Path("/proc/self/stat").exists():  # without it a later process of the same number passes for the first
        try:
            os.kill(pid, 0)
        except OSError:
            return None
        return "unknown"
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    state, start_ticks = fields[0], fields[19]
    return None if state in "ZX" else start_ticks
