"""Tasks of runs: where each is, why it does not run, its attempts, its logs, what it handed over."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from sqlalchemy import Row

from trainflow.api.rest import airflow_shapes as shapes
from trainflow.api.rest.dag_runs import ANY, StartedAndEnded, moments_of
from trainflow.api.rest.endpoints import JSON, NDJSON, ApiCall, EndpointGroup, NoQuery, Polled
from trainflow.api.rest.paging import Text
from trainflow.api.rest.problems import RequestRefused, not_understood
from trainflow.clock import elapsed_seconds
from trainflow.humanize import counted
from trainflow.insight.runs.dags import dag_row
from trainflow.insight.runs.logs import LogBytes, LogSource, log_source
from trainflow.insight.runs.pages import tasks_page
from trainflow.insight.runs.runs import run_row
from trainflow.insight.runs.tasks import (
    AttemptLog,
    TaskRow,
    attempt_counts,
    attempt_curves,
    attempt_log,
    described_tasks,
    has_ended,
    list_tasks,
    rendered_fields,
    task_row,
    xcoms_of_task,
)
from trainflow.messages.execution_api import MetricCurves
from trainflow.metadata.queries.page_queries import MOST_COUNTED, TaskFilter
from trainflow.observability.redaction import redact

tasks = EndpointGroup("TaskInstance", is_airflows=True)

_RUN = "/dags/{dag_id}/dagRuns/{dag_run_id}"
TASK = f"{_RUN}/taskInstances/{{task_id}}"
_FOLLOW_SECONDS = 0.5


class TaskInstanceQuery(StartedAndEnded, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`state`: `none` are those that were not looked at yet."""

    task_id: Text | None = None
    state: list[Text] = msgspec.field(default_factory=list)
    pool: list[Text] = msgspec.field(default_factory=list)
    queue: list[Text] = msgspec.field(default_factory=list)
    executor: list[Text] = msgspec.field(default_factory=list)


_MOMENTS = {"start_date": "started_at", "end_date": "ended_at"}


@tasks.get(f"{_RUN}/taskInstances")
def list_task_instances(call: ApiCall[TaskInstanceQuery, None]) -> shapes.TaskInstances:
    """List the tasks of a run, or of all runs (`~`) of a DAG or of all DAGs (`~`)."""
    query, dag_id, run_id = call.query, call.path["dag_id"], call.path["dag_run_id"]
    if dag_id != ANY and run_id != ANY:
        run_row(call.workspace, dag_id, run_id)
    elif dag_id != ANY:
        dag_row(call.workspace, dag_id)
    which = TaskFilter(
        dag_id=None if dag_id == ANY else dag_id,
        run_id=None if run_id == ANY else run_id,
        task_id=query.task_id,
        states=tuple(query.state),
        pools=tuple(query.pool),
        queues=tuple(query.queue),
        executors=tuple(query.executor),
        moments=moments_of(query, _MOMENTS),
    )
    found = tasks_page(call.workspace, which, query.page)
    return shapes.TaskInstances(
        task_instances=_instances(call, found.rows),
        total_entries=found.total,
        total_entries_limit=MOST_COUNTED,
        next_cursor=found.after,
        previous_cursor=found.before,
    )


def _instances(call: ApiCall[Any, Any], rows: Sequence[Row[Any]]) -> list[shapes.TaskInstanceShape]:
    described = described_tasks(call.workspace, [(row.run_version_id, row.task_id) for row in rows])
    counts = attempt_counts(call.workspace, [row.id for row in rows])
    rendered = rendered_fields(call.workspace, [row.id for row in rows])
    return [
        shapes.task_instance_of(
            row,
            shapes.TaskRun(row.run_dag_id, row.run_run_id, row.run_run_after, row.run_logical_date),
            described[row.run_version_id, row.task_id],
            counts.get(row.id, 0),
            rendered.get(row.id),
        )
        for row in rows
    ]


def found_task(call: ApiCall[Any, Any]) -> TaskRow:
    """The task that a path names. Raises DagNotFound, DagRunNotFound, NotFound."""
    return task_row(call.workspace, call.path["dag_id"], call.path["dag_run_id"], call.path["task_id"])


def instance_of(task: TaskRow) -> shapes.TaskInstanceShape:
    """A task of a run as it is shown."""
    run = task.run
    of_run = shapes.TaskRun(run.dag_id, run.run_id, run.run_after, run.logical_date)
    return shapes.task_instance_of(task.row, of_run, task.described, len(task.attempts), task.rendered_fields)


@tasks.get(TASK)
def get_task_instance(call: ApiCall[NoQuery, None]) -> shapes.TaskInstanceShape:
    """Show a task of a run."""
    return instance_of(found_task(call))


class TaskDependency(msgspec.Struct, frozen=True):
    """A reason for which a task does not run."""

    name: str
    reason: str


class TaskDependencies(msgspec.Struct, frozen=True):
    """Why a task does not run; empty: it does, or it has ended."""

    dependencies: list[TaskDependency]


@tasks.get(f"{TASK}/dependencies")
def get_task_dependencies(call: ApiCall[NoQuery, None]) -> TaskDependencies:
    """Say why a task does not run."""
    task = found_task(call)
    summaries = list_tasks(call.workspace, task.run.dag_id, task.run.run_id, call.now)
    waiting = [each.waiting for each in summaries if each.task_id == task.row.task_id and each.waiting]
    return TaskDependencies([TaskDependency(task.row.state or "none", sentence) for sentence in waiting])


# -- tries ---------------------------------------------------------------------------------------------------------


class TaskTry(shapes.TaskInstanceShape, frozen=True, kw_only=True):
    """One attempt. `outcome`: how it ended; null while it lasts. `refused_at`: when it was heard again after it had
    been given up, and told to stop. `curves`: metrics that it reported while it ran, by name, [how far it was, value,
    milliseconds] of each point; of the newest runs of a DAG."""

    attempt_id: str
    outcome: str | None
    refused_at: datetime | None
    curves: MetricCurves


class TaskTries(msgspec.Struct, frozen=True):
    """The attempts of a task, oldest first; `try_number` counts them."""

    task_instances: list[TaskTry]
    total_entries: int


@tasks.get(f"{TASK}/tries")
def list_tries(call: ApiCall[NoQuery, None]) -> TaskTries:
    """List the attempts of a task, oldest first: those that infrastructure lost, too."""
    found = _tries(call)
    return TaskTries(found, len(found))


@tasks.get(f"{TASK}/tries/{{try_number}}")
def get_try(call: ApiCall[NoQuery, None]) -> TaskTry:
    """Show one attempt of a task."""
    found, number = _tries(call), _try_number(call)
    if not 1 <= number <= len(found):
        raise RequestRefused(
            404,
            "NotFound",
            f"the task has had {counted(len(found), 'attempt')}, not {number}",
            "GET …/tries lists them",
        )
    return found[number - 1]


def _try_number(call: ApiCall[Any, Any]) -> int:
    text = call.path["try_number"]
    if not text.removeprefix("-").isascii() or not text.removeprefix("-").isdigit() or len(text) > 6:
        raise not_understood(f"try_number {text!r} is no number: 1 is the first attempt, -1 the last")
    return int(text)


#: what a task instance has of its newest attempt
_OF_ANOTHER: dict[str, Any] = {"pid": None, "note": None, "progress": None}


def _tries(call: ApiCall[Any, Any]) -> list[TaskTry]:
    task = found_task(call)
    curves = attempt_curves(call.workspace, [each.attempt_id for each in task.attempts])
    now = msgspec.structs.asdict(instance_of(task))
    return [
        TaskTry(
            **{
                **now,
                "try_number": number,
                "state": each.outcome or task.row.state,
                "queued_when": each.queued_at,
                "start_date": each.started_at,
                "end_date": each.ended_at,
                "duration": elapsed_seconds(each.started_at, each.ended_at),
                "problem": each.problem,
                "hostname": each.hostname,
                # of earlier ones nothing more is known
                **({} if each.attempt_id == task.row.attempt_id else _OF_ANOTHER),
                "rendered_fields": each.rendered_fields or {},
            },
            attempt_id=each.attempt_id,
            outcome=each.outcome,
            refused_at=each.refused_at,
            curves=curves.get(each.attempt_id, {}),
        )
        for number, each in enumerate(task.attempts, 1)
    ]


# -- logs ----------------------------------------------------------------------------------------------------------


class LogLine(msgspec.Struct, frozen=True):
    """A line of a log."""

    event: str


class LogQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`token`: `continuation_token` of the answer before; `full_content`: all that there is at once; `map_index`: -1,
    nothing is mapped. As NDJSON `follow` goes on until the attempt has ended."""

    token: Annotated[str, Meta(max_length=40)] | None = None
    full_content: bool = False
    follow: bool = True
    map_index: Literal[-1] = -1


class TaskLog(msgspec.Struct, frozen=True):
    """Lines of a log. `continuation_token`: where the next ones begin; null: the attempt has ended, and this was all
    of it."""

    content: list[LogLine]
    continuation_token: str | None


@tasks.get(f"{TASK}/logs/{{try_number}}", media=(JSON, NDJSON))
def get_log(call: ApiCall[LogQuery, None]) -> TaskLog:
    """Read what an attempt printed and logged, with `Accept: application/x-ndjson` as it is written.

    `try_number`: 1 is the first attempt, -1 the last.
    """
    task = found_task(call)
    which = str(_try_number(call))
    log = attempt_log(call.workspace, task.run.dag_id, task.run.run_id, task.row.task_id, which)
    source = log_source(call.workspace, log)
    position = _position(call.query.token)
    if call.accept == NDJSON:
        return _followed(call, log, position)  # type: ignore[return-value]
    ended = has_ended(call.workspace, log)
    most = _MOST_LOG_BYTES if call.query.full_content else _LOG_BYTES
    part, is_all = _next_part(source, position, most, ended=ended)
    return TaskLog(_lines(part.data), None if is_all else str(part.position))


#: of one answer
_LOG_BYTES, _MOST_LOG_BYTES = 1 << 18, 1 << 24


def _position(token: str | None) -> int:
    if token is None:
        return 0
    if not token.isascii() or not token.isdigit() or len(token) > 15:
        raise not_understood(f"token {token!r} was given out by no answer: take continuation_token of the one before")
    return int(token)


def _next_part(source: LogSource, position: int, most: int, *, ended: bool) -> tuple[LogBytes, bool]:
    """What comes next of a log, whole lines; and whether it is the last of it. `ended`: nothing is added any more."""
    part = source.read(position, most)
    is_all = ended and not source.read(part.position, 1).data
    return _whole_lines(part, is_last=is_all), is_all


def _whole_lines(part: LogBytes, *, is_last: bool) -> LogBytes:
    """Without the beginning of a line whose end is not there yet."""
    kept = part.data.rfind(b"\n") + 1
    if kept in (0, len(part.data)) or is_last:
        return part
    return LogBytes(part.data[:kept], part.position - len(part.data) + kept)


def _lines(data: bytes) -> list[LogLine]:
    return [LogLine(line) for line in data.decode(errors="replace").splitlines()]


def _followed(call: ApiCall[LogQuery, None], log: AttemptLog, position: int) -> Polled:
    source = log_source(call.workspace, log)
    place = position

    def look() -> tuple[bytes, bool]:
        nonlocal place
        # in this order: what was written before the attempt ended has been read then
        ended = has_ended(call.workspace, log) or not call.query.follow
        part, is_all = _next_part(source, place, _LOG_BYTES, ended=ended)
        place = part.position
        lines = b"".join(msgspec.json.encode(line) + b"\n" for line in _lines(part.data))
        return lines, is_all

    return Polled(NDJSON, look, _FOLLOW_SECONDS)


# -- XComs ---------------------------------------------------------------------------------------------------------


class XCom(msgspec.Struct, frozen=True, kw_only=True):
    """A value that a task handed over, without the value."""

    key: str
    timestamp: datetime
    task_id: str
    task_display_name: str
    dag_id: str
    dag_display_name: str
    run_id: str
    map_index: int
    logical_date: datetime | None
    run_after: datetime


class XComValue(XCom, frozen=True, kw_only=True):
    """The same with its value, without secrets."""

    value: Any


class XComs(msgspec.Struct, frozen=True):
    """What a task handed over, by key."""

    xcom_entries: list[XCom]
    total_entries: int


@tasks.get(f"{TASK}/xcomEntries")
def list_xcom_entries(call: ApiCall[NoQuery, None]) -> XComs:
    """List what a task handed over, without the values."""
    task = found_task(call)
    found = [XCom(**_xcom(task, row)) for row in xcoms_of_task(call.workspace, task)]
    return XComs(found, len(found))


@tasks.get(f"{TASK}/xcomEntries/{{xcom_key}}")
def get_xcom_entry(call: ApiCall[NoQuery, None]) -> XComValue:
    """Show a value that a task handed over."""
    task, key = found_task(call), call.path["xcom_key"]
    for row in xcoms_of_task(call.workspace, task):
        if row.key == key:
            return XComValue(**_xcom(task, row), value=redact(msgspec.json.decode(row.value)))
    raise RequestRefused(
        404, "NotFound", f"task '{task.row.task_id}' handed over nothing called '{key}'", "GET …/xcomEntries lists it"
    )


def _xcom(task: TaskRow, row: Row[Any]) -> dict[str, Any]:
    return {
        "key": row.key,
        "timestamp": row.created_at,
        "task_id": row.task_id,
        "task_display_name": row.task_id,
        "dag_id": task.run.dag_id,
        "dag_display_name": task.run.dag_id,
        "run_id": task.run.run_id,
        "map_index": row.map_index,
        "logical_date": task.run.logical_date,
        "run_after": task.run.run_after,
    }
