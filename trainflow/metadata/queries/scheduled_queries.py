"""The SQL that picks what is queued next: scheduled task instances, in order, locked against other schedulers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, bindparam, exists, or_, select

from trainflow.metadata.models import DagRunTable, DagTable, TaskInstanceTable
from trainflow.metadata.queries.task_queries import in_states
from trainflow.states import TaskInstanceState

TASK = TaskInstanceTable.table
RUN = DagRunTable.table
DAG = DagTable.table
#: in which scheduled task instances are queued: see `ask_and_lock_scheduled`
QUEUEING_ORDER = (TASK.c.resumed.desc(), TASK.c.priority_weight.desc(), TASK.c.scheduled_at, TASK.c.id)


class Candidate(NamedTuple):
    """A scheduled task instance that may be queued."""

    id: int
    dag_run_id: int
    task_id: str
    map_index: int
    pool: str
    pool_slots: int
    priority_weight: int
    queue: str
    #: None: the one of tasks that name none
    executor: str | None
    attempt_id: str | None
    deferral_number: int
    failures: int
    next_method: str | None
    dag_id: str
    run_id: str
    version_id: int
    clear_number: int
    traceparent: str | None
    scheduled_at: datetime


#: what of a candidate is its run's
OF_RUN = ("dag_id", "run_id", "version_id", "clear_number", "traceparent")


def ask_and_lock_scheduled(
    connection: Connection,
    *,
    limit: int,
    without_executors: Iterable[str | None] = (),
    without_pools: Iterable[str] = (),
    without_runs: Iterable[int] = (),
    without_ids: Iterable[int] = (),
) -> Callable[[], list[Candidate]]:
    """The next `limit` scheduled task instances in queueing order, outside of executors, pools and runs that are full;
    an executor of None are the tasks that name none. Call what is returned for the answer.

    Those that resume after a wait go first: they have waited already, and hold what they waited for. Of one priority,
    who has been ready for longest goes first: by the age of their runs, old runs with many tasks would keep a young one
    waiting until they end. Rows that another scheduler is looking at are passed over.
    """
    statement = _SCHEDULED
    if executors := set(without_executors):
        named = TASK.c.executor.not_in(sorted(name for name in executors if name is not None))
        statement = statement.where(named if None in executors else or_(TASK.c.executor.is_(None), named))
    if pools := list(without_pools):
        statement = statement.where(TASK.c.pool.not_in(pools))
    if runs := list(without_runs):
        statement = statement.where(TASK.c.dag_run_id.not_in(runs))
    if ids := list(without_ids):
        statement = statement.where(TASK.c.id.not_in(ids))
    asked = connection.execute(statement, {"most": limit})
    return lambda: [Candidate._make(row) for row in asked]


def scheduled(connection: Connection) -> list[Candidate]:
    """What could be queued, in queueing order."""
    columns = [(RUN if name in OF_RUN else TASK).c[name] for name in Candidate._fields]
    rows = connection.execute(
        select(*columns)
        .join(RUN, RUN.c.id == TASK.c.dag_run_id)
        .join(DAG, DAG.c.dag_id == RUN.c.dag_id)
        .where(TASK.c.state == TaskInstanceState.SCHEDULED, DAG.c.is_paused.is_(False))
        .order_by(*QUEUEING_ORDER)
    )
    return [Candidate._make(row) for row in rows]


def _of_run(column: ColumnElement[Any]) -> ColumnElement[Any]:
    # a sub-query is not locked. A join is, on MariaDB, which has no FOR UPDATE OF: whatever happens to a run or a DAG
    # would have its tasks passed over, and would wait for them
    return select(column).where(RUN.c.id == TASK.c.dag_run_id).scalar_subquery().label(column.key)


_SCHEDULED = (
    select(*(_of_run(RUN.c[name]) if name in OF_RUN else TASK.c[name] for name in Candidate._fields))
    .where(
        in_states({TaskInstanceState.SCHEDULED}),
        exists().where(RUN.c.id == TASK.c.dag_run_id, DAG.c.dag_id == RUN.c.dag_id, DAG.c.is_paused.is_(False)),
    )
    .order_by(*QUEUEING_ORDER)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True)
)
