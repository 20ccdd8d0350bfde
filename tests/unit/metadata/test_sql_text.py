"""Statements as text: placeholders of each driver, values and rows of each database."""

from __future__ import annotations

import types
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, NamedTuple, get_type_hints

import pytest

from trainflow.metadata.queries import drain_queries, service_list_queries, status_queries
from trainflow.metadata.sql_text import SqlText


class Line(NamedTuple):
    name: str
    at: datetime | None
    good: bool
    what: dict[str, Any] | None


TEXT = SqlText(
    "SELECT name, at, good, what\n  FROM line WHERE name IN :names AND at > :since OR number = :number::int",
    Line,
    moments=["at"],
    flags=["good"],
    documents=["what"],
)
AT = datetime(2026, 1, 2, 5, 4, 5, 6, tzinfo=timezone(timedelta(hours=2)))


@pytest.mark.parametrize(
    ("style", "places", "at"),
    [
        ("qmark", ("?", "?", "?", "?"), "2026-01-02 03:04:05.000006"),
        ("format", ("%s", "%s", "%s", "%s"), datetime(2026, 1, 2, 3, 4, 5, 6)),
        ("numeric_dollar", ("$1", "$2", "$3", "$4"), AT),
    ],
)
def test_text_is_made_for_each_driver(style: str, places: tuple[str, ...], at: object) -> None:
    sql, values = TEXT.ready(style, {"since": AT, "number": 7, "names": ["a", "b"]})
    a, b, c, d = places
    expected = f"SELECT name, at, good, what FROM line WHERE name IN ({a}, {b}) AND at > {c} OR number = {d}::int"
    assert (sql, values) == (expected, ["a", "b", at, 7])


def test_lists_of_other_lengths_and_of_none_are_other_texts() -> None:
    text = SqlText("SELECT a FROM t WHERE a IN :some AND b IN :more", Line)
    found = [text.ready("qmark", {"some": some, "more": more}) for some, more in (([1], [2, 3]), ([1, 2], [3]))]
    assert [values for _, values in found] == [[1, 2, 3], [1, 2, 3]]
    assert found[0][0] != found[1][0]
    assert text.ready("qmark", {"some": [], "more": [1]}) == ("SELECT a FROM t WHERE a IN (NULL) AND b IN (?)", [1])
    # in whichever order they are given
    assert text.ready("qmark", {"more": [3], "some": [1, 2]}) == found[1]


@pytest.mark.parametrize(
    "row",
    [
        ("a", "2026-01-02 03:04:05.000006", 1, '{"b": 1}'),
        ("a", datetime(2026, 1, 2, 3, 4, 5, 6), 1, '{"b": 1}'),
        ("a", AT, True, '{"b": 1}'),
    ],
)
def test_rows_of_each_database_are_made_alike(row: tuple[Any, ...]) -> None:
    (made,) = TEXT.made([row])
    assert made == ("a", AT, True, {"b": 1})
    assert (made.at and made.at.tzinfo, type(made.good)) == (UTC, bool)
    assert TEXT.made([("a", None, 0, None)]) == [Line("a", None, False, None)]


STATEMENTS = {
    f"{module.__name__.rpartition('.')[2]}.{name}": found
    for module in (drain_queries, service_list_queries, status_queries)
    for name, found in vars(module).items()
    if isinstance(found, SqlText)
} | {"status_queries._dags": status_queries._dags("dag.missing_since IS NULL")}


@pytest.mark.parametrize("name", sorted(STATEMENTS))
def test_columns_are_said_to_hold_what_their_types_are(name: str) -> None:
    """A moment that is not said to be one is a text on SQLite, and what it should be on a server."""
    statement = STATEMENTS[name]
    assert len(STATEMENTS) >= 14
    kinds = {column: _kinds(hint) for column, hint in get_type_hints(statement.row).items()}
    assert statement.moments == {column for column, kind in kinds.items() if datetime in kind}
    assert statement.flags == {column for column, kind in kinds.items() if bool in kind}
    assert statement.documents == {column for column, kind in kinds.items() if kind & {dict, list, Any}}


def _kinds(hint: Any) -> set[Any]:
    parts = hint.__args__ if isinstance(hint, types.UnionType) else (hint,)
    return {getattr(part, "__origin__", part) for part in parts}
