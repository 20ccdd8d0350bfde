"""Queued runs: which of them may start."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, bindparam, case, exists, func, literal_column, or_, select

from trainflow.metadata.models import DagRunTable, DagTable, TaskInstanceTable
from trainflow.metadata.queries.run_queries import BRIEF
from trainflow.states import MOST_AHEAD, DagRunState

RUN = DagRunTable.table
TASK = TaskInstanceTable.table
DAG = DagTable.table


def startable(connection: Connection, now: datetime) -> list[Row[Any]]:
    """Queued runs that may start now, without their conf, and whether they have tasks (`has_tasks`: they were running
    before), locked: oldest of each DAG first, never more than `max_active_runs` of it at a time.

    A run that was released does not count; but only MOST_AHEAD others begin before it has ended.

    Here and in `ask_startable_of` that limit is applied, for every kind of run; the DAGs that have a free place are
    locked, so that two schedulers cannot both use the last one. No DAG waits for another one: each is asked for as many
    runs as it has places.
    """
    locked = connection.execute(_WITH_QUEUED, {"now": now})
    # after the lock: what others have started meanwhile counts
    counted = connection.execute(_RUNNING_OF_QUEUED, {"now": now})
    dags = locked.all()
    if not dags:
        return []
    active: dict[str, tuple[int, int | None]] = {row[0]: (row[1] - row[2], row[3]) for row in counted}
    asked: list[tuple[Any, int | None]] = []
    for dag in dags:
        running, released = active.get(dag.dag_id, (0, None))
        places = dag.max_active_runs - running
        if places <= 0:
            continue
        asked.append((connection.execute(_OLDEST_QUEUED, {"dag": dag.dag_id, "now": now, "most": places}), released))
    return [row for oldest, released in asked for row in _within_reach(oldest, released)]


def ask_startable_of(connection: Connection, dag_id: str, now: datetime) -> Callable[[], list[Row[Any]] | None]:
    """Like `startable`, of one DAG, for a transaction that holds other rows already: it waits for none. Call what is
    returned for the answer; None when the DAG is paused, gone, locked by another transaction (which may start some), or
    has more places than are looked at here.
    """
    locked = connection.execute(_LOCKED_IF_FREE, {"dag": dag_id})
    counted = connection.execute(_RUNNING_OF_DAG, {"dag": dag_id})
    oldest = connection.execute(_OLDEST_IF_FREE, {"dag": dag_id, "now": now, "most": _FEW})

    def answer() -> list[Row[Any]] | None:
        dag, running = locked.one_or_none(), counted.one_or_none()
        if dag is None:
            return None
        _, active, of_released, released = running or (dag_id, 0, 0, None)
        places = dag.max_active_runs - (active - of_released)
        if places > _FEW:
            return None
        return _within_reach(oldest.all()[: max(places, 0)], released)

    return answer


def _within_reach(runs: Iterable[Row[Any]], released: int | None) -> list[Row[Any]]:
    """The runs that are not too far ahead of the oldest one that was released."""
    return [row for row in runs if released is None or row.number - released <= MOST_AHEAD]


def _queued(run: Any) -> tuple[ColumnElement[bool], ...]:
    return (
        run.c.state == literal_column(f"'{DagRunState.QUEUED.value}'"),
        # one that was due when it was queued stays due when the clock is set back
        or_(run.c.run_after <= bindparam("now"), run.c.run_after <= run.c.queued_at),
    )


_QUEUED = _queued(RUN)
_ACTIVE = RUN.alias("active")
_PLACES_IN_USE = (
    select(func.count() - func.count(_ACTIVE.c.released_at))
    .where(_ACTIVE.c.state == DagRunState.RUNNING, _ACTIVE.c.dag_id == DAG.c.dag_id)
    .scalar_subquery()
)
# one without a free place is not locked: the transaction that gives one back looks afterwards for what may start
_WITH_QUEUED = (
    select(DAG.c.dag_id, DAG.c.max_active_runs)
    .where(
        DAG.c.is_paused.is_(False),
        DAG.c.dag_id.in_(select(RUN.c.dag_id).where(*_QUEUED)),
        DAG.c.max_active_runs > _PLACES_IN_USE,
    )
    .order_by(DAG.c.dag_id)
    .with_for_update()
)
_RUNNING = (
    select(
        RUN.c.dag_id,
        func.count(),
        func.count(RUN.c.released_at),
        func.min(case((RUN.c.released_at.is_not(None), RUN.c.number))),
    )
    .where(RUN.c.state == DagRunState.RUNNING)
    .group_by(RUN.c.dag_id)
)
_RUNNING_OF_DAG = _RUNNING.where(RUN.c.dag_id == bindparam("dag"))
_RUNNING_OF = _RUNNING.where(RUN.c.dag_id.in_(bindparam("dags", expanding=True)))
_WAITING = RUN.alias("waiting")
_RUNNING_OF_QUEUED = _RUNNING.where(RUN.c.dag_id.in_(select(_WAITING.c.dag_id).where(*_queued(_WAITING))))
_HAS_TASKS = exists().where(TASK.c.dag_run_id == RUN.c.id).label("has_tasks")
#: columns of runs that may start
STARTABLE = (*BRIEF, _HAS_TASKS)
_OLDEST_UNLOCKED = select(*STARTABLE).where(*_QUEUED).order_by(RUN.c.number).limit(bindparam("most"))
_OLDEST = _OLDEST_UNLOCKED.with_for_update(of=RUN)
_OLDEST_QUEUED = _OLDEST.where(RUN.c.dag_id == bindparam("dag"))
_OLDEST_IF_FREE = _OLDEST_UNLOCKED.where(RUN.c.dag_id == bindparam("dag")).with_for_update(of=RUN, skip_locked=True)
_LOCKED_IF_FREE = (
    select(DAG.c.max_active_runs)
    .where(DAG.c.dag_id == bindparam("dag"), DAG.c.is_paused.is_(False))
    .with_for_update(skip_locked=True)
)
#: so many are asked for before it is known how many may start
_FEW = 4


def waits_for_free_slot(connection: Connection, run: Any, now: datetime) -> bool:
    """Could this run start, if only one of its DAG that runs gave its place back?"""
    if run.state != DagRunState.QUEUED or run.run_after > now:
        return False
    dag = connection.execute(_LIMIT, {"dag": run.dag_id}).one()
    counted = connection.execute(_RUNNING_OF, {"dags": [run.dag_id]}).one_or_none()
    return not dag.is_paused and counted is not None and counted[1] - counted[2] >= dag.max_active_runs


_LIMIT = select(DAG.c.is_paused, DAG.c.max_active_runs).where(DAG.c.dag_id == bindparam("dag"))
