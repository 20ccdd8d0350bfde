"""Lists that are read part by part: runs and task instances, each part found by index."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec
from sqlalchemy import Row

from trainflow.errors import InputError
from trainflow.metadata.queries import page_queries
from trainflow.metadata.queries.page_queries import PagePlace, PageRequest, RowPage, RunFilter, TaskFilter
from trainflow.workspace.workspace import Workspace

#: entries of a page, unless something else is asked for; and at most
USUAL, MOST = 50, 1000
#: rows that a client may pass over by counting: the database walks over each of them
MOST_SKIPPED = 100_000
#: keys are whole numbers of 63 bits
_MOST_KEYS = 2**63

T = TypeVar("T")


class Listed(msgspec.Struct, Generic[T], frozen=True):
    """A part of a list. `after` and `before`: cursors of the parts behind and before it, None where there is none;
    `total`: how many there are, counted up to `page_queries.MOST_COUNTED`."""

    rows: list[T]
    after: str | None
    before: str | None
    total: int | None


def runs_page(workspace: Workspace, which: RunFilter, asked: PageRequest) -> Listed[Row[Any]]:
    """Rows of runs. Raises DagNotFound where the DAG is not known."""
    with workspace.database.reading() as connection:
        found = page_queries.page_of_runs(connection, which, asked)
    return _listed(found, lambda row: page_queries.place_of_run(row, which))


def tasks_page(workspace: Workspace, which: TaskFilter, asked: PageRequest) -> Listed[Row[Any]]:
    """Rows of task instances with what is to be known of their runs."""
    with workspace.database.reading() as connection:
        found = page_queries.page_of_tasks(connection, which, asked)
    return _listed(found, lambda row: page_queries.place_of_task(row, which))


def page_request(limit: int, cursor: str | None, offset: int, *, descending: bool) -> PageRequest:
    """The part that is asked for. An empty cursor is that of the first part. Raises InputError."""
    if cursor and offset:
        raise InputError("cursor and offset exclude each other: a cursor goes on where the last page ended")
    return PageRequest(limit, place_of(cursor) if cursor else None, offset, descending=descending)


def place_of(cursor: str) -> PagePlace:
    """What a cursor stands for. Raises InputError for one that was not given out."""
    try:
        data = base64.urlsafe_b64decode(cursor.encode("ascii") + b"==")
        place = msgspec.json.decode(data, type=PagePlace)
        if not (0 <= place.major < _MOST_KEYS and 0 <= place.minor < _MOST_KEYS):
            raise ValueError(place)
        return place
    except (UnicodeEncodeError, binascii.Error, ValueError, msgspec.DecodeError):
        raise InputError(f"cursor {cursor!r} was given out by no page: take next_cursor of the page before") from None


def cursor_of(place: PagePlace) -> str:
    """The cursor of a place: opaque to who gets it."""
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).rstrip(b"=").decode()


def _listed(page: RowPage, place: Callable[[Row[Any]], PagePlace]) -> Listed[Row[Any]]:
    rows, after, before = page.rows, None, None
    if rows and page.more:
        after = cursor_of(place(rows[-1]))
    if rows and page.earlier:
        before = cursor_of(place(rows[0])._replace(backwards=True))
    return Listed(rows, after, before, page.total)
