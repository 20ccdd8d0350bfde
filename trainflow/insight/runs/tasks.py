"""The tasks of a run: where each is, why it does not run, its attempts, what it handed over."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, Row

from trainflow.errors import InputError, NotFound
from trainflow.humanize import counted
from trainflow.insight.refusals import refusals, with_queues
from trainflow.insight.runs.durations import WorkingTime
from trainflow.insight.snapshot import engine_state
from trainflow.insight.why_task import TaskWaitFacts, explain_wait
from trainflow.messages.execution_api import MetricCurves
from trainflow.metadata.queries import (
    attempt_queries,
    curve_queries,
    dag_queries,
    run_queries,
    task_queries,
    trigger_queries,
    xcom_queries,
)
from trainflow.metadata.queries.dag_queries import Versions
from trainflow.observability.processes import hostname
from trainflow.serialization.document import DagDocument, TaskDocument
from trainflow.states import FINISHED
from trainflow.workspace.names import check_tasks, run_named
from trainflow.workspace.workspace import Workspace


class TaskSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A task of a run. `waiting`: a sentence why it does not run; `seconds` from start to end (or until now),
    without the time in which no engine ran."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    operator: str | None
    role: str | None
    state: str | None
    try_number: int
    max_tries: int
    attempt_id: str | None
    started_at: datetime | None
    ended_at: datetime | None
    seconds: float | None
    waiting: str | None
    note: str | None
    problem: str | None
    progress: dict[str, Any] | None


class AttemptSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One try of a task; `outcome`: None while it runs; `hostname`: where it ran the last time, `service_id`: the
    scheduler that handed it out; `refused_at`: when it was heard again after it had been given up, and told to stop."""

    attempt_id: str
    try_number: int
    outcome: str | None
    queued_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    problem: str | None
    hostname: str | None
    service_id: int | None
    refused_at: datetime | None
    log_path: str
    seconds: float | None
    #: as it has rendered them, known when it has ended or waits; None: it had none, or did not come so far
    rendered_fields: dict[str, Any] | None
    #: metrics that it reported while it ran, by name: [how far it was, value, milliseconds] of each point
    curves: MetricCurves = {}


class TaskDetail(TaskSummary, frozen=True, kw_only=True):
    """A task with its XComs (key → value) and its attempts, oldest first."""

    upstream: list[str]
    trigger_rule: str | None
    pool: str
    pool_slots: int
    priority_weight: int
    queue: str | None
    retry_at: datetime | None
    hostname: str | None
    pid: int | None
    xcoms: dict[str, Any]
    attempts: list[AttemptSummary]


class AttemptLog(msgspec.Struct, frozen=True):
    """The log of an attempt of a task. `hostname`: where the attempt ran, `path`: its log, if that was this host."""

    task_instance_id: int
    attempt_id: str
    hostname: str | None
    path: str
    #: in the store of `[logs]`
    name: str

    @property
    def elsewhere(self) -> str:
        """Where else its log may be: the end of a sentence which says that there is none here."""
        if self.hostname in (None, hostname()):
            return ""
        return f" here (the attempt ran on {self.hostname}: its log is in the home of the engine there)"


def list_tasks(workspace: Workspace, dag: str, run: str, now: datetime) -> list[TaskSummary]:
    """The tasks of a run, in the order of the DAG. Raises DagNotFound, DagRunNotFound."""
    with workspace.database.reading() as connection:
        return task_summaries(workspace, connection, run_named(connection, workspace.project, dag, run), now)


def task_summaries(workspace: Workspace, connection: Connection, run: Row[Any], now: datetime) -> list[TaskSummary]:
    """The same of a row of `dag_run`."""
    document, _ = Versions().get(connection, run.version_id)
    rows = task_queries.rows_of_run(connection, run.id)
    waiting = _reasons(workspace, connection, run, document, rows, now)
    order = {task.task_id: number for number, task in enumerate(document.tasks)}
    in_order = sorted(rows, key=lambda row: (order.get(row.task_id, len(order)), row.map_index))
    time = WorkingTime.read(connection, workspace.settings, now, [run.id])
    return [TaskSummary(**_facts(run, row, document, waiting, time)) for row in in_order]


def _facts(
    run: Row[Any], row: Row[Any], document: DagDocument, waiting: dict[int, str], time: WorkingTime
) -> dict[str, Any]:
    described = document.task(row.task_id)
    computed = {
        "dag_id": run.dag_id,
        "run_id": run.run_id,
        "operator": described.operator if described else None,
        "role": described.role if described else None,
        "try_number": max(1, row.failures + (row.state != "failed")),
        "seconds": time.of_task(row, run.id, row.id),
        "waiting": waiting.get(row.id),
    }
    names = [name for name in TaskSummary.__struct_fields__ if name not in computed]
    return {name: getattr(row, name) for name in names} | computed


def _reasons(
    workspace: Workspace,
    connection: Connection,
    run: Row[Any],
    document: DagDocument,
    rows: Sequence[Row[Any]],
    now: datetime,
) -> dict[int, str]:
    """Task instance → why it does not run."""
    if not any(row.state not in FINISHED or row.state == "upstream_failed" for row in rows):
        return {}
    engine = engine_state(workspace.project, workspace.settings, workspace.database, now)
    dag = dag_queries.get(connection, run.dag_id)
    unfinished = run_queries.unfinished_of(connection, run.dag_id)
    running = [each for each in unfinished if each.state == "running" and each.released_at is None]
    refused = refusals(connection, workspace.settings, now)
    queues = with_queues(workspace.settings)
    states = {row.task_id: row.state for row in rows}
    reasons = {}
    for row in rows:
        described = document.task(row.task_id)
        if described is None:
            continue
        wait = trigger_queries.of_task(connection, row.id) if row.state == "deferred" else None
        around = TaskWaitFacts(
            dag_id=run.dag_id,
            engine_alive=engine.alive,
            triggerer_alive=engine.triggers,
            paused=dag.is_paused,
            max_active_runs=dag.max_active_runs,
            running=len(running),
            run_state=run.state,
            run_after=run.run_after,
            states=states,
            refused=refused.get(row.id),
            listened_queue=row.queue if row.executor in queues else None,
            trigger_class=wait.trigger_class if wait else None,
            deadline=wait.deadline if wait else None,
        )
        sentence = explain_wait(described, row, around, now)
        if sentence is not None:
            reasons[row.id] = sentence
    return reasons


def task_detail(workspace: Workspace, dag: str, run: str, task: str, now: datetime) -> TaskDetail:
    """One task of a run. Raises DagNotFound, DagRunNotFound, InputError."""
    with workspace.database.reading() as connection:
        found = run_named(connection, workspace.project, dag, run)
        row = _task_row(connection, found, task)
        summaries = task_summaries(workspace, connection, found, now)
        document, _ = Versions().get(connection, found.version_id)
        values = xcom_queries.of_run(connection, found.id)
        attempts = attempt_queries.of_task(connection, row.id)
        curves = curve_queries.of_attempts(connection, [each.attempt_id for each in attempts])
        time = WorkingTime.read(connection, workspace.settings, now, [found.id])
    described = document.task(row.task_id)
    names = ("pool", "pool_slots", "priority_weight", "queue", "retry_at", "hostname", "pid")
    return TaskDetail(
        **msgspec.structs.asdict(next(each for each in summaries if each.task_id == task)),
        **{name: getattr(row, name) for name in names},
        upstream=described.upstream if described else [],
        trigger_rule=described.trigger_rule if described else None,
        xcoms={key: value for (task_id, key), value in values.items() if task_id == task},
        attempts=[
            _attempt(workspace, attempt, found.id, time, curves.get(attempt.attempt_id, {})) for attempt in attempts
        ],
    )


def _attempt(workspace: Workspace, row: Row[Any], run: int, time: WorkingTime, curves: MetricCurves) -> AttemptSummary:
    names = [name for name in AttemptSummary.__struct_fields__ if name not in ("seconds", "log_path", "curves")]
    seconds = time.of_task(row, run, row.task_instance_id)
    facts = {name: getattr(row, name) for name in names}
    return AttemptSummary(**facts, seconds=seconds, log_path=_log_path(workspace, row), curves=curves)


def _log_path(workspace: Workspace, attempt: Row[Any]) -> str:
    """Where the log lies, when its attempt was handed out by an engine of this home."""
    return str(workspace.project.home.logs / attempt.log_name)


def _task_row(connection: Connection, run: Row[Any], task_id: str) -> Row[Any]:
    """The row of a task of a run. Raises InputError with near matches."""
    rows = {row.task_id: row for row in task_queries.rows_of_run(connection, run.id)}
    document, _ = Versions().get(connection, run.version_id)
    known = [task.task_id for task in document.tasks]
    check_tasks([task_id], [*rows, *known], f"run {run.run_id} of {run.dag_id}")
    if task_id not in rows:
        raise NotFound(not_started(run))
    return rows[task_id]


def not_started(run: Row[Any]) -> str:
    """Say of a run that it has no tasks yet, and how to find out why."""
    made = f"run {run.run_id} of {run.dag_id} has not started: its tasks are made when it does"
    return f"{made}. 'trainflow why {run.dag_id}' says what it waits for"


class TaskRow(NamedTuple):
    """A task instance with its run: rows of the database; what the DAG says of it, and its attempts, oldest first."""

    run: Row[Any]
    row: Row[Any]
    described: TaskDocument | None
    attempts: list[Row[Any]]

    @property
    def rendered_fields(self) -> dict[str, Any] | None:
        """The template fields as the newest attempt that has rendered them did."""
        found = [each.rendered_fields for each in self.attempts if each.rendered_fields is not None]
        return found[-1] if found else None


def task_row(workspace: Workspace, dag_id: str, run_id: str, task_id: str) -> TaskRow:
    """A task of the run of exactly these ids. Raises DagNotFound, DagRunNotFound, NotFound."""
    with workspace.database.reading() as connection:
        run = run_queries.get(connection, dag_id, run_id)
        row = _task_row(connection, run, task_id)
        document, _ = Versions().get(connection, run.version_id)
        return TaskRow(run, row, document.task(task_id), attempt_queries.of_task(connection, row.id))


def described_tasks(
    workspace: Workspace, rows: Sequence[tuple[int, str]]
) -> dict[tuple[int, str], TaskDocument | None]:
    """(version, task id) → what the DAG says of the task."""
    versions = Versions()
    with workspace.database.reading() as connection:
        return {
            (version, task_id): versions.get(connection, version)[0].task(task_id) for version, task_id in set(rows)
        }


def task_rows(workspace: Workspace, dag_id: str, run_id: str, task_ids: Collection[str]) -> list[TaskRow]:
    """Some tasks of a run, in the order of the DAG. Raises DagNotFound, DagRunNotFound."""
    with workspace.database.reading() as connection:
        run = run_queries.get(connection, dag_id, run_id)
        document, _ = Versions().get(connection, run.version_id)
        rows = {row.task_id: row for row in task_queries.rows_of_run(connection, run.id) if row.task_id in task_ids}
        attempts = {name: attempt_queries.of_task(connection, row.id) for name, row in rows.items()}
    return [
        TaskRow(run, rows[task.task_id], task, attempts[task.task_id])
        for task in document.tasks
        if task.task_id in rows
    ]


def attempt_counts(workspace: Workspace, task_instance_ids: Sequence[int]) -> dict[int, int]:
    """Task instance → how many attempts it has had."""
    with workspace.database.reading() as connection:
        return attempt_queries.counts_of(connection, task_instance_ids)


def rendered_fields(workspace: Workspace, task_instance_ids: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Task instance → its template fields as its newest attempt that has rendered them did."""
    with workspace.database.reading() as connection:
        return attempt_queries.rendered_fields_of(connection, task_instance_ids)


def attempt_curves(workspace: Workspace, attempt_ids: Collection[str]) -> dict[str, MetricCurves]:
    """Attempt → the metrics that it reported while it ran, of those that have any still."""
    with workspace.database.reading() as connection:
        return curve_queries.of_attempts(connection, attempt_ids)


def xcoms_of_task(workspace: Workspace, task: TaskRow) -> list[Row[Any]]:
    """What a task handed over: rows with `key`, `value` (JSON), `created_at`."""
    with workspace.database.reading() as connection:
        return xcom_queries.of_task(connection, task.run.id, task.row.task_id)


def attempt_log(workspace: Workspace, dag: str, run: str, task: str, attempt: str | None) -> AttemptLog:
    """The log of an attempt: of its number, counted from either end, of how its id begins; by default the last one.

    Raises DagNotFound, DagRunNotFound, InputError.
    """
    with workspace.database.reading() as connection:
        found = run_named(connection, workspace.project, dag, run)
        row = _task_row(connection, found, task)
        chosen = _choose_attempt(connection, row, attempt)
    return AttemptLog(row.id, chosen.attempt_id, chosen.hostname, _log_path(workspace, chosen), chosen.log_name)


def _choose_attempt(connection: Connection, row: Row[Any], wanted: str | None) -> Row[Any]:
    attempts = attempt_queries.of_task(connection, row.id)
    if not attempts:
        raise NotFound(
            f"task '{row.task_id}' has had no attempt yet: 'trainflow tasks show DAG RUN {row.task_id}' says what it "
            "waits for"
        )
    if wanted is None:
        return attempts[-1]
    for attempt in attempts:
        if attempt.attempt_id == wanted:
            return attempt
    if wanted.removeprefix("-").isdigit() and len(wanted) < 6:
        number = int(wanted)
        if number and -len(attempts) <= number <= len(attempts):
            return attempts[number - 1 if number > 0 else number]
        raise NotFound(f"--attempt {wanted}: task '{row.task_id}' has had {counted(len(attempts), 'attempt')}")
    found = [attempt for attempt in attempts if attempt.attempt_id.startswith(wanted)]
    if len(found) != 1:
        known = ", ".join(attempt.attempt_id for attempt in attempts)
        raise InputError(f"--attempt {wanted}: {'no' if not found else 'more than one'} attempt begins so; {known}")
    return found[0]


def has_ended(workspace: Workspace, log: AttemptLog) -> bool:
    """Whether nothing more is written. A wait is no end: the attempt goes on in the same log."""
    with workspace.database.reading() as connection:
        row = task_queries.row(connection, log.task_instance_id)
    if row is None or row.attempt_id != log.attempt_id:
        return True
    resumes = row.state == "scheduled" and row.next_method is not None
    return not resumes and row.state not in ("queued", "running", "deferred")
