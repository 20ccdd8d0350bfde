"""What is in the hands of executors, who looks after it, and what its attempts say of themselves."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, Select, bindparam, func, or_, select, update

from trainflow.messages.workload import AttemptKey
from trainflow.metadata.bound_parameters import in_parts
from trainflow.metadata.models import DagRunTable, TaskInstanceTable
from trainflow.metadata.queries.task_queries import OF_ATTEMPT, in_states, parameters_of
from trainflow.states import EXECUTION_STATES, TaskInstanceState

TASK = TaskInstanceTable.table
RUN = DagRunTable.table


class InFlightTask(NamedTuple):
    """A task instance in the hands of an executor."""

    id: int
    dag_run_id: int
    task_id: str
    pool: str
    pool_slots: int
    service_id: int | None
    state: TaskInstanceState
    executor: str | None


def in_flight_tasks(connection: Connection) -> list[InFlightTask]:
    """Task instances in the hands of executors: what the limits are counted from."""
    return ask_in_flight_tasks(connection)()


def ask_in_flight_tasks(connection: Connection) -> Callable[[], list[InFlightTask]]:
    """Like `in_flight_tasks`: call what is returned for the answer."""
    asked = connection.execute(_HELD)
    return lambda: [InFlightTask._make(row) for row in asked]


_HELD = select(*(TASK.c[name] for name in InFlightTask._fields)).where(in_states(EXECUTION_STATES))


def count_in_flight(connection: Connection, dag_id: str, task_id: str) -> int:
    """How many instances of a task are in the hands of executors, over all runs of its DAG."""
    return int(connection.execute(_HELD_IN_DAG, {"dag": dag_id, "task": task_id}).scalar_one())


_HELD_IN_DAG = (
    select(func.count())
    .select_from(TASK.join(RUN, RUN.c.id == TASK.c.dag_run_id))
    .where(RUN.c.dag_id == bindparam("dag"), TASK.c.task_id == bindparam("task"), in_states(EXECUTION_STATES))
)


def deferred_pool_slots(connection: Connection, pools: Collection[str]) -> dict[str, int]:
    """Pool → slots of deferred task instances, for pools that count those."""
    rows = connection.execute(
        select(TASK.c.pool, TASK.c.pool_slots).where(
            TASK.c.state == TaskInstanceState.DEFERRED, TASK.c.pool.in_(list(pools))
        )
    )
    slots: dict[str, int] = {}
    for pool, count in rows:
        slots[pool] = slots.get(pool, 0) + count
    return slots


def in_flight_of_services(connection: Connection, service_ids: Collection[int]) -> list[Row[Any]]:
    """What the executors of these services hold, with pid and attempt."""
    return list(connection.execute(_HELD_BY, {"services": list(service_ids)}))


def queued_of_service(connection: Connection, service_id: int) -> list[Row[Any]]:
    """What a scheduler has handed over and no worker has begun: its attempt, executor, queue and DAG."""
    return list(connection.execute(_QUEUED_OF, {"service": service_id}))


_QUEUED_OF = (
    select(TASK.c.attempt_id, TASK.c.deferral_number, TASK.c.executor, TASK.c.queue, RUN.c.dag_id)
    .join(RUN, RUN.c.id == TASK.c.dag_run_id)
    .where(in_states({TaskInstanceState.QUEUED}), TASK.c.service_id == bindparam("service"))
)


def take_over(connection: Connection, service_ids: Collection[int], service_id: int) -> list[Row[Any]]:
    """Make what the executors of `service_ids` hold the business of `service_id`; returns those rows.

    What another scheduler is just taking over is left to it.
    """
    rows = list(connection.execute(_HELD_BY_LOCKED, {"services": list(service_ids)}))
    for part in in_parts(row.id for row in rows):
        connection.execute(update(TASK).where(TASK.c.id.in_(part)).values(service_id=service_id))
    return rows


_OF_PROCESS = ("attempt_id", "deferral_number", "pid", "process_started", "hostname", "service_id", "executor")
_HELD_BY: Select[Any] = select(
    *(TASK.c[name] for name in ("id", "dag_run_id", "task_id", "state", *_OF_PROCESS)),
).where(in_states(EXECUTION_STATES), TASK.c.service_id.in_(bindparam("services", expanding=True)))
_HELD_BY_LOCKED = _HELD_BY.with_for_update(skip_locked=True)


def heartbeat(connection: Connection, service_id: int, now: datetime) -> None:
    """Say for everything an executor holds that it is looked after. One statement, no locks held."""
    connection.execute(_HEARTBEAT, {"service": service_id, "b_now": now})


_HEARTBEAT = (
    update(TASK)
    .where(TASK.c.service_id == bindparam("service"), in_states(EXECUTION_STATES))
    .values(heartbeat_at=bindparam("b_now", type_=TASK.c.heartbeat_at.type))
)


def note_process(connection: Connection, key: AttemptKey, pid: int, process_started: float) -> None:
    """Say in which process of its host a running attempt is."""
    connection.execute(_PROCESS, {**parameters_of(key), "b_pid": pid, "b_started": process_started})


_PROCESS = (
    update(TASK)
    .where(*OF_ATTEMPT, in_states({TaskInstanceState.RUNNING}))
    .values(pid=bindparam("b_pid"), process_started=bindparam("b_started"))
)


def note_queued(connection: Connection, key: AttemptKey, note: str | None) -> None:
    """Say what an attempt waits for that is queued."""
    connection.execute(_NOTE_QUEUED, parameters_of(key) | {"b_note": note})


_NOTE_QUEUED = (
    update(TASK)
    .where(*OF_ATTEMPT, TASK.c.state == TaskInstanceState.QUEUED)
    .values(note=bindparam("b_note", type_=TASK.c.note.type))
)


def by_key(connection: Connection, key: AttemptKey) -> Any | None:
    """The task instance that this attempt holds or held, with its run; None when the attempt is stale."""
    return ask_by_key(connection, key)()


def ask_by_key(connection: Connection, key: AttemptKey) -> Callable[[], Any | None]:
    """Like `by_key`: call what is returned for the answer. What is asked in between goes along to the server."""
    asked = connection.execute(_BY_KEY, parameters_of(key))
    return asked.one_or_none


_HELD_COLUMNS = (
    *("id", "dag_run_id", "task_id", "map_index", "state", "failures", "max_tries", "lost", "reschedules"),
    *("scheduled_at", "started_at", "pid", "process_started", "hostname", "next_method", "next_kwargs", "cleared_at"),
    *("saved_rows", "credited_rows"),
)
_BY_KEY = (
    select(
        *(TASK.c[name] for name in _HELD_COLUMNS),
        # an earlier attempt did not end well: it may have left XComs
        TASK.c.problem.is_not(None).label("had_problem"),
        RUN.c.dag_id,
        RUN.c.run_id,
        RUN.c.version_id,
        RUN.c.root_id,
    )
    .join(RUN, RUN.c.id == TASK.c.dag_run_id)
    .where(*OF_ATTEMPT)
)


def attempt_holder(connection: Connection, key: AttemptKey) -> Any | None:
    """(id, dag_run_id) of the task instance that this attempt holds; None when it holds none. Reads nothing else."""
    return connection.execute(_HOLDER, parameters_of(key)).one_or_none()


_HOLDER = select(TASK.c.id, TASK.c.dag_run_id).where(*OF_ATTEMPT, in_states(EXECUTION_STATES))


def held(connection: Connection, keys: Collection[AttemptKey]) -> set[AttemptKey]:
    """Attempts of these that hold a task instance, of any scheduler."""
    found: set[AttemptKey] = set()
    for part in in_parts(sorted({key.attempt_id for key in keys})):
        found.update(AttemptKey(*row) for row in connection.execute(_KEYS_HELD, {"attempts": part}))
    return found & set(keys)


_KEYS_HELD = select(TASK.c.attempt_id, TASK.c.deferral_number).where(
    TASK.c.attempt_id.in_(bindparam("attempts", expanding=True)), in_states(EXECUTION_STATES)
)


def update_progress(connection: Connection, key: AttemptKey, *, progress: dict[str, Any], now: datetime) -> bool:
    """Show how far a running attempt is. False: it is stale, and nothing was changed."""
    given = {**parameters_of(key), "b_progress": progress, "b_now": now}
    return connection.execute(_UPDATE_PROGRESS, given).rowcount == 1


_UPDATE_PROGRESS = (
    update(TASK)
    .where(*OF_ATTEMPT, in_states({TaskInstanceState.RUNNING}))
    .values(
        progress=bindparam("b_progress", type_=TASK.c.progress.type),
        heartbeat_at=bindparam("b_now", type_=TASK.c.heartbeat_at.type),
    )
)


def update_saved_rows(connection: Connection, key: AttemptKey, rows: int) -> bool:
    """Remember how much of its split a running attempt has saved, where that is more than before; returns whether."""
    return connection.execute(_UPDATE_SAVED_ROWS, {**parameters_of(key), "b_rows": rows}).rowcount == 1


_UPDATE_SAVED_ROWS = (
    update(TASK)
    .where(
        *OF_ATTEMPT,
        in_states({TaskInstanceState.RUNNING}),
        or_(TASK.c.saved_rows.is_(None), TASK.c.saved_rows < bindparam("b_rows")),
    )
    .values(saved_rows=bindparam("b_rows"))
)
