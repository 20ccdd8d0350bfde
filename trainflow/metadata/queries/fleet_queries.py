"""What waits and what runs, counted over all DAGs, and what is drained, for those who look after the fleet."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, Select, delete, func, insert, select

from trainflow.metadata.models import DagRunTable, DagTable, DrainTable, TaskInstanceTable
from trainflow.metadata.queries.drain_queries import Drain, DrainKind
from trainflow.metadata.queries.task_queries import in_states
from trainflow.states import TaskInstanceState

TASK, RUN, DAG, DRAIN = TaskInstanceTable.table, DagRunTable.table, DagTable.table, DrainTable.table
_T = TaskInstanceState


class WorkCount(NamedTuple):
    """The number of task instances of a DAG in a state, for an executor, on a queue, held by a scheduler."""

    dag_id: str
    executor: str
    queue: str
    state: str
    service_id: int | None
    tasks: int


class Work:
    """What waits for a slot, was handed over, runs."""

    def __init__(self, counts: list[WorkCount]) -> None:
        self.counts = counts

    def count(self, **wanted: str) -> int:
        """How many task instances are like this."""
        return sum(
            each.tasks for each in self.counts if all(getattr(each, name) == value for name, value in wanted.items())
        )

    def held_by(self, service_id: int, executors: Collection[str]) -> int:
        """How many of these executors a scheduler has in hand."""
        held = (each for each in self.counts if each.service_id == service_id and each.state != _T.SCHEDULED)
        return sum(each.tasks for each in held if each.executor in executors)


def work(connection: Connection, default_executor: str) -> Work:
    """What is to be done and is being done. `default_executor`: that of tasks that name none."""
    return Work(
        [
            WorkCount(
                row.dag_id,
                row.executor or default_executor,
                row.queue,
                row.state,
                row.service_id if row.state != _T.SCHEDULED else None,
                row.tasks,
            )
            for row in connection.execute(_WORK)
        ]
    )


_KEYS = (RUN.c.dag_id, TASK.c.executor, TASK.c.queue, TASK.c.state, TASK.c.service_id)
_WORK = (
    select(*_KEYS, func.count().label("tasks"))
    .join(RUN, RUN.c.id == TASK.c.dag_run_id)
    .where(in_states({_T.SCHEDULED, _T.QUEUED, _T.RUNNING}))
    .group_by(*_KEYS)
)


def oldest_waiting(connection: Connection) -> Row[Any] | None:
    """The task instance that could run, and has waited longest for a slot or a worker."""
    found: Row[Any] | None = connection.execute(_OLDEST).first()
    return found


_OF_TASK = ("id", "task_id", "state", "executor", "queue", "scheduled_at", "queued_at", "note")
_OLDEST: Select[Any] = (
    select(*(TASK.c[name] for name in _OF_TASK), RUN.c.dag_id, RUN.c.run_id, DAG.c.is_paused)
    .join(RUN, RUN.c.id == TASK.c.dag_run_id)
    .join(DAG, DAG.c.dag_id == RUN.c.dag_id)
    .where(in_states({_T.SCHEDULED, _T.QUEUED}))
    .order_by(TASK.c.scheduled_at, TASK.c.id)
    .limit(1)
)


def drain(connection: Connection, drained: Drain) -> None:
    """Drain something; said again, it has the new note and time."""
    undrain(connection, drained.kind, drained.name)
    connection.execute(insert(DRAIN).values(**drained._asdict()))


def undrain(connection: Connection, kind: DrainKind, name: str) -> bool:
    """Let it take what comes again; whether it was drained."""
    return connection.execute(delete(DRAIN).where(DRAIN.c.kind == kind, DRAIN.c.name == name)).rowcount > 0
