"""What people ask: what runs, what waits, what failed last. Read only, and nothing is locked."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, func, select

from trainflow.metadata.attempt_queries import ATTEMPT
from trainflow.metadata.dag_queries import DAG, PROBLEM, VERSION
from trainflow.metadata.outbox_queries import OUTBOX
from trainflow.metadata.run_queries import RUN
from trainflow.metadata.scheduled_queries import Candidate
from trainflow.metadata.task_queries import TASK
from trainflow.states import EXECUTION_STATES, RUN_FINISHED, TaskInstanceState

_SHOWN = (
    *("id", "task_id", "state", "started_at", "ended_at", "retry_at"),
    *("failures", "max_tries", "progress", "note", "problem", "attempt_id"),
)


def dags(connection: Connection, *, path: str | None = None, dag_id: str | None = None) -> list[Row[Any]]:
    """DAGs with their current document, of one file or one id or all that some file defines."""
    statement = (
        select(DAG, VERSION.c.document)
        .join(VERSION, VERSION.c.id == DAG.c.version_id)
        .order_by(DAG.c.path, DAG.c.dag_id)
    )
    if dag_id is not None:
        return list(connection.execute(statement.where(DAG.c.dag_id == dag_id)))
    if path is not None:
        statement = statement.where(DAG.c.path == path)
    return list(connection.execute(statement.where(DAG.c.missing_since.is_(None))))


def problem_of(connection: Connection, path: str) -> str | None:
    """Why a file gives no DAG now."""
    return connection.execute(select(PROBLEM.c.message).where(PROBLEM.c.path == path)).scalar()


def last_finished(connection: Connection, dag_id: str) -> Row[Any] | None:
    """The run that ended last."""
    return connection.execute(
        select(RUN)
        .where(RUN.c.dag_id == dag_id, RUN.c.state.in_(sorted(RUN_FINISHED)))
        .order_by(RUN.c.ended_at.desc(), RUN.c.number.desc())
        .limit(1)
    ).one_or_none()


def tasks_of(connection: Connection, dag_run_id: int) -> list[Row[Any]]:
    """Every task instance of a run, as far as people want to know."""
    return list(
        connection.execute(
            select(*(TASK.c[name] for name in _SHOWN)).where(TASK.c.dag_run_id == dag_run_id).order_by(TASK.c.id)
        )
    )


def last_failure(connection: Connection, dag_id: str) -> Row[Any] | None:
    """(run_id, task_id, ended_at, outcome, problem) of the attempt that failed or was lost last, where no later attempt
    of its task has ended well."""
    rows: list[Any] = list(
        connection.execute(
            select(RUN.c.run_id, TASK.c.task_id, ATTEMPT.c.ended_at, ATTEMPT.c.outcome, ATTEMPT.c.problem)
            .select_from(ATTEMPT)
            .join(TASK, TASK.c.id == ATTEMPT.c.task_instance_id)
            .join(RUN, RUN.c.id == TASK.c.dag_run_id)
            .where(
                RUN.c.dag_id == dag_id,
                ATTEMPT.c.outcome.in_(["failed", "lost"]),
                TASK.c.state.is_distinct_from(TaskInstanceState.SUCCESS),
            )
            .order_by(ATTEMPT.c.ended_at.desc())
            .limit(1)
        )
    )
    return rows[0] if rows else None


def undelivered_by_dag(connection: Connection) -> dict[str, int]:
    """DAG → deliveries to the mirror that are still to be made."""
    rows = connection.execute(
        select(RUN.c.dag_id, func.count())
        .select_from(OUTBOX)
        .join(RUN, RUN.c.id == OUTBOX.c.dag_run_id)
        .where(OUTBOX.c.delivered_at.is_(None))
        .group_by(RUN.c.dag_id)
    )
    return {row[0]: row[1] for row in rows}


def scheduled(connection: Connection) -> list[Candidate]:
    """What could be queued, in queueing order."""
    columns = [(RUN if name in ("dag_id", "run_id", "version_id") else TASK).c[name] for name in Candidate._fields]
    return [
        Candidate._make(row)
        for row in connection.execute(
            select(*columns)
            .join(RUN, RUN.c.id == TASK.c.dag_run_id)
            .join(DAG, DAG.c.dag_id == RUN.c.dag_id)
            .where(TASK.c.state == TaskInstanceState.SCHEDULED, DAG.c.is_paused.is_(False))
            .order_by(TASK.c.resumed.desc(), TASK.c.priority_weight.desc(), TASK.c.scheduled_at, TASK.c.id)
        )
    ]


def count_in_flight(connection: Connection, dag_id: str, task_id: str) -> int:
    """How many instances of a task are in the hands of executors, over all runs of its DAG."""
    return connection.execute(
        select(func.count())
        .select_from(TASK)
        .join(RUN, RUN.c.id == TASK.c.dag_run_id)
        .where(RUN.c.dag_id == dag_id, TASK.c.task_id == task_id, TASK.c.state.in_(sorted(EXECUTION_STATES)))
    ).scalar_one()
