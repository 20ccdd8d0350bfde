"""Whether a ready partition is good: a pure rule over what its footers say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from trainflow.counting import counted
from trainflow.samples.footers import Footer
from trainflow.samples.spec import Checks

Named = Sequence[tuple[str, Footer]]


def problems(checks: Checks, footers: Named) -> tuple[str, ...]:
    """Every way in which the files (name, footer) of one partition break the checks; empty when the partition is good.

    Each is a sentence that names file, column, what was expected and what was found.
    """
    return (
        *_rows(checks, footers),
        *_columns(checks, footers),
        *_nulls(checks, footers),
        *_ranges(checks, footers),
    )


def _rows(checks: Checks, footers: Named) -> Iterator[str]:
    rows = sum(footer.rows for _, footer in footers)
    if checks.min_rows is not None and rows < checks.min_rows:
        yield f"expected at least {counted(checks.min_rows, 'row')}, found {rows:,} in {counted(len(footers), 'file')}"
    if checks.max_rows is not None and rows > checks.max_rows:
        yield f"expected at most {counted(checks.max_rows, 'row')}, found {rows:,} in {counted(len(footers), 'file')}"


def _columns(checks: Checks, footers: Named) -> Iterator[str]:
    for name, footer in footers:
        for column, expected in checks.columns.items():
            if column not in footer.schema.names:
                yield f"{name}: column {column!r}: expected {expected or 'any type'}, found no such column"
                continue
            found = str(footer.schema.field(column).type)
            if expected is not None and found != expected:
                yield f"{name}: column {column!r}: expected {expected}, found {found}"
        asked = {*checks.nulls, *checks.ranges} - checks.columns.keys()
        for column in sorted(asked - set(footer.schema.names)):
            yield f"{name}: column {column!r}: expected by a check, found no such column"


def _nulls(checks: Checks, footers: Named) -> Iterator[str]:
    for column, allowed in checks.nulls.items():
        having = [(name, footer) for name, footer in footers if column in footer.summaries]
        rows = sum(footer.rows for _, footer in having)
        nulls = sum(footer.summaries[column].nulls for _, footer in having)
        if rows and nulls / rows > allowed:
            worst = max(having, key=lambda item: item[1].summaries[column].nulls)[0]
            yield (
                f"column {column!r}: expected at most {allowed:.4g} nulls, found {nulls / rows:.4g} "
                f"({nulls} of {rows} rows; most of them in {worst})"
            )


def _ranges(checks: Checks, footers: Named) -> Iterator[str]:
    for column, (low, high) in checks.ranges.items():
        for name, footer in footers:
            summary = footer.summaries.get(column)
            if summary is None or summary.smallest is None:
                continue
            for bound, value, word in ((low, summary.smallest, "at least"), (high, summary.largest, "at most")):
                yield from _bound(name, column, bound, value, word)


def _bound(name: str, column: str, bound: float | str | None, value: Any, word: str) -> Iterator[str]:
    if bound is None:
        return
    try:
        ours, theirs = comparable(bound, value)
    except (TypeError, ValueError):
        yield f"{name}: column {column!r}: expected {word} {bound!r}, found {value!r}: these cannot be compared"
        return
    if ours > theirs if word == "at least" else ours < theirs:
        shown = value.isoformat() if isinstance(value, (date, datetime)) else value
        yield f"{name}: column {column!r}: expected {word} {bound}, found {shown}"


def comparable(bound: float | str, value: Any) -> tuple[Any, Any]:
    """Bound and value as one kind of thing. Raises TypeError or ValueError when they are not."""
    if isinstance(value, datetime):
        moment = datetime.fromisoformat(_text(bound))
        return _utc(moment), _utc(value)
    if isinstance(value, date):
        return date.fromisoformat(_text(bound)), value
    if isinstance(value, bytes):
        return _text(bound), value.decode()
    if isinstance(value, str):
        return _text(bound), value
    if isinstance(value, (bool, int, float, Decimal)) and not isinstance(bound, str):
        return bound, value
    raise TypeError(f"{bound!r} and {value!r} cannot be compared")


def _text(bound: float | str) -> str:
    if not isinstance(bound, str):
        raise TypeError(f"{bound!r} is not text")
    return bound


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
