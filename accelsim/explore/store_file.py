"""The SQLite file of a sweep: its tables, how it is told from other files, how it is read unchanged."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelsim.errors import DataError

FORMAT = "accelsim sweep 1"
PATIENCE_SECONDS = 60.0
"""How long a process waits for the others to leave the file to it."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS owners (owner TEXT PRIMARY KEY, host TEXT, pid INTEGER, started TEXT, seen REAL);
CREATE TABLE IF NOT EXISTS units (
    key TEXT PRIMARY KEY, kind TEXT NOT NULL, status TEXT NOT NULL, owner TEXT, attempts INTEGER NOT NULL DEFAULT 0,
    error TEXT, seconds REAL, finished REAL, result BLOB);
CREATE TABLE IF NOT EXISTS points (
    number INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE, settings TEXT NOT NULL, machine TEXT,
    ptq TEXT, status TEXT NOT NULL, error TEXT, metrics TEXT, finished REAL NOT NULL);
"""

_OURS = {"about", "owners", "units", "points"}


def is_sweep(run: Callable[[str], Any], where: str) -> bool:
    """Whether a database is the file of a sweep; False where it is empty.

    Parameters
    ----------
    run : callable
        Executes a statement of SQL.
    where : str
        Beginning of error messages.

    Raises
    ------
    DataError
        When it is a database of something else, or of another format.
    """
    names = {row[0] for row in run("SELECT name FROM sqlite_master") if not row[0].startswith("sqlite_")}
    if not names:
        return False
    columns = [row[1] for row in run("PRAGMA table_info(about)")]
    if names - _OURS or columns != ["name", "value"]:
        raise DataError(f"{where} is a database of something else; name another file")
    found = run("SELECT value FROM about WHERE name = 'format'").fetchone()
    if found is not None and found[0] != FORMAT:
        raise DataError(f"{where} has the format {found[0]!r}, this accelsim knows {FORMAT!r}; name another file")
    return found is not None


class Reading:
    """A file of a sweep that is read and never written.

    A file that nobody has open has no log of writes beside it: it is read as it is, so that nothing appears beside it
    either, and so that neither it nor its folder need be writable.

    Parameters
    ----------
    path : Path
        The file.
    where : str
        Beginning of error messages.

    Raises
    ------
    DataError
        When the file is missing, empty, something else, or cannot be read.
    """

    def __init__(self, path: Path, where: str) -> None:
        self._path, self._where = path, where
        if not path.is_file():
            raise DataError(f"{where} must exist; `accelsim sweep` makes it")
        try:
            path.open("rb").close()  # SQLite says of each failure that the file cannot be opened
        except OSError as failure:
            raise DataError(f"{where} cannot be read: {failure.strerror}") from None
        self._log = path.with_name(f"{path.name}-wal")
        if not self._ask(is_sweep):
            raise DataError(f"{where} holds no sweep; name a file that `accelsim sweep --store` made")

    def rows(self, query: str) -> list[Any]:
        """Return what a query finds."""
        rows: list[Any] = self._ask(lambda run, _: run(query).fetchall())
        return rows

    def _ask(self, question: Callable[[Callable[[str], Any], str], Any]) -> Any:
        """Ask again where a process began to write, or wrote, while the file was read as one that nobody writes."""
        while True:
            before = self._state()
            try:
                answer = self._ask_once(question, written=before[0])
            except sqlite3.Error as failure:
                if before == self._state():
                    raise DataError(f"{self._where} cannot be used: {self._reason(failure, before[0])}") from None
                continue
            if before[0] or before == self._state():
                return answer

    def _ask_once(self, question: Callable[[Callable[[str], Any], str], Any], written: bool) -> Any:
        mode = "mode=ro" if written else "immutable=1"
        connection = sqlite3.connect(
            f"{self._path.absolute().as_uri()}?{mode}", uri=True, timeout=PATIENCE_SECONDS, isolation_level=None
        )
        try:
            return question(connection.execute, self._where)
        finally:
            connection.close()

    def _state(self) -> tuple[bool, int, int]:
        """Whether there is a log of writes, and what changes when it is taken over."""
        try:
            state = self._path.stat()
        except OSError as failure:
            raise DataError(f"{self._where} cannot be read: {failure.strerror}") from None
        journal = self._path.with_name(f"{self._path.name}-journal")
        return self._log.exists() or journal.exists(), state.st_mtime_ns, state.st_size

    def _reason(self, failure: sqlite3.Error, written: bool) -> str:
        code = getattr(failure, "sqlite_errorcode", 0) & 0xFF
        if written and code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
            return (
                f"{self._log.name} beside it holds writes that only a process that may write in the folder can read; "
                "copy both files into such a folder"
            )
        return str(failure)
