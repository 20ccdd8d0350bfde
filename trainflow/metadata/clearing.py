"""End or forget what task instances do, whichever process holds them: reports that come later are stale."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, select

from trainflow.metadata import attempt_queries, task_queries, xcom_queries
from trainflow.metadata.task_queries import TASK, State
from trainflow.states import EXECUTION_STATES, TASK_MOVES, UNFINISHED, TaskInstanceState


def cancel(connection: Connection, dag_run_id: int, now: datetime, problem: str) -> None:
    """End what has not ended: what an executor holds fails (its report will be stale), the rest is skipped."""
    rows = task_queries.unfinished(connection, dag_run_id, lock=True)
    ids = [row.id for row in rows]
    attempt_queries.end_of_tasks(connection, ids, outcome="cancelled", now=now)
    waiting: set[State] = {None, *(UNFINISHED - EXECUTION_STATES)}
    task_queries.move_all(connection, ids, leaving=waiting, to=TaskInstanceState.SKIPPED, ended_at=now, retry_at=None)
    task_queries.move_all(
        connection, ids, leaving=EXECUTION_STATES, to=TaskInstanceState.FAILED, ended_at=now, problem=problem
    )


def clear(connection: Connection, ids: Sequence[int], now: datetime) -> int:
    """Forget that these task instances ran: no state, no failures, no XComs, as if new. Returns how many.

    What an executor still holds is cleared as well: its report will be stale.
    """
    if not ids:
        return 0
    attempt_queries.end_of_tasks(connection, ids, outcome="cleared", now=now)
    leaving: list[State] = [state for state, targets in TASK_MOVES.items() if None in targets]
    running = [TaskInstanceState.RUNNING]
    blank = {
        "failures": 0,
        "lost": 0,
        "attempt_id": None,
        "deferral_number": 0,
        "reschedules": 0,
        "scheduled_at": None,
        "queued_at": None,
        "started_at": None,
        "ended_at": None,
        "retry_at": None,
        "pid": None,
        "resumed": False,
        "next_method": None,
        "next_kwargs": None,
        "progress": None,
        "problem": None,
        "note": None,
        "service_id": None,
        "cleared_at": now,
        "saved_rows": None,
        "credited_rows": None,
    }
    # a running one goes through scheduled: the same road as one that infrastructure lost
    task_queries.move_all(connection, ids, leaving=running, to=TaskInstanceState.SCHEDULED)
    moved = task_queries.move_all(connection, ids, leaving=leaving, to=None, **blank)
    rows = connection.execute(select(TASK.c.dag_run_id, TASK.c.task_id, TASK.c.map_index).where(TASK.c.id.in_(ids)))
    for row in rows.all():
        xcom_queries.forget(connection, row.dag_run_id, row.task_id, row.map_index)
    return moved
