"""Mark a task of a run by hand: as failed, or as done without having been done, so that what waits for it goes on."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, Row

from trainflow.errors import InputError, LostTransition
from trainflow.insight.runs.tasks import not_started
from trainflow.metadata.queries import attempt_queries, run_queries, task_queries
from trainflow.metadata.queries.dag_queries import Versions
from trainflow.serialization.document import DagDocument
from trainflow.states import AFTER_COMMIT, EXECUTION_STATES, FINISHED, RUN_FINISHED, TASK_MOVES, TaskInstanceState
from trainflow.workspace.names import check_tasks
from trainflow.workspace.workspace import Workspace

_T = TaskInstanceState
#: what a person may say of a task
MARKS = (_T.SUCCESS, _T.FAILED, _T.SKIPPED)


class MarkDone(msgspec.Struct, frozen=True, kw_only=True):
    """A task as it was marked, or would be. `cleared`: tasks behind it that had ended and run again."""

    dag_id: str
    run_id: str
    task_id: str
    state: str
    cleared: list[str]


def plan_mark(workspace: Workspace, dag_id: str, run_id: str, task_id: str, state: str) -> MarkDone:
    """What `mark_task` would do. Raises what it raises."""
    _check_mark(state)
    with workspace.database.reading() as connection:
        run = run_queries.get(connection, dag_id, run_id)
        return _planned(connection, run, task_id, _T(state))[1]


def possible_marks(workspace: Workspace, dag_id: str, run_id: str, task_id: str) -> list[str]:
    """What a task may be marked as now. Raises DagNotFound, DagRunNotFound, NotFound."""
    found = []
    with workspace.database.reading() as connection:
        run = run_queries.get(connection, dag_id, run_id)
        for state in MARKS:
            with suppress(InputError, LostTransition):
                _planned(connection, run, task_id, state)
                found.append(str(state))
    return found


def mark_task(
    workspace: Workspace, dag_id: str, run_id: str, task_id: str, state: str, now: datetime, *, note: str | None
) -> MarkDone:
    """Give a task another state. One that works on a chain is never marked as done: what its ledger does not have was
    not trained. One at work may be marked as failed only: it is told to stop.

    Raises DagNotFound, DagRunNotFound, NotFound, InputError; LostTransition where the task is in no state for it.
    """
    _check_mark(state)

    def work(connection: Connection) -> MarkDone:
        run = run_queries.get(connection, dag_id, run_id)
        row, planned = _planned(connection, run, task_id, _T(state))
        _move(connection, row, _T(state), now, note)
        if planned.cleared or (run.state in RUN_FINISHED and state != _T.FAILED):
            run_queries.clear(connection, run.id, now, set(planned.cleared))
        return planned

    done = workspace.database.write(work)
    workspace.wake_engine()
    return done


def _check_mark(state: str) -> None:
    if state not in MARKS:
        raise InputError(f"a task is marked as {', '.join(MARKS)}, not as '{state}'")


def _planned(
    connection: Connection, run: Row[Any], task_id: str, state: TaskInstanceState
) -> tuple[Row[Any], MarkDone]:
    """The row of a task, and what marking it would do."""
    document, _ = Versions().get(connection, run.version_id)
    row = _row(connection, run, document, task_id)
    _check(document, row, state)
    behind = _behind(connection, run, document, task_id) if state != _T.FAILED else set()
    return row, MarkDone(dag_id=run.dag_id, run_id=run.run_id, task_id=task_id, state=state, cleared=sorted(behind))


def _row(connection: Connection, run: Row[Any], document: DagDocument, task_id: str) -> Row[Any]:
    rows = {row.task_id: row for row in task_queries.rows_of_run(connection, run.id)}
    check_tasks([task_id], [task.task_id for task in document.tasks], f"run {run.run_id} of {run.dag_id}")
    if task_id not in rows:
        raise LostTransition(not_started(run))
    return rows[task_id]


def _check(document: DagDocument, row: Row[Any], state: TaskInstanceState) -> None:
    described = document.task(row.task_id)
    role = described.role if described else None
    if state != _T.FAILED and role not in (None, AFTER_COMMIT):
        raise InputError(
            f"task '{row.task_id}' works on a chain ({role}): it is never marked as {state}, what its ledger does not "
            "have was not trained. Clear it, or decide about the chain: resume, rewind"
        )
    if row.state in EXECUTION_STATES and state != _T.FAILED:
        raise LostTransition(f"task '{row.task_id}' is {row.state}: it can be marked as failed, or waited for")
    if row.state == state:
        raise LostTransition(f"task '{row.task_id}' is {state} already")
    if state not in TASK_MOVES[None if row.state is None else _T(row.state)]:
        raise LostTransition(f"task '{row.task_id}' is {row.state}: it is not marked as {state}")


def _behind(connection: Connection, run: Row[Any], document: DagDocument, task_id: str) -> set[str]:
    """Tasks that wait for it and have ended meanwhile."""
    states = task_queries.states_in_run(connection, run.id)
    downstream = document.with_downstream({task_id}) - {task_id}
    return {name for name in downstream if states.get(name) in FINISHED and states[name] != _T.SUCCESS}


def _move(connection: Connection, row: Row[Any], state: TaskInstanceState, now: datetime, note: str | None) -> None:
    task_queries.lock(connection, [row.id])
    attempt_queries.end_of_tasks(connection, [row.id], outcome="marked", now=now)
    # one at work is marked as failed wherever it is by now; of any other it was looked at whether it may be marked
    leaving = [None if row.state is None else _T(row.state)]
    if state == _T.FAILED:
        leaving = [each for each, targets in TASK_MOVES.items() if state in targets]
    words = {} if note is None else {"note": note}
    by_hand = f"marked as failed by hand{f': {note}' if note else ''}"
    problem = by_hand if state == _T.FAILED else None
    moved = task_queries.move_all(
        connection, [row.id], leaving=leaving, to=state, ended_at=now, retry_at=None, problem=problem, **words
    )
    if not moved:
        raise LostTransition(f"task '{row.task_id}' is {row.state}: it is not marked as {state}")
