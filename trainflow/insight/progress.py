"""Follow a pipeline: what is new since the last look, where the chain is, what runs, how fast it goes.

Read from the database alone, so that the engine's own terminal and a second one see the same. A look waits for nothing,
and costs what is new and what is open, however long the history is; two looks never tell the same event twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection

from trainflow.engine.mlflow_deliveries import results_by_role
from trainflow.insight.ended_runs import RunLine, RunTotals, last_of, run_line
from trainflow.metadata.queries import status_queries, xcom_queries
from trainflow.metadata.queries.dag_queries import Versions
from trainflow.metadata.queries.status_queries import FollowedRuns
from trainflow.samples.partitions import place_of
from trainflow.samples.throughput import HISTORY
from trainflow.serialization.document import ChainDocument
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


class RunEnd(NamedTuple):
    """When a run committed, for how many seconds it was at work, and how many partitions it took the chain on by."""

    ended_at: datetime
    seconds: float
    partitions: int


class ProgressFeed:
    """Follows one DAG in what came of the runs that a person started, `roots`, and of every run these triggered.

    `root_id` is its own (None: its runs are triggered). What that one triggers in DAGs that are not followed is told
    here too. It has ended when none of the roots has an open run left: any of them may trigger one of this DAG.
    """

    def __init__(
        self,
        dag_id: str,
        root_id: int | None,
        chain: ChainDocument | None,
        now: datetime,
        *,
        roots: frozenset[int],
        followed: frozenset[str] = frozenset(),
        watermark: datetime | None = None,
        outdated: int | None = None,
    ) -> None:
        self.dag_id = dag_id
        #: the number of the run that is gone on with, where the pipeline was changed since it began
        self.outdated = outdated
        self.chain = chain
        self._runs = FollowedRuns(dag_id, root_id, roots=roots, followed=followed)
        self.started_at = now
        self.totals = RunTotals()
        #: the newest runs that committed, for the estimate of the rest
        self._ends: deque[RunEnd] = deque(maxlen=HISTORY)
        self.last_run: RunLine | None = None
        self._versions = Versions()
        self._ended: set[int] = set()
        self._cursor = 0
        self._joined = False
        self._watermark = watermark
        #: whether anything has said where the chain is
        self._knows_head = watermark is not None
        self._head_uri: str | None = None

    def begins_after(self, dag_run_id: int, *, joined: bool = False) -> None:
        """Leave out what came before: the root's runs up to this one. `joined`: a run was under way already."""
        self._cursor = max(self._cursor, dag_run_id)
        self._joined = joined

    def look(self, connection: Connection, now: datetime) -> ProgressView:
        """Read what is new. Costs what has happened since the last look, not what ever happened."""
        # in this order: what ends meanwhile is told the next time at the latest
        open_runs = self._runs.open(connection)
        new_runs = self._take_ended(connection, open_runs)
        running = [row for row in open_runs if row.state == DagRunState.RUNNING]
        # one that was released goes on beside the one that trains
        current = next((row for row in running if row.released_at is None), running[0] if running else None)
        tasks = _task_lines(connection, current.id) if current is not None else []
        if current is not None:
            self._see_head(connection, current)
        finished = not open_runs and not self._runs.any_open(connection)
        return self._view(now, new_runs, current, tasks, finished=finished)

    def _take_ended(self, connection: Connection, open_runs: Sequence[Any]) -> list[RunLine]:
        lines = []
        for row in self._runs.ended(connection, self._cursor):
            if row.id in self._ended:
                continue
            self._ended.add(row.id)
            line = run_line(connection, row, self._versions)
            self.totals.add(line)
            self.last_run = last_of(self.last_run, line)
            if line.checkpoint is not None and line.dag_id == self.dag_id and row.ended_at is not None:
                self._ends.append(RunEnd(row.ended_at, line.busy_seconds, line.partitions + line.holes))
            if line.checkpoint is not None and row.dag_id == self.dag_id:
                self._watermark = datetime.fromisoformat(line.checkpoint["watermark"])
                self._knows_head = True
                self._head_uri = line.checkpoint["uri"]
            elif row.dag_id == self.dag_id:
                # a run that committed nothing still says where the chain is
                self._see_head(connection, row)
            lines.append(line)
        self._move_cursor(open_runs)
        return lines

    def _move_cursor(self, open_runs: Sequence[Any]) -> None:
        """Pass over everything up to the oldest run that has not ended: it needs no second look."""
        newest = max(self._ended, default=self._cursor)
        self._cursor = max(self._cursor, min(newest, open_runs[0].id - 1) if open_runs else newest)
        self._ended = {number for number in self._ended if number > self._cursor}

    def _see_head(self, connection: Connection, run: Any) -> None:
        """The head that the run under way read: where the chain was before it."""
        if run.dag_id != self.dag_id:
            return
        document, _ = self._versions.get(connection, run.version_id)
        head = results_by_role(document, xcom_queries.of_run(connection, run.id)).get("checkpoint")
        if isinstance(head, dict):
            self._knows_head = True
        if isinstance(head, dict) and head.get("watermark"):
            self._watermark = datetime.fromisoformat(head["watermark"])
            self._head_uri = head["uri"]

    def _view(
        self, now: datetime, new_runs: list[RunLine], current: Any, tasks: list[TaskLine], *, finished: bool
    ) -> ProgressView:
        trained, total = self._partitions()
        elapsed = (now - self.started_at).total_seconds()
        rate = self.totals.rows / elapsed if self.totals.rows and elapsed > 0 else None
        return ProgressView(
            dag_id=self.dag_id,
            finished=finished,
            current_number=current.number if current is not None else None,
            tasks=tasks,
            new_runs=new_runs,
            last_run=self.last_run,
            runs=self.totals.runs,
            rows=self.totals.rows,
            metrics=self.totals.metrics,
            trained=trained,
            total=total,
            watermark=self._watermark,
            rows_per_second=rate,
            joined=self._joined,
            eta_seconds=eta_seconds(list(self._ends), trained, total, now),
            head_uri=self._head_uri,
            failed_beside=dict(self.totals.failed_beside),
        )

    def _partitions(self) -> tuple[int | None, int | None]:
        """(reached by the watermark, in the table); None where that is not known."""
        samples = self.chain.samples if self.chain else None
        if samples is None:
            return None, None
        total = place_of(samples, samples.end) if samples.end else None
        if not self._knows_head:
            return None, total
        trained = place_of(samples, self._watermark) if self._watermark else 0
        return max(0, trained), total


def eta_seconds(ends: Sequence[RunEnd], trained: int | None, total: int | None, now: datetime) -> float | None:
    """Estimate how long the rest of a table takes, in seconds, from the runs that have ended; None where too little is
    known.

    Of the first run only what its tasks took counts, and nothing as soon as there is a second one: it waits for a
    process to import the model, which later runs find imported. What the run under way has taken is taken off.
    """
    if not ends or trained is None or total is None:
        return None
    first, last = ends[0], ends[-1]
    partitions = sum(each.partitions for each in ends[1:])
    seconds = (last.ended_at - first.ended_at).total_seconds()
    if not partitions:
        partitions, seconds = first.partitions, first.seconds
    if not partitions:
        return None
    rest = max(0, total - trained) * seconds / partitions
    return max(0.0, rest - (now - last.ended_at).total_seconds()) if rest else 0.0


def _task_lines(connection: Connection, dag_run_id: int) -> list[TaskLine]:
    return [
        TaskLine(**{name: getattr(row, name) for name in TaskLine.__struct_fields__})
        for row in status_queries.tasks_of(connection, dag_run_id)
    ]
