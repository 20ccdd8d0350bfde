"""What a failed statement means, by driver: a conflict, an outage, or an error."""

from __future__ import annotations

import sqlite3

import pytest
from sqlalchemy.exc import DBAPIError

from trainflow.errors import EngineError
from trainflow.metadata.transaction_retries import is_conflict, is_outage


def _sqlite(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("x")
    error.sqlite_errorcode = code
    return error


def _wrapped(error: Exception) -> DBAPIError:
    return DBAPIError("SELECT 1", None, error)


def _begun(error: Exception) -> EngineError:
    """As where a transaction begins."""
    try:
        raise EngineError("cannot begin") from error
    except EngineError as raised:
        return raised


@pytest.mark.parametrize(
    ("error", "conflict", "outage"),
    [
        (_wrapped(_sqlite(sqlite3.SQLITE_BUSY)), True, False),
        (_begun(_sqlite(sqlite3.SQLITE_BUSY_SNAPSHOT)), True, False),
        (_wrapped(_sqlite(sqlite3.SQLITE_FULL)), False, True),
        (_begun(_sqlite(sqlite3.SQLITE_IOERR_FSYNC)), False, True),
        (_begun(_wrapped(_sqlite(sqlite3.SQLITE_CANTOPEN))), False, True),
        # no such table, a row that is there already: something is wrong, and waiting mends nothing
        (_wrapped(_sqlite(sqlite3.SQLITE_ERROR)), False, False),
        (_wrapped(_sqlite(sqlite3.SQLITE_CONSTRAINT_UNIQUE)), False, False),
        (_wrapped(sqlite3.ProgrammingError("closed")), False, False),
        (EngineError("no"), False, False),
    ],
)
def test_failure_of_sqlite_has_its_meaning(error: Exception, conflict: bool, outage: bool) -> None:
    assert (is_conflict(error), is_outage(error)) == (conflict, outage)


@pytest.mark.parametrize(
    ("state", "conflict", "outage"),
    [
        ("40P01", True, False),
        ("40001", True, False),
        ("08006", False, True),
        ("57P01", False, True),
        ("53100", False, True),
        ("25P03", False, True),
        ("42P01", False, False),
    ],
)
def test_failure_of_postgresql_has_its_meaning(state: str, conflict: bool, outage: bool) -> None:
    error = _wrapped(type("Error", (Exception,), {"sqlstate": state, "__module__": "psycopg.errors"})("x"))
    assert (is_conflict(error), is_outage(error)) == (conflict, outage)


@pytest.mark.parametrize("more", [{}, {"sqlstate": None}, {"sqlstate": "HY000"}, {"sqlstate": "23000"}])
@pytest.mark.parametrize(
    ("code", "conflict", "outage"),
    [
        *((code, True, False) for code in (1213, 1205, 3572, 1062)),
        *((code, False, True) for code in (2006, 2013, 1021, 1927, 4031)),
        (1146, False, False),
    ],
)
def test_failure_of_mysql_has_its_meaning(code: int, more: dict[str, str | None], conflict: bool, outage: bool) -> None:
    """PyMySQL's errors have a `sqlstate` since 1.2, as psycopg's have."""
    error = _wrapped(type("OperationalError", (Exception,), {"__module__": "pymysql.err", **more})(code, "x"))
    assert (is_conflict(error), is_outage(error)) == (conflict, outage)
