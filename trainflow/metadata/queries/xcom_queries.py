"""XComs: values between tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, Select, and_, bindparam, delete, func, insert, select

from trainflow.messages.execution_api import HandedXCom, XComItem
from trainflow.messages.workload import AttemptKey
from trainflow.metadata.models import DagRunTable, TaskInstanceTable, XComTable
from trainflow.states import TaskInstanceState

XCOM = XComTable.table
RUN = DagRunTable.table
TASK = TaskInstanceTable.table
#: of how many bytes a value is sent along with the claim of a task that may want it, and how many values are
MOST_HANDED_BYTES = 4_096
MOST_HANDED = 8


def put(
    connection: Connection, dag_run_id: int, task_id: str, map_index: int, items: Sequence[XComItem], now: datetime
) -> None:
    """Keep what a task hands over; a key that was there is replaced."""
    if not items:
        return
    connection.execute(
        _DELETE, {"run": dag_run_id, "task": task_id, "index": map_index, "keys": [item.key for item in items]}
    )
    connection.execute(
        _INSERT,
        [
            {
                "dag_run_id": dag_run_id,
                "task_id": task_id,
                "map_index": map_index,
                "key": item.key,
                "value": bytes(item.value).decode(),
                "created_at": now,
            }
            for item in items
        ],
    )


_DELETE = delete(XCOM).where(
    XCOM.c.dag_run_id == bindparam("run"),
    XCOM.c.task_id == bindparam("task"),
    XCOM.c.map_index == bindparam("index"),
    XCOM.c.key.in_(bindparam("keys", expanding=True)),
)
_INSERT = insert(XCOM)


def forget(connection: Connection, dag_run_id: int, task_id: str, map_index: int) -> None:
    """Forget what a task handed over."""
    connection.execute(_FORGET, {"run": dag_run_id, "task": task_id, "index": map_index})


_FORGET = delete(XCOM).where(
    XCOM.c.dag_run_id == bindparam("run"),
    XCOM.c.task_id == bindparam("task"),
    XCOM.c.map_index == bindparam("index"),
)


def values(
    connection: Connection,
    dag_id: str,
    run_id: str,
    *,
    task_ids: Sequence[str] | None,
    key: str,
    map_index: int | None = -1,
) -> dict[str, msgspec.Raw]:
    """Task id → JSON, for the tasks that have a value under `key`, in the order asked for."""
    bound: dict[str, Any] = {"dag": dag_id, "run": run_id, "key": key}
    if map_index is not None:
        bound["index"] = map_index
    if task_ids is not None:
        bound["tasks"] = list(task_ids)
    statement = _values_statement(map_index is not None, task_ids is not None)
    found = {task_id: msgspec.Raw(value.encode()) for task_id, value in connection.execute(statement, bound)}
    return {task_id: found[task_id] for task_id in (task_ids or found) if task_id in found}


@lru_cache(maxsize=4)
def _values_statement(one_index: bool, some_tasks: bool) -> Select[Any]:
    statement = (
        select(XCOM.c.task_id, XCOM.c.value)
        .join(RUN, RUN.c.id == XCOM.c.dag_run_id)
        .where(RUN.c.dag_id == bindparam("dag"), RUN.c.run_id == bindparam("run"), XCOM.c.key == bindparam("key"))
        .order_by(XCOM.c.created_at)
    )
    if one_index:
        statement = statement.where(XCOM.c.map_index == bindparam("index"))
    if some_tasks:
        statement = statement.where(XCOM.c.task_id.in_(bindparam("tasks", expanding=True)))
    return statement


def ask_handed(connection: Connection, key: AttemptKey) -> Callable[[], list[HandedXCom]]:
    """The newest small values that tasks of an attempt's run have handed over which have succeeded: only another
    clearing changes those. Call what is returned for them."""
    asked = connection.execute(_HANDED, {"attempt": key.attempt_id})
    return lambda: [HandedXCom(task_id, name, msgspec.Raw(value.encode())) for task_id, name, value in asked.all()]


_HOLDER = TASK.alias("holder")
# the run first, as a value: a database without statistics (PostgreSQL, after a restore) joins all there ever was
_RUN_OF_ATTEMPT = select(_HOLDER.c.dag_run_id).where(_HOLDER.c.attempt_id == bindparam("attempt")).limit(1)
_HANDED = (
    select(XCOM.c.task_id, XCOM.c.key, XCOM.c.value)
    .join(
        TASK,
        and_(
            TASK.c.dag_run_id == XCOM.c.dag_run_id,
            TASK.c.task_id == XCOM.c.task_id,
            TASK.c.map_index == XCOM.c.map_index,
        ),
    )
    .where(
        XCOM.c.dag_run_id == _RUN_OF_ATTEMPT.scalar_subquery(),
        XCOM.c.map_index == -1,
        TASK.c.state == TaskInstanceState.SUCCESS,
        func.length(XCOM.c.value) <= MOST_HANDED_BYTES,
    )
    .order_by(XCOM.c.created_at.desc())
    .limit(MOST_HANDED)
)


def prior_values(
    connection: Connection, dag_id: str, before_run_id: str, *, task_ids: Sequence[str], key: str
) -> dict[str, msgspec.Raw]:
    """Like `values`, looking through the run and all earlier ones of its DAG: the newest value of each task."""
    given = {"dag": dag_id, "run": before_run_id, "key": key}
    found = {task_id: connection.execute(_NEWEST_BEFORE, {**given, "task": task_id}).scalar() for task_id in task_ids}
    return {task_id: msgspec.Raw(value.encode()) for task_id, value in found.items() if value is not None}


# from the run back to the first that has one, and not all that its DAG ever handed over
_NUMBER = select(RUN.c.number).where(RUN.c.dag_id == bindparam("dag"), RUN.c.run_id == bindparam("run"))
_NEWEST_BEFORE = (
    select(XCOM.c.value)
    .join(RUN, RUN.c.id == XCOM.c.dag_run_id)
    .where(RUN.c.dag_id == bindparam("dag"), RUN.c.number <= _NUMBER.scalar_subquery())
    .where(XCOM.c.key == bindparam("key"), XCOM.c.task_id == bindparam("task"))
    .order_by(RUN.c.number.desc())
    .limit(1)
)


def of_task(connection: Connection, dag_run_id: int, task_id: str) -> list[Row[Any]]:
    """What one task handed over, by key."""
    statement = select(XCOM).where(XCOM.c.dag_run_id == dag_run_id, XCOM.c.task_id == task_id)
    return list(connection.execute(statement.order_by(XCOM.c.key, XCOM.c.map_index)))


def of_run(connection: Connection, dag_run_id: int) -> dict[tuple[str, str], Any]:
    """(task id, key) → value, for a whole run."""
    rows = connection.execute(select(XCOM.c.task_id, XCOM.c.key, XCOM.c.value).where(XCOM.c.dag_run_id == dag_run_id))
    return {(task_id, key): msgspec.json.decode(value) for task_id, key, value in rows}
