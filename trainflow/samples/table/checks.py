"""Whether a ready partition is good: a pure rule over what its footers say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from trainflow.humanize import counted
from trainflow.samples.files.footers import Footer
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
    if checks.columns:
        from trainflow.samples.columns.types import is_called
    for name, footer in footers:
        for column, expected in checks.columns.items():
            if column not in footer.schema.names:
                yield f"{name}: column {column!r}: expected {expected or 'any type'}, found no such column"
                continue
            found = footer.schema.field(column).type
            if expected is not None and not is_called(found, expected):
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
    for column, bounds in checks.ranges.items():
        for name, footer in footers:
            summary = footer.summaries.get(column)
            if summary is None:
                continue
            kind = footer.schema.field(column).type
            for bound, value, word in zip(bounds, (summary.smallest, summary.largest), ("least", "most"), strict=True):
                if bound is not None and str(kind) != "null":
                    yield from _bound(f"{name}: column {column!r}: expected at {word}", bound, value, kind)


def _bound(expected: str, bound: float | str, value: Any, kind: Any) -> Iterator[str]:
    """What is wrong with the smallest or largest value (None: there is none) of a column."""
    from trainflow.samples.columns.bounds import bound_key, shown

    try:
        key = bound_key(bound, kind)
    except (TypeError, ValueError):
        yield f"{expected} {bound!r}, which cannot be compared with {kind}"
        return
    if value is not None and (key > value if expected.endswith("least") else key < value):
        yield f"{expected} {bound}, found {shown(value, kind)}"
