"""Why a run of a chain failed, for the notice that says so."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, func, select

from trainflow.messages.notice import XCOM_STOPPED
from trainflow.metadata.run_queries import RUN
from trainflow.metadata.task_queries import TASK
from trainflow.metadata.xcom_queries import XCOM
from trainflow.states import DagRunState, TaskInstanceState


class FirstFailure(NamedTuple):
    """The task of a run that failed first. `told`: what it pushed about it, if it did."""

    task_id: str
    problem: str
    told: dict[str, Any] | None


def first_failure(connection: Connection, dag_run_id: int) -> FirstFailure | None:
    """The first task of a run that failed; None when none did (the run timed out, say)."""
    row = connection.execute(
        select(TASK.c.task_id, TASK.c.problem)
        .where(TASK.c.dag_run_id == dag_run_id, TASK.c.state == TaskInstanceState.FAILED)
        .order_by(TASK.c.ended_at, TASK.c.id)
        .limit(1)
    ).one_or_none()
    if row is None:
        return None
    pushed = connection.execute(
        select(XCOM.c.value).where(
            XCOM.c.dag_run_id == dag_run_id, XCOM.c.task_id == row.task_id, XCOM.c.key == XCOM_STOPPED
        )
    ).scalar()
    told = None if pushed is None else msgspec.json.decode(pushed)
    return FirstFailure(row.task_id, row.problem or "", told if isinstance(told, dict) else None)


def last_success(connection: Connection, dag_id: str, before: int) -> int:
    """The number of the newest run of a DAG, before number `before`, that succeeded; 0: none did."""
    return int(
        connection.execute(
            select(func.coalesce(func.max(RUN.c.number), 0)).where(
                RUN.c.dag_id == dag_id, RUN.c.number < before, RUN.c.state == DagRunState.SUCCESS
            )
        ).scalar_one()
    )
