"""Read a SQLite database without SQLAlchemy: for a command that asks a few questions and ends.

It answers what `Database.reading` answers. What it is asked by statements of SQLAlchemy's is answered as well, at the
cost of loading it then.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from trainflow.errors import DatabaseDamaged, EngineError
from trainflow.metadata.sql_text import SqlText

#: the newest revision of the schema, of every kind of database; a test holds it and the migrations together
HEAD = "0027"
#: how long another process is waited for that holds the file
BUSY_TIMEOUT_SECONDS = 30
_DAMAGES = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


def code_of(error: sqlite3.Error) -> int:
    """The error code. An extended code says more in its upper bits; errors of the driver itself have none."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def is_damaged(error: sqlite3.Error) -> bool:
    """Whether the file is damaged. Nothing that is asked of it can be relied on."""
    return code_of(error) in _DAMAGES


def damage_of(file: Path | None, error: object) -> DatabaseDamaged:
    """What is said of a damaged file."""
    return DatabaseDamaged(
        f"the metadata database {file} is damaged ({error}). Nothing about training is lost with it: that is in the "
        f"ledgers of the chains. Move {file} away, with the files beside it that end in -wal and -shm, and start "
        f"again: each chain goes on at its head"
    )


class SqliteReader:
    """A SQLite database of this version's schema. See `ReadableDatabase`; fit for several threads."""

    def __init__(self, file: Path) -> None:
        self._file = file

    @classmethod
    def of(cls, file: Path) -> SqliteReader | None:
        """The reader of a file; None where that has to be made, migrated or mended first, or cannot be read."""
        with suppress(sqlite3.Error), closing(_connected(file)) as driver:
            if driver.execute("SELECT version_num FROM alembic_version").fetchall() == [(HEAD,)]:
                return cls(file)
        return None

    @contextmanager
    def reading(self) -> Iterator[SqliteConnection]:
        """A consistent view for reading. Raises DatabaseDamaged, EngineError."""
        try:
            with closing(_connected(self._file)) as driver:
                driver.execute("BEGIN")
                yield SqliteConnection(driver)
        except sqlite3.Error as error:
            if is_damaged(error):
                raise damage_of(self._file, error) from error
            raise EngineError(f"the metadata database {self._file} cannot be read: {error}") from error


def _connected(file: Path) -> sqlite3.Connection:
    driver = sqlite3.connect(file, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None)
    driver.execute("PRAGMA temp_store=MEMORY")
    return driver


class SqliteConnection:
    """A transaction of such a reader."""

    def __init__(self, driver: sqlite3.Connection) -> None:
        self._driver = driver

    def execute(self, statement: Any, parameters: Any = None, /) -> Any:
        """What a statement finds. Raises sqlite3.Error."""
        if isinstance(statement, SqlText):
            return statement.made(self._driver.execute(*statement.ready("qmark", parameters or {})).fetchall())
        from trainflow.metadata.fast_path import sqlite_plans

        return sqlite_plans().execute(self._driver, statement, parameters)
