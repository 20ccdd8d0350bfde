"""What a failed statement means, by driver."""

from __future__ import annotations

import sqlite3
from typing import Any

import msgspec
import pymysql.err
import pytest
from sqlalchemy.exc import DBAPIError, StatementError

from trainflow.errors import EngineError
from trainflow.metadata.transaction_retries import is_conflict, is_damage, is_outage, is_own_fault, is_refusal


def of(driver_error: Exception) -> DBAPIError:
    return DBAPIError("INSERT", None, driver_error)


def sqlite(code: int) -> DBAPIError:
    error = sqlite3.OperationalError("…")
    error.sqlite_errorcode = code
    return of(error)


def mysql(code: int, sqlstate: str | None) -> DBAPIError:
    error: Any = pymysql.err.OperationalError(code, "…")
    error.sqlstate = sqlstate  # newer drivers set it
    return of(error)


class PostgresError(Exception):
    """As psycopg's: it says what happened by an SQLSTATE."""

    def __init__(self, sqlstate: str) -> None:
        super().__init__(sqlstate)
        self.sqlstate = sqlstate


CONFLICT, OUTAGE, DAMAGE, REFUSAL = "conflict", "outage", "damage", "refusal"
TABLE: list[tuple[Exception, set[str]]] = [
    (sqlite(sqlite3.SQLITE_BUSY), {CONFLICT}),
    (sqlite(sqlite3.SQLITE_FULL), {OUTAGE}),
    (sqlite(sqlite3.SQLITE_CORRUPT), {DAMAGE}),
    (sqlite(sqlite3.SQLITE_CORRUPT | 1 << 8), {DAMAGE}),
    (sqlite(sqlite3.SQLITE_NOTADB), {DAMAGE}),
    (sqlite(sqlite3.SQLITE_TOOBIG), {REFUSAL}),
    (of(PostgresError("40P01")), {CONFLICT}),
    (of(PostgresError("23505")), {CONFLICT, REFUSAL}),
    (of(PostgresError("53100")), {OUTAGE}),
    (of(PostgresError("22001")), {REFUSAL}),
    *((mysql(1213, state), {CONFLICT}) for state in (None, "40001")),
    *((mysql(1205, state), {CONFLICT}) for state in (None, "HY000")),
    *((mysql(1062, state), {CONFLICT, REFUSAL}) for state in (None, "23000")),
    *((mysql(2006, state), {OUTAGE}) for state in (None, "HY000")),
    *((mysql(1406, state), {REFUSAL}) for state in (None, "22001")),
    (StatementError("…", "INSERT", None, ValueError("naive")), {REFUSAL}),
    (OverflowError("too large for SQLite"), {REFUSAL}),
    (RecursionError(), {REFUSAL}),
    (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates"), {REFUSAL}),
    (msgspec.ValidationError("…"), {REFUSAL}),
    (MemoryError(), set()),
    (OSError(24, "Too many open files"), set()),
    (EngineError("…"), set()),
]


@pytest.mark.parametrize(("error", "means"), TABLE, ids=[f"{type(e).__name__}-{n}" for n, (e, _) in enumerate(TABLE)])
def test_failure_of_driver_has_its_meaning(error: Exception, means: set[str]) -> None:
    rules = {CONFLICT: is_conflict, OUTAGE: is_outage, DAMAGE: is_damage, REFUSAL: is_refusal}
    assert {name for name, rule in rules.items() if rule(error)} == means


@pytest.mark.parametrize(("error", "means"), TABLE, ids=[f"{type(e).__name__}-{n}" for n, (e, _) in enumerate(TABLE)])
def test_own_fault_is_what_befalls_not_everything_alike(error: Exception, means: set[str]) -> None:
    assert is_own_fault(error) == (means == {REFUSAL})
