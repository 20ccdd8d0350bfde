"""What is written to a column comes back as it was, on every database."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import BigInteger, Boolean, Column, Float, ForeignKey, Integer, String, Table, Text, insert, select
from sqlalchemy.dialects.mysql.base import MySQLDialect
from sqlalchemy.exc import IntegrityError
from sqlalchemy.types import TypeEngine

from trainflow.metadata import schema
from trainflow.metadata.column_types import Json, LongText, UtcDateTime
from trainflow.metadata.database import Database
from trainflow.metadata.models import METADATA

COLUMNS = [column for table in METADATA.sorted_tables for column in table.columns]
#: since when a process has lived, on a machine that has been up for four years: single precision has 123456792.0
UPTIME = 123456789.0
MOMENT = datetime(2026, 3, 29, 1, 59, 59, 999_999, tzinfo=UTC)


@pytest.fixture
def database(tmp_path: Path, database_url: str | None) -> Iterator[Database]:
    opened = Database(database_url or f"sqlite:///{tmp_path}/home/a.db")
    schema.ensure_schema(opened)
    yield opened
    opened.close()


def _probe(column: Column[Any]) -> Any:
    """A value that a column of another width, precision or character set would not give back. The same for every key,
    so that what a foreign key refers to is there."""
    match column.type:
        case UtcDateTime():
            return MOMENT
        case Json():
            return {"float": 1e300, "whole": 2**53 + 1, "text": "é😀 ", "empty": None}
        case Boolean():
            return True
        case LongText():
            return "é😀\n" * 30_000
        case Text():
            return "é😀 \t"
        case String(length=int(length)):
            return "😀" * (min(length, 250) - 1) + " "
        case Float():
            return UPTIME
        case BigInteger() if not column.foreign_keys and not column.primary_key:
            return 2**53 + 1
        case Integer():
            return int(UPTIME)
    raise AssertionError(f"no value is known for {column}: {column.type!r}")


def _row(table: Table) -> dict[str, Any]:
    return {column.name: _probe(column) for column in table.columns}


def test_column_of_every_table_gives_back_what_was_written(database: Database) -> None:
    with database.transaction() as connection:
        for table in METADATA.sorted_tables:
            connection.execute(insert(table).values(_row(table)))
    with database.reading() as connection:
        for table in METADATA.sorted_tables:
            keys = [column == _probe(column) for column in table.primary_key.columns]
            found = dict(connection.execute(select(table).where(*keys)).one()._mapping)
            assert found == _row(table)


def test_column_is_found_by_number_that_was_written(database: Database) -> None:
    with database.transaction() as connection:
        for table in METADATA.sorted_tables:
            connection.execute(insert(table).values(_row(table)))
    with database.reading() as connection:
        for column in COLUMNS:
            if isinstance(column.type, Float | Integer):
                value = _probe(column)
                assert list(connection.execute(select(column).where(column == value)).scalars()) == [value], column


@pytest.mark.parametrize("other", ["Loss", "lóss", "loss ", "loss\t", "loss  ", "lo\u0308ss"])
def test_keys_that_differ_at_all_are_different_keys(database: Database, other: str) -> None:
    pool = METADATA.tables["pool"]
    values = {"slots": 1, "include_deferred": False}
    with database.transaction() as connection:
        for name in ("loss", other):
            connection.execute(insert(pool).values(name=name, **values))
        found = connection.execute(select(pool.c.name).where(pool.c.name == other)).scalars()
        assert list(found) == [other]
    with pytest.raises(IntegrityError), database.transaction() as connection:
        connection.execute(insert(pool).values(name=other, **values))


def _written_for_mysql(type_: TypeEngine[Any]) -> str:
    return str(type_.compile(dialect=MySQLDialect()))


def test_column_types_are_not_narrower_on_mysql() -> None:
    """FLOAT has 24 bits there, DATETIME whole seconds."""
    narrow = {
        str(column): kind for column in COLUMNS if (kind := _written_for_mysql(column.type)) in ("FLOAT", "DATETIME")
    }
    assert narrow == {}


def test_foreign_keys_refer_to_columns_of_their_own_type() -> None:
    for column in COLUMNS:
        for key in column.foreign_keys:
            assert isinstance(key, ForeignKey)
            assert _written_for_mysql(key.column.type) == _written_for_mysql(column.type)
