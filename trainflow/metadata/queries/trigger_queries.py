"""Waits: handed over, watched, ended."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, bindparam, delete, insert, or_, select, type_coerce, update

from trainflow.bounds import check_nesting
from trainflow.messages.execution_api import Deferral
from trainflow.messages.workload import AttemptKey
from trainflow.metadata.bound_parameters import in_parts
from trainflow.metadata.column_types import LongText
from trainflow.metadata.models import TaskInstanceTable, TriggerTable
from trainflow.metadata.queries import task_queries
from trainflow.states import TaskInstanceState

TRIGGER = TriggerTable.table
TASK = TaskInstanceTable.table

#: the method a task resumes in when its wait failed: the runner raises instead of calling the operator
FAIL_METHOD = "__fail__"
#: the method a task resumes in when its wait could not be taken up: the runner calls the operator anew
START_OVER_METHOD = "__start_over__"


def add(connection: Connection, task: Any, key: AttemptKey, deferral: Deferral, now: datetime) -> None:
    """Hand a wait to the triggerer. `task`: the row of its task instance before, as `in_flight.by_key` gives it."""
    connection.execute(_REPLACE, {"task": task.id})
    started_over = task.next_method == START_OVER_METHOD
    connection.execute(
        _ADD,
        {
            "task_instance_id": task.id,
            "attempt_id": key.attempt_id,
            "deferral_number": key.deferral_number,
            "trigger_class": deferral.trigger_class,
            "kwargs": deferral.trigger_kwargs,
            "deadline": deferral.ends_at(now),
            "created_at": now,
            "start_overs": task.next_kwargs["times"] if started_over else None,
        },
    )


_REPLACE = delete(TRIGGER).where(TRIGGER.c.task_instance_id == bindparam("task"))
_ADD = insert(TRIGGER)


def claim(connection: Connection, service_id: int, living: Collection[int], limit: int) -> list[Any]:
    """Take waits that no living triggerer watches, oldest first; their arguments are JSON that was not looked at."""
    rows = connection.execute(_UNWATCHED, {"living": list(living), "most": limit}).all()
    if rows:
        connection.execute(_WATCH, [{"trigger": row.id, "b_service": service_id} for row in rows])
    return list(rows)


WATCH_COLUMNS = (
    *(TRIGGER.c.id, TRIGGER.c.trigger_class, type_coerce(TRIGGER.c.kwargs, LongText()).label("kwargs")),
    *(TRIGGER.c.deadline, TRIGGER.c.created_at, TRIGGER.c.start_overs),
)
_UNWATCHED_BY = or_(TRIGGER.c.service_id.is_(None), TRIGGER.c.service_id.not_in(bindparam("living", expanding=True)))
_UNWATCHED = (
    select(*WATCH_COLUMNS)
    .where(_UNWATCHED_BY)
    .order_by(TRIGGER.c.id)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True)
)
_WATCH = update(TRIGGER).where(TRIGGER.c.id == bindparam("trigger")).values(service_id=bindparam("b_service"))


def watched_ids(connection: Connection, service_id: int) -> set[int]:
    """The waits this triggerer is to watch."""
    return set(connection.execute(_WATCHED, {"service": service_id}).scalars())


_WATCHED = select(TRIGGER.c.id).where(TRIGGER.c.service_id == bindparam("service"))


def watched(connection: Connection, ids: Collection[int]) -> list[Any]:
    """Rows of those of these waits that are still there, as `claim` gives them."""
    return [row for part in in_parts(ids) for row in connection.execute(_BY_IDS, {"ids": part})]


_BY_IDS = select(*WATCH_COLUMNS).where(TRIGGER.c.id.in_(bindparam("ids", expanding=True))).order_by(TRIGGER.c.id)


def release(connection: Connection, service_id: int) -> None:
    """Give waits back: the next triggerer takes them."""
    connection.execute(update(TRIGGER).where(TRIGGER.c.service_id == service_id).values(service_id=None))


def fire(
    connection: Connection, trigger_id: int, payload: msgspec.Raw, now: datetime, *, by: int | None = None
) -> int | None:
    """Move `deferred` → `scheduled` with the event (JSON). Returns the run, or None when no task waits any more, or
    when another triggerer watches the wait than the one that says so (`by`; None: it is not asked).

    Raises InputError, or what msgspec raises, for an event that later readers of the task could not read.
    """
    event = msgspec.json.decode(payload)
    check_nesting(event, "the event")
    row = _take(connection, trigger_id, by)
    if row is None:
        return None
    kwargs = {**msgspec.json.decode(row.next_kwargs or "{}"), "event": event}
    _resume(connection, row, now, next_method=row.next_method, next_kwargs=kwargs)
    return int(row.dag_run_id)


def fail(connection: Connection, trigger_id: int, message: str, now: datetime, *, by: int | None = None) -> int | None:
    """Move `deferred` → `scheduled`; the task resumes on a worker, where it fails with `message`. `by`: see `fire`."""
    row = _take(connection, trigger_id, by)
    if row is None:
        return None
    _resume(connection, row, now, next_method=FAIL_METHOD, next_kwargs={"error": message})
    return int(row.dag_run_id)


def start_over(connection: Connection, trigger_id: int, reason: str, now: datetime, *, by: int) -> int | None:
    """Move `deferred` → `scheduled`; the attempt begins anew on a worker, since its wait cannot be taken up. `by`: see
    `fire`."""
    row = _take(connection, trigger_id, by)
    if row is None:
        return None
    kwargs = {"reason": reason, "times": (row.start_overs or 0) + 1}
    _resume(connection, row, now, next_method=START_OVER_METHOD, next_kwargs=kwargs)
    return int(row.dag_run_id)


def start_overs(connection: Connection, trigger_id: int) -> int | None:
    """How often the task of a wait has started over before, one time after another; None: there is no such wait."""
    found = connection.execute(_START_OVERS, {"trigger": trigger_id}).one_or_none()
    return None if found is None else found.start_overs or 0


_START_OVERS = select(TRIGGER.c.start_overs).where(TRIGGER.c.id == bindparam("trigger"))


def _take(connection: Connection, trigger_id: int, by: int | None) -> Any | None:
    waiting, forget = (_WAITING, _FORGET) if by is None else (_WAITING_HERE, _FORGET_HERE)
    values = {"trigger": trigger_id} if by is None else {"trigger": trigger_id, "by": by}
    row = connection.execute(waiting, values).one_or_none()
    connection.execute(forget, values)
    return row


_WAITING = (
    select(
        TRIGGER.c.attempt_id,
        TRIGGER.c.deferral_number,
        TRIGGER.c.start_overs,
        TASK.c.id,
        TASK.c.dag_run_id,
        TASK.c.next_method,
        # as it is kept: a wait that fails does not need it, and another one's must not fail with it
        type_coerce(TASK.c.next_kwargs, LongText()).label("next_kwargs"),
    )
    .join(TASK, TASK.c.id == TRIGGER.c.task_instance_id)
    .where(
        TRIGGER.c.id == bindparam("trigger"),
        TASK.c.state == TaskInstanceState.DEFERRED,
        TASK.c.attempt_id == TRIGGER.c.attempt_id,
        TASK.c.deferral_number == TRIGGER.c.deferral_number,
    )
    # a clear or a cancel at this moment is waited for, and then no task waits for the event
    .with_for_update(of=TASK)
)
_FORGET = delete(TRIGGER).where(TRIGGER.c.id == bindparam("trigger"))
_WAITING_HERE, _FORGET_HERE = (each.where(TRIGGER.c.service_id == bindparam("by")) for each in (_WAITING, _FORGET))


def _resume(connection: Connection, row: Row[Any], now: datetime, **values: Any) -> None:
    # the number rises here: whatever still speaks for the stay before the wait is stale from now on
    task_queries.move(
        connection,
        row.id,
        leaving={TaskInstanceState.DEFERRED},
        to=TaskInstanceState.SCHEDULED,
        key=AttemptKey(row.attempt_id, row.deferral_number),
        deferral_number=row.deferral_number + 1,
        scheduled_at=now,
        resumed=True,
        **values,
    )


def of_task(connection: Connection, task_instance_id: int) -> Row[Any] | None:
    """The wait of a task instance, None when it has none."""
    return connection.execute(select(TRIGGER).where(TRIGGER.c.task_instance_id == task_instance_id)).one_or_none()


def fail_overdue(connection: Connection, living: Collection[int], message: str, now: datetime) -> list[int]:
    """End the waits whose deadline has passed and that no living triggerer watches: one that watches counts by itself.
    Returns them."""
    overdue = list(connection.execute(_OVERDUE, {"now": now, "living": list(living)}).scalars())
    for trigger_id in overdue:
        fail(connection, trigger_id, message, now)
    return overdue


_OVERDUE = select(TRIGGER.c.id).where(TRIGGER.c.deadline <= bindparam("now"), _UNWATCHED_BY)


def abandoned(connection: Connection) -> list[int]:
    """Waits of task instances that do not wait any more (cleared, cancelled, marked)."""
    return list(connection.execute(_ABANDONED).scalars())


_ABANDONED = (
    select(TRIGGER.c.id)
    .join(TASK, TASK.c.id == TRIGGER.c.task_instance_id)
    .where(
        or_(
            TASK.c.state != TaskInstanceState.DEFERRED,
            TASK.c.state.is_(None),
            TASK.c.attempt_id.is_(None),
            TASK.c.attempt_id != TRIGGER.c.attempt_id,
        )
    )
)


def forget(connection: Connection, ids: Collection[int]) -> None:
    """Drop waits that no task waits for."""
    if ids:
        connection.execute(delete(TRIGGER).where(TRIGGER.c.id.in_(list(ids))))
