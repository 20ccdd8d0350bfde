"""What people ask and are told: what runs, what waits, what failed. Read only, and nothing is locked.

As text, without SQLAlchemy: `status` and `why` take less time than importing that.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple

from trainflow.messages.notice import XCOM_STOPPED
from trainflow.metadata.sql_text import ReadingConnection, SqlText
from trainflow.settings.outbox_channels import OutboxChannel
from trainflow.states import RUN_FINISHED, DagRunState, TaskInstanceState

_OPEN = sorted(set(DagRunState) - RUN_FINISHED)
_ENDED = sorted(RUN_FINISHED)
_NOT_WELL = sorted(set(TaskInstanceState) - {TaskInstanceState.SUCCESS, TaskInstanceState.SKIPPED})
_FAILED = ["failed", "lost", "part_lost"]


class DagInForce(NamedTuple):
    """A DAG with its current document."""

    dag_id: str
    path: str
    version_id: int | None
    is_paused: bool
    max_active_runs: int
    missing_since: datetime | None
    document: str


def dags(connection: ReadingConnection, *, path: str | None = None, dag_id: str | None = None) -> list[DagInForce]:
    """DAGs with their current document, of one file or one id or all that some file defines."""
    if dag_id is not None:
        return _dags("dag.dag_id = :dag").rows(connection, dag=dag_id)
    if path is not None:
        return _dags("dag.path = :path AND dag.missing_since IS NULL").rows(connection, path=path)
    return _dags("dag.missing_since IS NULL").rows(connection)


@cache
def _dags(which: str) -> SqlText[DagInForce]:
    return SqlText(
        f"""
        SELECT dag.dag_id, dag.path, dag.version_id, dag.is_paused, dag.max_active_runs, dag.missing_since,
            dag_version.document
        FROM dag JOIN dag_version ON dag_version.id = dag.version_id
        WHERE {which}
        ORDER BY dag.path, dag.dag_id
        """,
        DagInForce,
        moments=["missing_since"],
        flags=["is_paused"],
    )


class ShownRun(NamedTuple):
    """A run, as far as people want to know."""

    id: int
    dag_id: str
    run_id: str
    number: int
    state: str
    run_after: datetime
    started_at: datetime | None
    ended_at: datetime | None
    note: str | None
    released_at: datetime | None


def shown_runs(connection: ReadingConnection, dag_ids: Sequence[str]) -> list[ShownRun]:
    """The runs of each DAG that have not ended, and the one that ended last, in order."""
    if not dag_ids:
        return []
    return _SHOWN_RUNS.rows(connection, dags=list(dag_ids), open=_OPEN, ended=_ENDED)


# the run of a DAG that ended last is read from the end of an index, whatever its history; asked for both by one OR,
# PostgreSQL looks at every run
_SHOWN_RUNS = SqlText(
    """
    SELECT id, dag_id, run_id, number, state, run_after, started_at, ended_at, note, released_at
    FROM dag_run
    WHERE state IN :open AND dag_id IN :dags
    UNION ALL
    SELECT last.id, last.dag_id, last.run_id, last.number, last.state, last.run_after, last.started_at, last.ended_at,
        last.note, last.released_at
    FROM (
            SELECT (
                SELECT run.id FROM dag_run AS run
                WHERE run.dag_id = dag.dag_id AND run.ended_at IS NOT NULL AND run.state IN :ended
                ORDER BY run.ended_at DESC, run.number DESC LIMIT 1
            ) AS id
            FROM dag WHERE dag.dag_id IN :dags LIMIT 1000000
        ) AS newest
        JOIN dag_run AS last ON last.id = newest.id
    ORDER BY number, id
    """,
    ShownRun,
    moments=["run_after", "started_at", "ended_at", "released_at"],
)


class ShownTask(NamedTuple):
    """A task instance, as far as people want to know."""

    dag_run_id: int
    id: int
    task_id: str
    state: str | None
    started_at: datetime | None
    ended_at: datetime | None
    retry_at: datetime | None
    failures: int
    max_tries: int
    progress: dict[str, Any] | None
    note: str | None
    problem: str | None
    attempt_id: str | None
    executor: str | None
    queue: str
    queued_at: datetime | None


def tasks_of(connection: ReadingConnection, dag_run_ids: Sequence[int]) -> dict[int, list[ShownTask]]:
    """Run → every task instance of it, as far as people want to know."""
    found: dict[int, list[ShownTask]] = {each: [] for each in dag_run_ids}
    for row in _TASKS.rows(connection, runs=list(found)) if found else ():
        found[row.dag_run_id].append(row)
    return found


_TASKS = SqlText(
    """
    SELECT dag_run_id, id, task_id, state, started_at, ended_at, retry_at, failures, max_tries, progress, note,
        problem, attempt_id, executor, queue, queued_at
    FROM task_instance
    WHERE dag_run_id IN :runs
    ORDER BY id
    """,
    ShownTask,
    moments=["started_at", "ended_at", "retry_at", "queued_at"],
    documents=["progress"],
)


class TaskResult(NamedTuple):
    """What a task of a run returned."""

    dag_id: str
    number: int
    ended_at: datetime | None
    value: Any


def newest_results(
    connection: ReadingConnection, dag_ids: Sequence[str], task_ids: Sequence[str], runs: int
) -> list[TaskResult]:
    """What these tasks returned in the newest successful runs of each DAG, at most so many of its runs."""
    if not (dag_ids and task_ids):
        return []
    success = DagRunState.SUCCESS.value
    return _RESULTS.rows(connection, dags=list(dag_ids), tasks=list(task_ids), success=success, runs=runs)


# both are read from the end of an index, whatever the history. A database that has the numbers of all DAGs before it
# looks at runs does so; LIMIT makes it have them, where it would begin with all the runs or ask about each of them
_RESULTS = SqlText(
    """
    SELECT run.dag_id, run.number, run.ended_at, xcom.value
    FROM (
            SELECT dag.dag_id, (
                SELECT max(success.number) FROM dag_run AS success
                WHERE success.dag_id = dag.dag_id AND success.state = :success
            ) AS number
            FROM dag WHERE dag.dag_id IN :dags LIMIT 1000000
        ) AS newest
        JOIN dag_run AS run
            ON run.dag_id = newest.dag_id AND run.state = :success AND run.number > newest.number - :runs
        JOIN xcom ON xcom.dag_run_id = run.id AND xcom.task_id IN :tasks AND xcom.key = 'return_value'
    ORDER BY run.number
    """,
    TaskResult,
    moments=["ended_at"],
    documents=["value"],
)


class FailedAttempt(NamedTuple):
    """An attempt that failed or was lost."""

    dag_id: str
    run_id: str
    task_id: str
    ended_at: datetime | None
    problem: str | None


def last_failures(connection: ReadingConnection) -> dict[str, FailedAttempt]:
    """DAG → the attempt that failed or was lost last, where no later attempt of its task has ended well. Costs the
    tasks that have not ended well, and not the history."""
    rows = _LAST_FAILURES.rows(connection, not_well=_NOT_WELL, failed=_FAILED)
    return {row.dag_id: row for row in rows}


_LAST_FAILURES = SqlText(
    """
    SELECT ranked.dag_id, ranked.run_id, ranked.task_id, attempt.ended_at, attempt.problem
    FROM (
        SELECT dag_run.dag_id AS dag_id, dag_run.run_id AS run_id, task_instance.task_id AS task_id,
            attempt.attempt_id AS attempt_id,
            row_number() OVER (PARTITION BY dag_run.dag_id ORDER BY attempt.ended_at DESC) AS place
        FROM task_instance
            JOIN attempt ON attempt.task_instance_id = task_instance.id
            JOIN dag_run ON dag_run.id = task_instance.dag_run_id
        WHERE (task_instance.state IN :not_well OR task_instance.state IS NULL) AND attempt.outcome IN :failed
    ) AS ranked JOIN attempt ON attempt.attempt_id = ranked.attempt_id
    WHERE ranked.place = 1
    """,
    FailedAttempt,
    moments=["ended_at"],
)


class _Count(NamedTuple):
    dag_id: str
    deliveries: int


def undelivered_by_dag(connection: ReadingConnection) -> dict[str, int]:
    """DAG → deliveries to MLflow that are still to be made."""
    return {row.dag_id: row.deliveries for row in _UNDELIVERED_BY_DAG.rows(connection, channel=_MLFLOW)}


_MLFLOW = OutboxChannel.MLFLOW.value
_UNDELIVERED_BY_DAG = SqlText(
    """
    SELECT dag_run.dag_id, count(*)
    FROM outbox JOIN dag_run ON dag_run.id = outbox.dag_run_id
    WHERE outbox.channel = :channel AND outbox.delivered_at IS NULL
    GROUP BY dag_run.dag_id
    """,
    _Count,
)


class Undelivered(NamedTuple):
    """What a system has not got: deliveries that wait and the reason of the first; those that it refused for good and
    the reason of the newest."""

    waiting: int = 0
    reason: str | None = None
    refused: int = 0
    refused_reason: str | None = None


def undelivered(connection: ReadingConnection, channel: OutboxChannel) -> Undelivered:
    """How many deliveries of a channel wait or were refused, and why."""
    return _UNDELIVERED.rows(connection, channel=channel.value)[0]


# a delivery that was given up keeps the reason; one that arrived loses it
_UNDELIVERED = SqlText(
    """
    SELECT
        (SELECT count(*) FROM outbox WHERE channel = :channel AND delivered_at IS NULL),
        (SELECT reason FROM outbox WHERE channel = :channel AND delivered_at IS NULL ORDER BY id LIMIT 1),
        (SELECT count(*) FROM outbox
            WHERE channel = :channel AND delivered_at IS NOT NULL AND reason IS NOT NULL),
        (SELECT reason FROM outbox
            WHERE channel = :channel AND delivered_at IS NOT NULL AND reason IS NOT NULL ORDER BY id DESC LIMIT 1)
    """,
    Undelivered,
)


class HandedOver(NamedTuple):
    """A task that was handed to an executor and that no process has claimed."""

    id: int
    executor: str | None
    queue: str


def handed_over(connection: ReadingConnection) -> list[HandedOver]:
    """Tasks that were handed to an executor and that no process has claimed."""
    return _HANDED_OVER.rows(connection, state=TaskInstanceState.QUEUED.value)


_HANDED_OVER = SqlText("SELECT id, executor, queue FROM task_instance WHERE state = :state", HandedOver)


class _Id(NamedTuple):
    id: int


def is_any_scheduled(connection: ReadingConnection) -> bool:
    """Whether a task instance waits to be queued, by whichever scheduler."""
    return bool(_ANY_SCHEDULED.rows(connection, state=TaskInstanceState.SCHEDULED.value))


_ANY_SCHEDULED = SqlText("SELECT id FROM task_instance WHERE state = :state LIMIT 1", _Id)


class ImportProblemRow(NamedTuple):
    """A file that gives no DAG, and why."""

    path: str
    message: str
    traceback: str
    line: int | None
    column: int | None
    at: datetime


def problems(connection: ReadingConnection) -> list[ImportProblemRow]:
    """Files that give no DAG, and why."""
    return _PROBLEMS.rows(connection)


# with the table's name before it, a word that is reserved stands for a column everywhere
_PROBLEMS = SqlText(
    """
    SELECT problem.path, problem.message, problem.traceback, problem.line, problem.column, problem.at
    FROM import_problem AS problem
    ORDER BY problem.path
    """,
    ImportProblemRow,
    moments=["at"],
)


class FirstFailure(NamedTuple):
    """The task of a run that failed first, for the notice that says so. `told`: what it pushed about it, if it did."""

    task_id: str
    problem: str
    told: dict[str, Any] | None


def first_failure(connection: ReadingConnection, dag_run_id: int) -> FirstFailure | None:
    """The first task of a run that failed; None when none did (the run timed out, say)."""
    found = _FIRST_FAILURE.rows(connection, run=dag_run_id, state=TaskInstanceState.FAILED.value, key=XCOM_STOPPED)
    if not found:
        return None
    task_id, problem, told = found[0]
    return FirstFailure(task_id, problem or "", told if isinstance(told, dict) else None)


_FIRST_FAILURE = SqlText(
    """
    SELECT task_instance.task_id, task_instance.problem, (
        SELECT xcom.value FROM xcom
        WHERE xcom.dag_run_id = task_instance.dag_run_id AND xcom.task_id = task_instance.task_id AND xcom.key = :key
        ORDER BY xcom.map_index LIMIT 1
    )
    FROM task_instance
    WHERE task_instance.dag_run_id = :run AND task_instance.state = :state
    ORDER BY task_instance.ended_at, task_instance.id
    LIMIT 1
    """,
    FirstFailure,
    documents=["told"],
)


def last_success(connection: ReadingConnection, dag_id: str, before: int) -> int:
    """The number of the newest run of a DAG, before number `before`, that succeeded; 0: none did."""
    return _LAST_SUCCESS.rows(connection, dag=dag_id, before=before, state=DagRunState.SUCCESS.value)[0].id


_LAST_SUCCESS = SqlText(
    "SELECT coalesce(max(number), 0) FROM dag_run WHERE dag_id = :dag AND number < :before AND state = :state", _Id
)
