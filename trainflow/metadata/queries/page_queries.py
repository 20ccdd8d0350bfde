"""Pages of runs and task instances: one part of a long list, found by index, whatever its length.

A page goes on behind a place in the order, not after a number of rows: the last page costs what the first one does.
Nothing is counted beyond `MOST_COUNTED`.
"""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, Select, and_, func, or_, select

from trainflow.metadata.queries.run_queries import RUN
from trainflow.metadata.queries.task_queries import TASK

#: more entries than these are not counted
MOST_COUNTED = 1_000
#: what is shown of a run in a list, in this order
SHOWN_OF_RUN = (
    *("id", "dag_id", "run_id", "number", "state", "run_type", "triggered_by", "conf", "note"),
    *("logical_date", "run_after", "queued_at", "started_at", "ended_at"),
)
_MOST_STATEMENTS = 64


class Between(NamedTuple):
    """Bounds of a moment, as in Airflow: `gte` and `lte` with the bound, `gt` and `lt` without; None: no bound."""

    gte: datetime | None = None
    gt: datetime | None = None
    lte: datetime | None = None
    lt: datetime | None = None


class RunFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which runs. `dag_id` None: of all DAGs; an empty list: any."""

    dag_id: str | None = None
    run_id: str | None = None
    run_id_prefix: str | None = None
    states: tuple[str, ...] = ()
    run_types: tuple[str, ...] = ()
    #: columns and their bounds
    moments: tuple[tuple[str, Between], ...] = ()


class TaskFilter(RunFilter, frozen=True, kw_only=True):
    """Which task instances, of which runs: `states` are those of the tasks."""

    task_id: str | None = None
    pools: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    executors: tuple[str, ...] = ()


class PagePlace(NamedTuple):
    """A place in the order: behind it the next page begins. Of runs `major` is the number of the run and `minor` 0;
    `backwards`: the page ends before it."""

    major: int
    minor: int = 0
    backwards: bool = False


class PageRequest(NamedTuple):
    """A page that is asked for. `descending`: the newest first; `skip`: so many rows are passed over, for clients that
    count instead of going on."""

    limit: int
    after: PagePlace | None = None
    skip: int = 0
    descending: bool = False


class RowPage(NamedTuple):
    """`more` and `earlier`: something comes behind it, and before it. `total`: up to `MOST_COUNTED`; None: not
    counted, the page is not the first."""

    rows: list[Row[Any]]
    more: bool
    earlier: bool
    total: int | None


def page_of_runs(connection: Connection, which: RunFilter, asked: PageRequest) -> RowPage:
    """`SHOWN_OF_RUN` of runs, in the order in which they were made."""
    return _page(connection, which, asked)


def page_of_tasks(connection: Connection, which: TaskFilter, asked: PageRequest) -> RowPage:
    """Task instances with their runs, in the order of the runs; of all DAGs, in the order in which they were made. The
    columns of the run are prefixed with `run_`."""
    return _page(connection, which, asked)


def place_of_run(row: Row[Any], which: RunFilter) -> PagePlace:
    """Where a row of `page_of_runs` stands."""
    return PagePlace(row.id if which.dag_id is None else row.number)


def place_of_task(row: Row[Any], which: RunFilter) -> PagePlace:
    """Where a row of `page_of_tasks` stands."""
    return PagePlace(row.id) if which.dag_id is None else PagePlace(row.run_number, row.id)


def _major(which: RunFilter) -> ColumnElement[int]:
    """Numbers count within a DAG, and there is an index for that."""
    return RUN.c.id if which.dag_id is None else RUN.c.number


def _of_runs(which: RunFilter, *, of_tasks: bool) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if which.dag_id is not None:
        found.append(RUN.c.dag_id == which.dag_id)
    if which.run_id is not None:
        found.append(RUN.c.run_id == which.run_id)
    if which.run_id_prefix is not None:
        found.append(RUN.c.run_id.startswith(which.run_id_prefix, autoescape=True))
    if which.states and not of_tasks:
        found.append(RUN.c.state.in_(which.states))
    if which.run_types:
        found.append(RUN.c.run_type.in_(which.run_types))
    for name, bounds in which.moments:
        found += _between((TASK if of_tasks else RUN).c[name], bounds)
    return found


def _of_tasks(which: TaskFilter) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if which.task_id is not None:
        found.append(TASK.c.task_id == which.task_id)
    if which.states:
        named = TASK.c.state.in_([state for state in which.states if state != "none"])
        found.append(or_(named, TASK.c.state.is_(None)) if "none" in which.states else named)
    lists = ((TASK.c.pool, which.pools), (TASK.c.queue, which.queues), (TASK.c.executor, which.executors))
    return [*found, *(column.in_(values) for column, values in lists if values)]


def _between(column: ColumnElement[datetime], bounds: Between) -> list[ColumnElement[bool]]:
    found = []
    if bounds.gte is not None:
        found.append(column >= bounds.gte)
    if bounds.gt is not None:
        found.append(column > bounds.gt)
    if bounds.lte is not None:
        found.append(column <= bounds.lte)
    if bounds.lt is not None:
        found.append(column < bounds.lt)
    return found


def _page(connection: Connection, which: RunFilter, asked: PageRequest) -> RowPage:
    place, statements = asked.after, _statements(which, asked)
    rows = list(connection.execute(statements.page))
    beyond, rows = len(rows) > asked.limit, rows[: asked.limit]
    if place is not None and place.backwards:
        return RowPage(rows[::-1], more=True, earlier=beyond, total=None)
    total = connection.execute(statements.counting).scalar_one() if place is None else None
    return RowPage(rows, more=beyond, earlier=place is not None or asked.skip > 0, total=total)


class _Statements(NamedTuple):
    """`page`: the rows, and one beyond them; `counting`: how many there are of all."""

    page: Select[Any]
    counting: Select[int]


@lru_cache(_MOST_STATEMENTS)
def _statements(which: RunFilter, asked: PageRequest) -> _Statements:
    """What a page asks the database: to make it takes as long as to execute it, and programs ask the same again."""
    statement, order = _of_task_filter(which) if isinstance(which, TaskFilter) else _of_run_filter(which)
    place = asked.after
    # a page before a place is read from there on, in the other direction
    descending = asked.descending != (place is not None and place.backwards)
    ordered = statement.order_by(*(column.desc() if descending else column for column in order))
    if place is not None:
        ordered = ordered.where(_behind(order, place, descending=descending))
    few = statement.with_only_columns(RUN.c.id, maintain_column_froms=True).limit(MOST_COUNTED).subquery()
    return _Statements(ordered.limit(asked.limit + 1).offset(asked.skip or None), select(func.count()).select_from(few))


def _of_run_filter(which: RunFilter) -> tuple[Select[Any], tuple[ColumnElement[int], ...]]:
    """The rows, and the columns of their order."""
    shown = (RUN.c[name] for name in SHOWN_OF_RUN)
    return select(*shown).where(*_of_runs(which, of_tasks=False)), (_major(which),)


def _of_task_filter(which: TaskFilter) -> tuple[Select[Any], tuple[ColumnElement[int], ...]]:
    of_run = [column.label(f"run_{column.name}") for column in RUN.c if column.name != "conf"]
    statement = select(TASK, *of_run).join(RUN, RUN.c.id == TASK.c.dag_run_id)
    conditions = [*_of_runs(which, of_tasks=True), *_of_tasks(which)]
    order = (TASK.c.id,) if which.dag_id is None else (RUN.c.number, TASK.c.id)
    return statement.where(*conditions), order


def _behind(order: tuple[ColumnElement[int], ...], place: PagePlace, *, descending: bool) -> ColumnElement[bool]:
    major = order[0]
    beyond = major < place.major if descending else major > place.major
    if len(order) == 1:
        return beyond
    minor = order[1] < place.minor if descending else order[1] > place.minor
    return or_(beyond, and_(major == place.major, minor))
