"""Types of columns that mean the same on every database: keys, moments, JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import BigInteger, DateTime, Dialect, Double, Float, Integer, Text, TypeDecorator
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.types import TypeEngine

BigKey = BigInteger().with_variant(Integer(), "sqlite")

#: 53 bits of precision everywhere. A plain `Float` has 24 on MySQL and MariaDB: 10,000.02 s come back as 10,000.0.
#: SQLite has one kind of float only, and cannot change the type of a column
Float64: TypeEngine[float] = Double().with_variant(Float(), "sqlite")


class LongText(Text):
    """Text of any length."""


class MicrosecondDateTime(DateTime):
    """A point in time, to the microsecond."""


# said here rather than with variants and options of tables: those would import the whole dialect of MySQL
@compiles(LongText, "mysql", "mariadb")
def _long_text(_type: LongText, _compiler: Any, **_: Any) -> str:
    return "LONGTEXT"


@compiles(MicrosecondDateTime, "mysql", "mariadb")
def _moment(_type: MicrosecondDateTime, _compiler: Any, **_: Any) -> str:
    return "DATETIME(6)"


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC instant, to the microsecond, on every database. Refuses naive values."""

    impl = MicrosecondDateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"naive datetime {value!r} given to the database")
        moved = value.astimezone(UTC)
        return moved if dialect.name == "postgresql" else moved.replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)

    # SQLite keeps text: read and written in one step, for each task a hundred times

    def bind_processor(self, dialect: Dialect) -> Any:
        return _to_text if dialect.name == "sqlite" else super().bind_processor(dialect)

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:
        return _from_text if dialect.name == "sqlite" else super().result_processor(dialect, coltype)


def _to_text(value: datetime | None) -> str | None:
    if value is None:
        return None
    if value.tzinfo is None:
        raise ValueError(f"naive datetime {value!r} given to the database")
    # in UTC, without the "+00:00" at its end
    return (value if value.tzinfo is UTC else value.astimezone(UTC)).isoformat(" ", "microseconds")[:26]


def _from_text(value: str | None) -> datetime | None:
    return None if value is None else datetime.fromisoformat(value + "+00:00")


class Json(TypeDecorator[Any]):
    """JSON as text: the same on every database, and never unpickled."""

    impl = LongText
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else msgspec.json.encode(value).decode()

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        return None if value is None else msgspec.json.decode(value)
