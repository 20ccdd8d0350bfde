"""Open the metadata database: one writer on SQLite, several on a server; transactions that say what they are.

Where several write at once a transaction can lose against another one: a deadlock is broken by ending one of the two,
a row that was looked for in vain is there when it is inserted. Nothing of a transaction that lost has happened, and
what it looks at is different the next time: `Database.retrying` does it again. It also waits for a database that is
away for a moment: one that is restarted, a disk that is full.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, DisconnectionError

from trainflow.errors import DatabaseDamaged, DatabaseUnavailable, EngineError, SettingsError
from trainflow.failpoint import hit
from trainflow.metadata import server_connections
from trainflow.metadata.fast_connection import FastConnection, TextConnection
from trainflow.metadata.fast_path import Plans
from trainflow.metadata.server_connections import postgres_options
from trainflow.metadata.sqlite_reader import BUSY_TIMEOUT_SECONDS, damage_of
from trainflow.metadata.transaction_retries import OUTAGE_SECONDS, is_conflict, is_damage, retry
from trainflow.observability.file_access import unwritable
from trainflow.settings.home import Home
from trainflow.settings.model import Settings

log = logging.getLogger(__name__)

#: how long a transaction may stand still on a server, where nothing else is said
IDLE_SECONDS = 30.0
_SWITCH_PAUSE_SECONDS = 0.01
_pause = time.sleep

_T = TypeVar("_T")


class Database:
    """A metadata database. Cheap to make; connects when first used."""

    def __init__(self, url: str, *, idle_seconds: float = IDLE_SECONDS) -> None:
        """`idle_seconds`: how long a transaction may stand still on a server before it is ended there.

        Raises SettingsError for a URL that is none, or whose driver is not installed.
        """
        try:
            self.url = make_url(url)
            self.engine = _engine(url, idle_seconds)
        except ArgumentError as error:
            raise SettingsError(f"database.url cannot be used: {error}") from None
        except ModuleNotFoundError as error:
            raise SettingsError(
                f"database.url needs the package '{error.name}', which is not installed: "
                "pip install 'trainflow[postgres]' or 'trainflow[mysql]', with a URL that begins with "
                "postgresql+psycopg:// or mysql+pymysql://"
            ) from None
        #: how long to wait for a database that is away, how, and whether the caller still does
        self.patience_seconds = OUTAGE_SECONDS
        self.is_away = False
        self.sleep: Callable[[float], None] = time.sleep
        self.monotonic: Callable[[], float] = time.monotonic
        self.give_up: Callable[[], bool] = lambda: False
        #: called when work was done again after the database had been away: the first time may have counted as well,
        #: unheard, and then the second time has changed nothing
        self.on_done_again: Callable[[], None] = lambda: None
        #: called beside the log with what a person is to know at once: the database is away, it is back
        self.tell: Callable[[str], None] = lambda _sentence: None
        self._plans = _plans(self.engine)
        self._owner = threading.get_ident()
        self._kept: Connection | None = None

    @classmethod
    def of(cls, home: Home, settings: Settings) -> Database:
        """The database in force for a home."""
        url = settings.database.url or f"sqlite:///{home.database}"
        return cls(url, idle_seconds=settings.engine.dead_after_seconds)

    @property
    def is_sqlite(self) -> bool:
        """Whether it is a file of SQLite."""
        return self.engine.dialect.name == "sqlite"

    @property
    def file(self) -> Path | None:
        """The file of a SQLite database."""
        return Path(self.url.database) if self.is_sqlite and self.url.database else None

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A transaction that may write: all of it or nothing. On SQLite it holds the write lock from its beginning,
        so that what it has read is still true when it writes. On a server others write at the same time: what must
        stay true is locked or guarded, and it may lose (see `retrying`)."""
        options = self._kind(sqlite="BEGIN IMMEDIATE", server="READ COMMITTED", reads=False)
        with self._connect() as connection:
            with connection.execution_options(**options).begin():
                yield connection
                hit("database: before the commit")
            hit("database: after the commit")

    def write(self, work: Callable[[Connection], _T]) -> _T:
        """`work` in a transaction; again when it lost against another one. It changes nothing but the database."""

        def once() -> _T:
            with self.transaction() as connection:
                return work(connection)

        return self.retrying(once)

    def read(self, work: Callable[[Connection], _T]) -> _T:
        """`work` in a consistent view for reading; again when the database was away."""

        def once() -> _T:
            with self.reading() as connection:
                return work(connection)

        return self.retrying(once)

    def retrying(self, work: Callable[[], _T], *, before_again: Callable[[], None] | None = None) -> _T:
        """Call `work`, which opens its transactions itself, again when one of them lost against another one, or when
        the database is away: for a minute at most, and no longer than the caller waits (`give_up`).

        What it changes outside of the database it changes after its commit, or `before_again` takes it back. A commit
        may count although its acknowledgement was lost: done again, the work must find that and change nothing. When a
        transaction loses for the fifth time, its error is raised. Raises DatabaseUnavailable when a minute was not
        enough.
        """
        return retry(work, self, before_again=before_again)

    def went_away(self, error: DBAPIError | EngineError) -> None:
        """Say so, and how long it is waited for: once, whichever of many threads asks."""
        if self.is_away:
            return
        self.is_away = True
        self._say(
            f"the metadata database {self._place} cannot be used now: {self._cause(error)}. It is asked again for "
            f"{self.patience_seconds:.0f} s; attempts that run go on meanwhile"
        )

    def came_back(self, *, done_again: bool) -> None:
        """Tell that it answers, once; `done_again`: what was waited for is done."""
        if done_again:
            self.on_done_again()
        if self.is_away:
            self.is_away = False
            self._say(f"the metadata database {self._place} can be used again")

    def _say(self, sentence: str) -> None:
        log.warning("%s", sentence)
        self.tell(sentence)

    def away(self, error: DBAPIError | EngineError) -> DatabaseUnavailable:
        """What is said when a minute was not enough."""
        return DatabaseUnavailable(
            f"the metadata database {self._place} cannot be used: {self._cause(error)}. Nothing is lost: "
            "attempts that run go on, and report to the next engine. Start again when it is back"
        )

    @property
    def _place(self) -> str:
        return str(self.file or self.url.render_as_string(hide_password=True))

    def _cause(self, error: DBAPIError | EngineError) -> str:
        """What the driver says, and what is seen of the file."""
        said = error.__cause__ if isinstance(error, EngineError) and error.__cause__ is not None else error
        why = unwritable(self.file) if self.file is not None else None
        return f"{getattr(said, 'orig', None) or said}{f' ({why})' if why else ''}"

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A consistent view for reading; never blocks the writer."""
        options = self._kind(sqlite="BEGIN", server="REPEATABLE READ", reads=True)
        with self._connect() as connection, connection.execution_options(**options).begin():
            yield connection

    def _kind(self, *, sqlite: str, server: str, reads: bool) -> dict[str, Any]:
        if self.is_sqlite:
            return {"trainflow_begin": sqlite}
        if self._plans is None:
            return {"isolation_level": server}
        if self.engine.dialect.driver == "pymysql":
            return {"trainflow_begin": server_connections.READS if reads else ""}
        return {"trainflow_begin": f"BEGIN ISOLATION LEVEL {server}{' READ ONLY' if reads else ''}"}

    @contextmanager
    def _connect(self) -> Iterator[Connection]:
        """A connection of its own. The control plane turns in one thread: there the last one is kept for the next
        transaction, since taking one from the pool costs as much as a statement."""
        keeps = self._plans is not None and threading.get_ident() == self._owner
        kept = None
        if keeps:
            kept, self._kept = self._kept, None
        if kept is not None and _is_lost(kept):
            kept.invalidate()
            kept.close()
            kept = None
        connection = kept if kept is not None else self._open()
        try:
            yield connection
        except BaseException as error:
            connection.close()
            if is_damage(error):
                raise self._damaged(error) from error
            raise
        if keeps and self._kept is None:
            self._kept = connection
        else:
            connection.close()

    def _open(self) -> Connection:
        try:
            if self._plans is None:
                return TextConnection(self.engine)
            connection = FastConnection(self.engine)
            connection.plans = self._plans
            return connection
        except DBAPIError as error:
            if is_damage(error):
                raise self._damaged(error) from error
            raise EngineError(f"cannot open the metadata database {self._place}: {self._cause(error)}") from error

    def _damaged(self, error: BaseException) -> DatabaseDamaged:
        return damage_of(self.file, getattr(error, "orig", None) or error)

    def close(self) -> None:
        """Give every connection back."""
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.close()
        self.engine.dispose()


def _engine(url: str, idle_seconds: float) -> Engine:
    if not url.startswith("sqlite"):
        if url.startswith("postgresql+psycopg:"):
            return _pipelined(url, idle_seconds)
        address = make_url(url)
        # values by their places: what the fast path makes of a statement
        style: dict[str, Any] = {"paramstyle": "format"} if address.get_driver_name() == "pymysql" else {}
        if style and "unix_socket" in address.query and not any(name.startswith("ssl") for name in address.query):
            # nothing is encrypted on one, and PyMySQL reads the system's certificates all the same: 25 ms a connection
            style["connect_args"] = {"ssl_disabled": True}
        engine = create_engine(url, pool_pre_ping=True, **style)
        if style:
            server_connections.prepare(engine, idle_seconds)
        return engine
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_SECONDS, "check_same_thread": False})
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _plans(engine: Engine) -> Plans | None:
    """Plans of statements that go past SQLAlchemy; None: none of them does."""
    if engine.dialect.name == "sqlite" or engine.dialect.driver == "pymysql":
        return Plans(engine.dialect)
    if engine.dialect.driver != "psycopg":
        return None
    dialect: Any = type(engine.dialect)
    return Plans(dialect(paramstyle="numeric_dollar", dbapi=engine.dialect.loaded_dbapi))


def _pipelined(url: str, idle_seconds: float) -> Engine:
    from trainflow.metadata.postgres_pipeline import PipelinedConnection, Preparing

    options = {"client_encoding": "utf8", **postgres_options(make_url(url).query, idle_seconds)}
    # hstore: it would be asked for with each new engine
    engine = create_engine(url, use_native_hstore=False, connect_args=options)
    preparing = Preparing()

    @event.listens_for(engine, "do_connect")
    def connect(_dialect: Any, _record: Any, arguments: list[Any], options: dict[str, Any]) -> PipelinedConnection:
        return PipelinedConnection.connected(preparing, *arguments, **options)

    @event.listens_for(engine, "checkout")
    def check(connection: PipelinedConnection, _record: Any, _proxy: Any) -> None:
        # a server that was restarted has hung up: that is seen here, and costs no question
        if connection.statements.is_lost():
            raise DisconnectionError("the server has hung up")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        driver: Any = connection.connection.driver_connection
        driver.statements.begin(connection.get_execution_options().get("trainflow_begin") or "BEGIN")

    return engine


def _is_lost(connection: Connection) -> bool:
    """Whether the server of a connection that was kept has hung up."""
    driver: Any = connection.connection.driver_connection
    if isinstance(driver, sqlite3.Connection):
        return False
    if connection.dialect.driver == "pymysql":
        return server_connections.is_lost(driver)
    return bool(driver.statements.is_lost())


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # the driver must not open transactions behind our back: BEGIN is ours
    connection.isolation_level = None
    cursor = connection.cursor()
    _write_ahead(cursor)
    # a commit survives a killed process; after a power cut the ledger is the truth, not this database
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute("PRAGMA temp_store=MEMORY")
    cursor.close()


def _write_ahead(cursor: Any) -> None:
    # the busy timeout does not hold for the switch: while another process makes the same one, SQLite refuses at once
    deadline = time.monotonic() + BUSY_TIMEOUT_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if not is_conflict(error) or time.monotonic() >= deadline:
                raise
            _pause(_SWITCH_PAUSE_SECONDS)


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
