"""Statements as text: what is asked where importing SQLAlchemy would take longer than the question.

A statement is written once and is executed by any connection: by that of SQLAlchemy's (`fast_path`) on every database,
and by one of the standard library's (`sqlite_reader`), which reads a file of SQLite and has loaded nothing else. So the
text is what all of them take: names of columns, `:name` for a value or, after IN, for a list of values, no functions
but those that every database has.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import msgspec

R = TypeVar("R", bound=NamedTuple)

#: a value that is given, not the second half of a cast
_GIVEN = re.compile(r"(?<![:\w]):(\w+)")


class ReadingConnection(Protocol):
    """A connection in a transaction that reads."""

    def execute(self, statement: Any, parameters: Any = ..., /) -> Any:
        """What a statement finds: a list of its rows for a `SqlText`."""
        ...


class ReadableDatabase(Protocol):
    """A metadata database that is asked, and not changed."""

    def reading(self) -> AbstractContextManager[ReadingConnection]:
        """A consistent view for reading; never blocks the writer."""
        ...


class SqlText(Generic[R]):
    """A SELECT, and the type of its rows, whose fields are its columns, in order. `moments`, `flags`, `documents`:
    those that hold points in time, truth values and JSON, which databases give in different forms."""

    def __init__(
        self,
        text: str,
        row: type[R],
        *,
        moments: Sequence[str] = (),
        flags: Sequence[str] = (),
        documents: Sequence[str] = (),
    ) -> None:
        self.text = " ".join(text.split())
        self.row = row
        self.moments, self.flags, self.documents = frozenset(moments), frozenset(flags), frozenset(documents)
        self._ready: dict[tuple[Any, ...], tuple[str, tuple[str, ...]]] = {}

    def __str__(self) -> str:
        return self.text

    def rows(self, connection: ReadingConnection, **given: Any) -> list[R]:
        """Ask. Raises what the connection raises."""
        rows: list[R] = connection.execute(self, given)
        return rows

    def ready(self, style: str, given: Mapping[str, Any]) -> tuple[str, list[Any]]:
        """The text with the placeholders of a driver (`qmark`, `format`, `numeric_dollar`), and values by place."""
        shape = (style, *((name, len(value)) for name, value in given.items() if isinstance(value, list)))
        known = self._ready.get(shape)
        if known is None:
            known = self._ready[shape] = self._placed(style, given)
        sql, names = known
        moment = None if style == "numeric_dollar" else _as_text if style == "qmark" else _as_naive
        values: list[Any] = []
        for name in names:
            value = given[name]
            values += value if isinstance(value, list) else [value]
        if moment is not None:
            values = [moment(value) if isinstance(value, datetime) else value for value in values]
        return sql, values

    def _placed(self, style: str, given: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
        names: list[str] = []
        number = 0

        def place() -> str:
            nonlocal number
            number += 1
            return f"${number}" if style == "numeric_dollar" else "?" if style == "qmark" else "%s"

        def replaced(found: re.Match[str]) -> str:
            names.append(found[1])
            value = given[found[1]]
            if not isinstance(value, list):
                return place()
            # nothing is in an empty list
            return f"({', '.join(place() for _ in value) or 'NULL'})"

        return _GIVEN.sub(replaced, self.text), tuple(names)

    def made(self, rows: Sequence[Sequence[Any]]) -> list[R]:
        """The rows that a driver gave, each of its type."""
        make: Any = self.row._make
        converted = {
            place: convert for place, name in enumerate(self.row._fields) if (convert := self._converter(name))
        }
        if not converted:
            return [make(row) for row in rows]
        made: list[R] = []
        for row in rows:
            fields = list(row)
            for place, convert in converted.items():
                if fields[place] is not None:
                    fields[place] = convert(fields[place])
            made.append(make(fields))
        return made

    def _converter(self, name: str) -> Callable[[Any], Any] | None:
        if name in self.moments:
            return _moment
        if name in self.flags:
            return bool
        return msgspec.json.decode if name in self.documents else None


def _moment(value: Any) -> datetime:
    if isinstance(value, str):
        return datetime.fromisoformat(f"{value}+00:00")
    found: datetime = value
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def _as_text(value: datetime) -> str:
    """A moment as SQLite keeps it: see `column_types.UtcDateTime`."""
    return value.astimezone(UTC).isoformat(" ", "microseconds")[:26]


def _as_naive(value: datetime) -> datetime:
    return value.astimezone(UTC).replace(tzinfo=None)
