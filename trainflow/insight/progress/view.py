"""What a look at a pipeline shows: values, for what draws them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from trainflow.states import DagRunState


class TaskLine(msgspec.Struct, frozen=True):
    """One task of the run under way."""

    task_id: str
    state: str | None
    started_at: datetime | None
    ended_at: datetime | None
    progress: dict[str, Any] | None
    note: str | None
    problem: str | None
    retry_at: datetime | None


class RunLine(msgspec.Struct, frozen=True):
    """One run that has ended. `seconds` from start to end; `metrics` are prequential."""

    dag_id: str
    run_id: str
    number: int
    state: str
    note: str | None
    seconds: float
    #: of these, how long any of its tasks was at work: without what it waited for a process that had imported the model
    busy_seconds: float
    partitions: int
    rows: int
    start: datetime | None
    end: datetime | None
    metrics: dict[str, float]
    checkpoint: dict[str, Any] | None
    problem: str | None = None
    log_path: str | None = None
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


@dataclass
class Totals:
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
            self.seconds += run.seconds
        for task in run.failed_beside:
            self.failed_beside[task] = self.failed_beside.get(task, 0) + 1
        for name, value in run.metrics.items():
            rows, total = self.weighted.get(name, (0.0, 0.0))
            self.weighted[name] = (rows + run.rows, total + run.rows * value)

    @property
    def metrics(self) -> dict[str, float]:
        """Metric → mean over all rows it was measured on."""
        return {name: total / rows for name, (rows, total) in self.weighted.items() if rows}


class ProgressView(msgspec.Struct, frozen=True):
    """One look at a pipeline."""

    dag_id: str
    finished: bool
    current_number: int | None
    tasks: list[TaskLine]
    new_runs: list[RunLine]
    last_run: RunLine | None
    runs: int
    rows: int
    metrics: dict[str, float]
    trained: int | None
    total: int | None
    watermark: datetime | None
    rows_per_second: float | None
    eta_seconds: float | None
    #: where the head's artifacts are
    head_uri: str | None = None
    #: it was under way before anybody followed here: what came before is not told again
    joined: bool = False
    #: task → in how many runs that ended well it failed
    failed_beside: dict[str, int] = {}


def last_of(before: RunLine | None, ended: RunLine) -> RunLine:
    """The run that says how it ended: the newest, whichever ended last; or one that failed."""
    if before is None or ended.state == DagRunState.FAILED or ended.dag_id != before.dag_id:
        return ended
    return ended if ended.number > before.number else before
