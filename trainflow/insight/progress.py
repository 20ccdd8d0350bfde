"""Follow a pipeline: what is new since the last look, where the chain is, what runs, how fast it goes.

Read from the database alone, so that the engine's own terminal and a second one see the same. A look waits for nothing,
and costs what is new and what is open, however long the history is; two looks never tell the same event twice. Where
the chain is the runs say that read its ledger; of a run that began earlier the ledger itself is asked once, before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection

from trainflow.engine.mlflow_dispatcher import results_by_role
from trainflow.insight.ended_runs import RunLine, RunTotals, last_of, run_line
from trainflow.metadata.queries import attempt_queries, status_queries, xcom_queries
from trainflow.metadata.queries.dag_queries import Versions
from trainflow.metadata.queries.live_queries import FollowedRuns
from trainflow.samples.partitions import place_of
from trainflow.samples.throughput import HISTORY
from trainflow.serialization.document import ChainDocument
from trainflow.states import DagRunState


class TaskLine(msgspec.Struct, frozen=True):
    """One task of the run under way. `attempts`: from when to when each was at work (None: it is); what lies between
    them, an engine that was stopped or a wait for the next try, is no work."""

    task_id: str
    state: str | None
    attempts: list[tuple[datetime, datetime | None]]
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
    #: it was under way before it was followed here: what came before is not told again
    joined: bool = False
    #: task → in how many runs that ended well it failed
    failed_beside: dict[str, int] = {}
    #: of the newest runs that committed: the first metric of each, and for how many seconds its samples had ended
    metric_trend: list[float] = []
    lag_trend: list[float] = []


class RunEnd(NamedTuple):
    """When a run committed, for how many seconds it was at work, and how many partitions it took the chain on by."""

    ended_at: datetime
    seconds: float
    partitions: int


class HeadSeen(NamedTuple):
    """Where a chain was when its ledger was read; the greater of two is the later. `watermark`: None where nothing is
    committed."""

    #: rewinds before
    generation: int
    #: the checkpoint's number; 0: there is none
    number: int
    watermark: datetime | None
    uri: str | None = None


class ProgressFeed:
    """Follows one DAG in what came of the runs that a person started, `roots`, and of every run these triggered.

    `own` are those of this DAG (none: its runs are triggered). What these trigger in DAGs that are not followed is told
    here too. It has ended when none of the roots has an open run left: any of them may trigger one of this DAG.
    """

    def __init__(
        self,
        dag_id: str,
        own: frozenset[int],
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
        #: what this home remembers of the chain, and its ledger does not
        self.loss: str | None = None
        #: runs of this DAG trigger it again until it is caught up
        self.continues_itself = False
        self.chain = chain
        self._runs = FollowedRuns(dag_id, own, roots=roots, followed=followed)
        self.started_at = now
        self.totals = RunTotals()
        #: the newest runs that committed, for the estimate of the rest
        self._ends: deque[RunEnd] = deque(maxlen=HISTORY)
        self._measured: deque[float] = deque(maxlen=HISTORY)
        self._lags: deque[float] = deque(maxlen=HISTORY)
        self.last_run: RunLine | None = None
        self._versions = Versions()
        self._ended: set[int] = set()
        self._cursor = 0
        self._joined = False
        #: None: nothing has said where the chain is
        self._head = None if watermark is None else HeadSeen(0, 0, watermark)
        #: the head before anything of what is followed
        self._head_before: HeadSeen | None = None

    @property
    def joined(self) -> bool:
        """Whether it was under way before it was followed here."""
        return self._joined

    @property
    def breaks_off(self) -> RunLine | None:
        """The run that committed and triggered no other although the chain may go on: one that was cleared when its
        successor had ended, or whose trigger was marked as skipped by hand. None: the last one said why it ends."""
        last = self.last_run
        if not self.continues_itself or last is None or last.dag_id != self.dag_id or last.checkpoint is None:
            return None
        return last if last.state == DagRunState.SUCCESS and not last.leaves_off else None

    def begins_after(self, dag_run_id: int) -> None:
        """Leave out what came before: the root's runs up to this one."""
        self._cursor = max(self._cursor, dag_run_id)

    def joins(self, connection: Connection, dag_run_id: int) -> None:
        """Go on with this run, which was under way already, and with those after it that have not ended."""
        self.begins_after(dag_run_id - 1)
        self._ended = {row.id for row in self._runs.ended(connection, self._cursor)}
        self._joined = True

    def tell_head(self, head: HeadSeen) -> None:
        """Say what the ledger says: a run that was under way, or was cleared, may have read it long ago."""
        self._head = self._head_before = head

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
            self._take(line, row.ended_at)
            lines.append(line)
        self._move_cursor(open_runs)
        return lines

    def _take(self, line: RunLine, ended_at: datetime | None) -> None:
        self.last_run = last_of(self.last_run, line)
        mine = line.dag_id == self.dag_id
        if mine:
            # a run that committed nothing still says where the chain is
            self._see(line.head, line.checkpoint)
        if mine and line.checkpoint is not None and self._is_old(line.checkpoint):
            return
        self.totals.add(line)
        if mine and line.checkpoint is not None and ended_at is not None:
            self._ends.append(RunEnd(ended_at, line.busy_seconds, line.partitions + line.holes))
            self._measured.extend([value for name, value in line.metrics.items() if name != "rows"][:1])
            if line.end is not None:
                self._lags.append((ended_at - line.end).total_seconds())

    def _is_old(self, checkpoint: dict[str, Any]) -> bool:
        """Whether a run only found again what it had committed before it was cleared."""
        return self._head_before is not None and checkpoint["number"] <= self._head_before.number

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
        self._see(head if isinstance(head, dict) else None)

    def _see(self, head: dict[str, Any] | None, committed: dict[str, Any] | None = None) -> None:
        """Take the word of a run, of the `head` it read and of what it `committed`, unless a later one is known."""
        generation = head.get("generation", 0) if head else 0
        for each in (head, committed):
            if each is not None:
                watermark = datetime.fromisoformat(each["watermark"]) if each.get("watermark") else None
                seen = HeadSeen(generation, each["number"], watermark, each.get("uri"))
                if self._head is None or seen[:2] >= self._head[:2]:
                    self._head = seen

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
            watermark=self._head.watermark if self._head else None,
            rows_per_second=rate,
            joined=self._joined,
            eta_seconds=eta_seconds(list(self._ends), trained, total, now),
            head_uri=self._head.uri if self._head else None,
            failed_beside=dict(self.totals.failed_beside),
            metric_trend=list(self._measured),
            lag_trend=list(self._lags),
        )

    def _partitions(self) -> tuple[int | None, int | None]:
        """(reached by the watermark, in the table); None where that is not known."""
        samples = self.chain.samples if self.chain else None
        if samples is None:
            return None, None
        total = place_of(samples, samples.end) if samples.end else None
        if self._head is None:
            return None, total
        trained = place_of(samples, self._head.watermark) if self._head.watermark else 0
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
    rows = status_queries.tasks_of(connection, [dag_run_id])[dag_run_id]
    begun = {row.id: row.started_at for row in rows if row.started_at is not None}
    spans: dict[int, list[tuple[datetime, datetime | None]]] = {}
    for each in attempt_queries.of_tasks(connection, list(begun)) if begun else ():
        # those before a person cleared the task count no more
        if each.started_at is not None and each.started_at >= begun[each.task_instance_id]:
            spans.setdefault(each.task_instance_id, []).append((each.started_at, each.ended_at))
    names = [name for name in TaskLine.__struct_fields__ if name != "attempts"]
    return [TaskLine(**{name: getattr(row, name) for name in names}, attempts=spans.get(row.id, [])) for row in rows]
