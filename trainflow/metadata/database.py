"""Open the metadata database: one writer, transactions that say what they are."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from trainflow.chaos import passed
from trainflow.errors import EngineError, SettingsError
from trainflow.settings.home import Home
from trainflow.settings.model import Settings

BUSY_TIMEOUT_SECONDS = 30


class Database:
    """A metadata database. Cheap to make; connects when first used."""

    def __init__(self, url: str) -> None:
        """Raises SettingsError for a URL that is none, or whose driver is not installed."""
        try:
            self.url = make_url(url)
            self.engine = _engine(url)
        except ArgumentError as error:
            raise SettingsError(f"database.url cannot be used: {error}") from None
        except ModuleNotFoundError as error:
            raise SettingsError(
                f"database.url needs the package '{error.name}', which is not installed "
                "(PostgreSQL: psycopg, MySQL: pymysql)"
            ) from None
        self._owner = threading.get_ident()
        self._kept: Connection | None = None

    @classmethod
    def of(cls, home: Home, settings: Settings) -> Database:
        """The database in force for a home."""
        return cls(settings.database.url or f"sqlite:///{home.database}")

    @property
    def is_sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    @property
    def file(self) -> Path | None:
        """The file of a SQLite database."""
        return Path(self.url.database) if self.is_sqlite and self.url.database else None

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A transaction that may write: all of it or nothing. On SQLite it holds the write lock from its beginning,
        so that what it has read is still true when it writes."""
        with self._connect() as connection:
            begin = "BEGIN IMMEDIATE" if self.is_sqlite else None
            with connection.execution_options(trainflow_begin=begin).begin():
                yield connection
                passed("database: before the commit")
            passed("database: after the commit")

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A consistent view for reading; never blocks the writer."""
        with self._connect() as connection:
            begin = "BEGIN" if self.is_sqlite else None
            with connection.execution_options(trainflow_begin=begin).begin():
                yield connection

    @contextmanager
    def _connect(self) -> Iterator[Connection]:
        """A connection of its own. The control plane turns in one thread: there the last one is kept for the next
        transaction, since taking one from the pool costs as much as a statement."""
        keeps = self.is_sqlite and threading.get_ident() == self._owner
        kept, self._kept = (self._kept, None) if keeps else (None, self._kept)
        connection = kept if kept is not None else self._open()
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        if keeps and self._kept is None:
            self._kept = connection
        else:
            connection.close()

    def _open(self) -> Connection:
        try:
            return self.engine.connect()
        except DBAPIError as error:
            where = self.url.render_as_string(hide_password=True)
            raise EngineError(f"cannot open the metadata database {where}: {error.orig}") from error

    def close(self) -> None:
        """Give every connection back."""
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.close()
        self.engine.dispose()


def _engine(url: str) -> Engine:
    if not url.startswith("sqlite"):
        return create_engine(url, pool_pre_ping=True)
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_SECONDS, "check_same_thread": False})
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # the driver must not open transactions behind our back: BEGIN is ours
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    # a commit survives a killed process; after a power cut the ledger is the truth, not this database
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute("PRAGMA temp_store=MEMORY")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # straight to the driver: a statement of SQLAlchemy's costs ten times as much
    driver = connection.connection.driver_connection
    assert driver is not None
    try:
        driver.execute(connection.get_execution_options().get("trainflow_begin") or "BEGIN")
    except sqlite3.OperationalError as error:
        raise EngineError(
            f"cannot begin a transaction in {connection.engine.url.database}: {error}; "
            f"another process held it for {BUSY_TIMEOUT_SECONDS} s, or the disk refuses"
        ) from error
