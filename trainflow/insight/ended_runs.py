"""Sum up runs that have ended: what each was trained on, how good that was, what went wrong, and all together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import Connection

from trainflow.clock import elapsed_seconds
from trainflow.engine.mlflow_dispatcher import results_by_role
from trainflow.messages.notice import XCOM_LATE_DATA, XCOM_MORE, XCOM_STOPPED
from trainflow.metadata.queries import status_queries, xcom_queries
from trainflow.metadata.queries.dag_queries import Versions
from trainflow.serialization.document import DagDocument
from trainflow.states import DagRunState, TaskInstanceState


class RunLine(msgspec.Struct, frozen=True):
    """One run that has ended. `seconds` from start to end (see `elapsed_seconds`); `metrics` are prequential."""

    dag_id: str
    run_id: str
    number: int
    state: str
    note: str | None
    seconds: float | None
    #: of these, how long any of its tasks was at work: without what it waited for a process that had imported the model
    busy_seconds: float
    partitions: int
    rows: int
    start: datetime | None
    end: datetime | None
    metrics: dict[str, float]
    checkpoint: dict[str, Any] | None
    #: what its checkpoint task read: where the chain was before it
    head: dict[str, Any] | None = None
    problem: str | None = None
    failed_task: str | None = None
    #: tasks that failed although the run ended well: nothing that decides about it came after them
    failed_beside: tuple[str, ...] = ()
    #: why it stopped the chain knowingly; a gate, say
    stopped: str | None = None
    #: partitions that its split stepped over
    holes: int = 0
    #: what it found changed behind the chain, and what it did about it
    late: str | None = None
    #: what it had to do again, and why
    again: str | None = None
    #: its stage does not go on by itself: there was no more of the stage that it starts from
    leaves_off: bool = False


@dataclass
class RunTotals:
    """What the runs that ended add up to."""

    runs: int = 0
    partitions: int = 0
    rows: int = 0
    seconds: float = 0.0
    #: metric → (rows it was measured on, rows * value): prequential metrics are averaged over rows
    weighted: dict[str, tuple[float, float]] = field(default_factory=dict)
    failed_beside: dict[str, int] = field(default_factory=dict)

    def add(self, run: RunLine) -> None:
        """Count a run that ended."""
        if run.checkpoint is not None:
            self.runs += 1
            self.partitions += run.partitions
            self.rows += run.rows
            self.seconds += run.seconds or 0.0
        for task in run.failed_beside:
            self.failed_beside[task] = self.failed_beside.get(task, 0) + 1
        for name, value in run.metrics.items():
            rows, total = self.weighted.get(name, (0.0, 0.0))
            self.weighted[name] = (rows + run.rows, total + run.rows * value)

    @property
    def metrics(self) -> dict[str, float]:
        """Metric → mean over all rows it was measured on."""
        return {name: total / rows for name, (rows, total) in self.weighted.items() if rows}


def last_of(before: RunLine | None, ended: RunLine) -> RunLine:
    """The run that says how it ended: the newest, whichever ended last; or one that failed."""
    if before is None or ended.state == DagRunState.FAILED or ended.dag_id != before.dag_id:
        return ended
    return ended if ended.number > before.number else before


def run_line(connection: Connection, row: Any, versions: Versions) -> RunLine:
    """What is shown of a run that has ended."""
    document, _ = versions.get(connection, row.version_id)
    xcoms = xcom_queries.of_run(connection, row.id)
    results = results_by_role(document, xcoms)
    tasks = status_queries.tasks_of(connection, [row.id])[row.id]
    split, checkpoint = _object(results.get("samples")), _object(results.get("commit"))
    failed = row.state == DagRunState.FAILED
    started = row.started_at or row.queued_at
    return RunLine(
        dag_id=row.dag_id,
        run_id=row.run_id,
        number=row.number,
        state=row.state,
        note=row.note if failed else _note(tasks, document) or row.note,
        seconds=elapsed_seconds(started, row.ended_at),
        busy_seconds=_busy_seconds(tasks),
        partitions=split.get("partitions", 0),
        rows=split.get("rows") or 0,
        start=_moment(split.get("start")),
        end=_moment(split.get("end")),
        metrics=_numbers(_object(results.get("evaluate"))),
        checkpoint=checkpoint or None,
        head=_object(results.get("checkpoint")) or None,
        stopped=_stopped(xcoms) if failed else None,
        holes=split.get("holes", 0),
        again=None if failed else row.note,
        late=next((str(value) for (_, key), value in xcoms.items() if key == XCOM_LATE_DATA), None),
        leaves_off=any(key == XCOM_MORE and value is False for (_, key), value in xcoms.items()),
        **(_failure(tasks) if failed else {"failed_beside": _failed(tasks)}),
    )


def _object(value: Any) -> dict[str, Any]:
    """A JSON object; empty where the task returned none."""
    return value if isinstance(value, dict) else {}


def _moment(value: str | None) -> datetime | None:
    return datetime.fromisoformat(value) if value else None


def _numbers(values: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if isinstance(value, int | float)}


def _failure(tasks: Sequence[Any]) -> dict[str, Any]:
    """What failed first."""
    failed = [task for task in tasks if task.state == TaskInstanceState.FAILED]
    if not failed:
        return {}
    first = min(failed, key=lambda task: task.ended_at)
    return {"failed_task": first.task_id, "problem": first.problem}


def _busy_seconds(tasks: Sequence[Any]) -> float:
    """How long at least one task was at work, in seconds."""
    spans = sorted((task.started_at, task.ended_at) for task in tasks if task.started_at and task.ended_at)
    busy, reached = timedelta(), None
    for start, end in spans:
        begun = start if reached is None else max(start, reached)
        # one that ended before it began: the clock was set back
        if end > begun:
            busy += end - begun
            reached = end
    return busy.total_seconds()


def _failed(tasks: Sequence[Any]) -> tuple[str, ...]:
    return tuple(task.task_id for task in tasks if task.state == TaskInstanceState.FAILED)


def _stopped(xcoms: dict[tuple[str, str], Any]) -> str | None:
    told = next((value for (_, key), value in xcoms.items() if key == XCOM_STOPPED), None)
    return str(told["sentence"]) if isinstance(told, dict) and told.get("sentence") else None


def _note(tasks: Sequence[Any], document: DagDocument) -> str | None:
    """What the commit says, where it came to that; otherwise what the samples task says."""
    notes = {task.task_id: task.note for task in tasks}
    for role in ("commit", "samples"):
        name = next((task.task_id for task in document.tasks if task.role == role), None)
        if name is not None and notes.get(name):
            return str(notes[name])
    return None
