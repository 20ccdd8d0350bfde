"""Follow a pipeline: what is new since the last look, where the chain is, what runs, how fast it goes.

Read from the database alone, so that the engine's own terminal and a second one see the same.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from sqlalchemy import ColumnElement, Connection, select

from trainflow.engine.ended_run import run_line
from trainflow.engine.mirrored_run import results_by_role
from trainflow.engine.views import RunLine, TaskLine, Totals, View, last_of
from trainflow.metadata import xcom_queries
from trainflow.metadata.dag_queries import Versions
from trainflow.metadata.run_queries import RUN
from trainflow.metadata.task_queries import TASK
from trainflow.serialization.document import ChainDocument
from trainflow.states import RUN_FINISHED, DagRunState

_OPEN = sorted(set(DagRunState) - RUN_FINISHED)


class Following:
    """Follows one DAG in what came of the runs that a person started, `roots`, and of every run these triggered.

    `root_id` is its own (None: its runs are triggered). What that one triggers in DAGs that nobody follows is told here
    too. It has ended when none of the roots has an open run left: any of them may trigger one of this DAG.
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
        outdated: str | None = None,
    ) -> None:
        self.dag_id = dag_id
        #: the run that is gone on with, where the pipeline was changed since it began
        self.outdated = outdated
        self.chain = chain
        self._root_id = root_id
        self._roots = sorted(roots)
        self._followed = sorted(followed)
        self.started_at = now
        self.totals = Totals()
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

    # -- which runs ------------------------------------------------------------------------------------------------

    @cached_property
    def _told(self) -> ColumnElement[bool]:
        """Those that are told."""
        return RUN.c.root_id.in_(self._roots) & self._mine_or_untold

    @cached_property
    def _told_open(self) -> ColumnElement[bool]:
        """The same, as open ones are looked for."""
        return self._of_roots & self._mine_or_untold

    @cached_property
    def _of_roots(self) -> ColumnElement[bool]:
        # of all runs of a chain few are open: they are found by their state, and not by an index of the roots
        return (RUN.c.root_id + 0).in_(self._roots)

    @property
    def _mine_or_untold(self) -> ColumnElement[bool]:
        """Runs of this DAG, and of those that its own root has triggered and nobody follows."""
        mine = RUN.c.dag_id == self.dag_id
        if self._root_id is None:
            return mine
        return mine | ((RUN.c.root_id == self._root_id) & RUN.c.dag_id.not_in(self._followed))

    # -- a look ----------------------------------------------------------------------------------------------------

    def look(self, connection: Connection, now: datetime) -> View:
        """Read what is new. Costs what has happened since the last look, not what ever happened."""
        new_runs = self._take_ended(connection)
        open_runs = self._open(connection, self._told_open)
        running = [row for row in open_runs if row.state == DagRunState.RUNNING]
        # one that was released goes on beside the one that trains
        current = next((row for row in running if row.released_at is None), running[0] if running else None)
        tasks = self._tasks(connection, current) if current is not None else []
        if current is not None:
            self._see_head(connection, current)
        finished = not open_runs and not self._open(connection, self._of_roots)
        return self._view(now, new_runs, current, tasks, finished=finished)

    def _take_ended(self, connection: Connection) -> list[RunLine]:
        rows = connection.execute(
            select(RUN)
            .where(self._told, RUN.c.id > self._cursor, RUN.c.state.in_(sorted(RUN_FINISHED)))
            .order_by(RUN.c.id)
        ).all()
        lines = []
        for row in rows:
            if row.id in self._ended:
                continue
            self._ended.add(row.id)
            line = run_line(connection, row, self._versions)
            self.totals.add(line)
            self.last_run = last_of(self.last_run, line)
            if line.checkpoint is not None and row.dag_id == self.dag_id:
                self._watermark = datetime.fromisoformat(line.checkpoint["watermark"])
                self._knows_head = True
                self._head_uri = line.checkpoint["uri"]
            elif row.dag_id == self.dag_id:
                # a run that committed nothing still says where the chain is
                self._see_head(connection, row)
            lines.append(line)
        self._move_cursor(connection)
        return lines

    def _move_cursor(self, connection: Connection) -> None:
        """Everything up to the oldest run that has not ended needs no second look."""
        oldest = connection.execute(
            select(RUN.c.id).where(self._told_open, RUN.c.state.in_(_OPEN)).order_by(RUN.c.id).limit(1)
        ).scalar()
        newest = max(self._ended, default=self._cursor)
        self._cursor = max(self._cursor, newest if oldest is None else min(newest, oldest - 1))
        self._ended = {number for number in self._ended if number > self._cursor}

    @staticmethod
    def _open(connection: Connection, which: ColumnElement[bool]) -> list[Any]:
        return list(connection.execute(select(RUN).where(which, RUN.c.state.in_(_OPEN)).order_by(RUN.c.id)))

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

    @staticmethod
    def _tasks(connection: Connection, run: Any) -> list[TaskLine]:
        rows = connection.execute(
            select(
                TASK.c.task_id,
                TASK.c.state,
                TASK.c.started_at,
                TASK.c.ended_at,
                TASK.c.progress,
                TASK.c.note,
                TASK.c.problem,
                TASK.c.retry_at,
            )
            .where(TASK.c.dag_run_id == run.id)
            .order_by(TASK.c.id)
        )
        return [TaskLine(*row) for row in rows]

    def _view(
        self, now: datetime, new_runs: list[RunLine], current: Any, tasks: list[TaskLine], *, finished: bool
    ) -> View:
        trained, total = self._partitions()
        elapsed = (now - self.started_at).total_seconds()
        rate = self.totals.rows / elapsed if self.totals.rows and elapsed > 0 else None
        return View(
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
            eta_seconds=self._eta(elapsed, trained, total),
            head_uri=self._head_uri,
        )

    def _partitions(self) -> tuple[int | None, int | None]:
        """(reached by the watermark, in the table); None where that is not known."""
        samples = self.chain.samples if self.chain else None
        if samples is None:
            return None, None
        length = timedelta(seconds=samples.length_seconds)
        total = (samples.end - samples.start) // length if samples.end else None
        if not self._knows_head:
            return None, total
        trained = (self._watermark - samples.start) // length if self._watermark else 0
        return max(0, trained), total

    def _eta(self, elapsed: float, trained: int | None, total: int | None) -> float | None:
        if not self.totals.partitions or total is None or trained is None:
            return None
        return max(0, total - trained) * elapsed / self.totals.partitions
