"""The metadata database of a simulation: SQLite in memory, emptied in microseconds, with every change written down.

All of a history happens in one transaction of SQLite's, and the product's transactions are savepoints in it: to empty
the database is to roll back, after which every statement is still prepared.

Triggers of the database itself write down what changed: a statement that goes around the functions that should be
used is seen as well.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any, NamedTuple, cast

from sqlalchemy import Connection, Dialect
from sqlalchemy.exc import DBAPIError

from tests.support.fresh_schema import empty_schema
from trainflow.metadata.database import Database
from trainflow.metadata.fast_path import Plans
from trainflow.metadata.sql_text import SqlText

_OBSERVE = """
CREATE TABLE observed (
    number INTEGER PRIMARY KEY, kind TEXT, id INTEGER, run INTEGER, name TEXT, old TEXT, new TEXT,
    attempt TEXT, deferral INTEGER, old_failures INTEGER, failures INTEGER, service INTEGER
);
CREATE TRIGGER observe_task AFTER UPDATE ON task_instance
WHEN old.state IS NOT new.state OR old.failures != new.failures BEGIN
    INSERT INTO observed (kind, id, run, name, old, new, attempt, deferral, old_failures, failures, service)
    VALUES ('task', new.id, new.dag_run_id, new.task_id, old.state, new.state, old.attempt_id, old.deferral_number,
            old.failures, new.failures, new.service_id);
END;
CREATE TRIGGER observe_run AFTER UPDATE ON dag_run WHEN old.state IS NOT new.state BEGIN
    INSERT INTO observed (kind, id, run, name, old, new)
    VALUES ('run', new.id, new.number, new.run_id, old.state, new.state);
END;
CREATE TRIGGER observe_new_run AFTER INSERT ON dag_run BEGIN
    INSERT INTO observed (kind, id, run, name, new) VALUES ('new run', new.id, new.number, new.run_id, new.state);
END;
CREATE TRIGGER observe_xcom AFTER INSERT ON xcom BEGIN
    INSERT INTO observed (kind, run, name, new) VALUES ('xcom', new.dag_run_id, new.task_id, new.key);
END;
"""


#: more than there are kinds of statements
_STATEMENTS = 1000


class Observed(NamedTuple):
    """One change of one row. `run` is the key of the run (its number for runs); `attempt` held it before."""

    kind: str
    id: int
    run: int
    name: str
    old: str | None
    new: str | None
    attempt: str | None
    deferral: int | None
    old_failures: int | None
    failures: int | None
    service: int | None
    number: int


class SimulatedCrash(BaseException):
    """The process that was writing is gone, before its commit or right after it."""

    def __init__(self, *, committed: bool) -> None:
        super().__init__("right after a commit" if committed else "before a commit")
        self.committed = committed


def _unheard() -> DBAPIError:
    """What a driver says when the connection is lost with the acknowledgement of a commit."""
    lost = sqlite3.OperationalError("the connection was lost")
    lost.sqlite_errorcode = sqlite3.SQLITE_IOERR
    return DBAPIError("COMMIT", None, lost)


class _SimulatedConnection:
    """The part of SQLAlchemy's connection that the product uses, without its transactions."""

    def __init__(self, driver: sqlite3.Connection, plans: Plans, dialect: Dialect) -> None:
        self.dialect = dialect
        self._driver = driver
        self._plans = plans

    def execute(self, statement: Any, parameters: Any = None) -> Any:
        """See `sqlalchemy.Connection.execute`; of a `SqlText` the list of its rows."""
        if isinstance(statement, SqlText):
            return statement.made(self._driver.execute(*statement.ready("qmark", parameters or {})).fetchall())
        return self._plans.execute(self._driver, statement, parameters)

    @contextmanager
    def begin_nested(self) -> Iterator[None]:
        """See `sqlalchemy.Connection.begin_nested`."""
        self._driver.execute("SAVEPOINT nested")
        try:
            yield
        except BaseException:
            self._driver.execute("ROLLBACK TO nested")
            raise
        finally:
            self._driver.execute("RELEASE nested")


class _Transaction:
    """One of the product's. A class, because there are hundreds in a history: a generator costs twice as much."""

    def __init__(self, database: SimulatedDatabase, crash: str | None) -> None:
        self._database = database
        self._crash = crash

    def __enter__(self) -> Connection:
        self._database.raw.execute("SAVEPOINT one")
        return self._database.connection

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if kind is not None or self._crash == "before":
            self._database.raw.execute("ROLLBACK TO one")
        self._database.raw.execute("RELEASE one")
        if kind is None and self._crash == "unheard":
            raise _unheard()
        if kind is None and self._crash is not None:
            raise SimulatedCrash(committed=self._crash == "after")


class SimulatedDatabase(Database):
    """One for all histories of a process, so that its statements are compiled once. For one thread at a time."""

    def __init__(self) -> None:
        super().__init__("sqlite://")
        self.sleep = lambda _seconds: None
        #: the next writer is gone "before" the commit or right "after" it, or does not hear of it ("unheard")
        self.crash: str | None = None
        self.raw = sqlite3.connect(
            ":memory:", isolation_level=None, cached_statements=_STATEMENTS, check_same_thread=False
        )
        self.raw.deserialize(empty_schema())
        self.raw.execute("PRAGMA foreign_keys=ON")
        self.raw.executescript(_OBSERVE)
        self.raw.execute("BEGIN")
        #: what transactions are made with
        self.connection = cast("Connection", _SimulatedConnection(self.raw, _plans(), self.engine.dialect))
        self._seen_changes = 0
        #: the newest change that was looked at
        self._seen = 0
        self._wiped = 0

    def wipe(self) -> None:
        """What a deleted and newly created database is."""
        self.raw.rollback()
        self.raw.execute("BEGIN")
        self.crash = None
        self._seen = 0
        self._wiped += 1

    @property
    def version(self) -> tuple[int, int]:
        """Another one after each change."""
        return self._wiped, self.raw.total_changes

    def transaction(self) -> AbstractContextManager[Connection]:  # type: ignore[override]  # as good a context
        """See `Database.transaction`."""
        crash, self.crash = self.crash, None
        return _Transaction(self, crash)

    def reading(self) -> AbstractContextManager[Connection]:  # type: ignore[override]  # as good a context
        """See `Database.reading`; while one looks, no other does anything."""
        return nullcontext(self.connection)

    def rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Look at rows, past the product."""
        return self.raw.execute(statement, values).fetchall()

    def interfere(self, statement: str, *values: Any) -> None:
        """What the world does to rows, not the product."""
        self.raw.execute(statement, values)

    def observed(self) -> list[Observed]:
        """What changed since the last look, in order."""
        if self.raw.total_changes == self._seen_changes:
            return []
        changes = self.raw.execute(
            "SELECT kind, id, run, name, old, new, attempt, deferral, old_failures, failures, service, number "
            "FROM observed WHERE number > ? ORDER BY number",
            (self._seen,),
        ).fetchall()
        self._seen_changes = self.raw.total_changes
        observed = [Observed._make(change) for change in changes]
        if observed:
            self._seen = observed[-1].number
        return observed


@cache
def _plans() -> Plans:
    """What is made of statements, for every database of this process: they would forget it for each other."""
    return Plans(Database("sqlite://").engine.dialect)
