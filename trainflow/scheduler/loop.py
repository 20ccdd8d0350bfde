"""The scheduler's tick: a list of named phases, each one transaction.

What it remembers between ticks are only hints (which runs to look at, whether a run may start): losing them costs one
`sweep`, which looks at everything, at most `poll_seconds` later.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy import Connection

from trainflow.clock import Clock
from trainflow.deadlines import MonotonicDeadlines, seconds_left
from trainflow.errors import LostTransition
from trainflow.executors.executor import Executor
from trainflow.failpoint import hit
from trainflow.messages.execution_api import Outcome
from trainflow.metadata.applied_change import AppliedChange
from trainflow.metadata.database import Database
from trainflow.metadata.queries import (
    attempt_queries,
    drain_queries,
    live_queries,
    notification_queries,
    queued_run_queries,
    run_queries,
    status_queries,
    task_queries,
)
from trainflow.metadata.queries.dag_queries import Versions
from trainflow.metadata.queries.drain_queries import DrainKind
from trainflow.metadata.queries.task_queries import TasksOfRuns, TaskStateRow
from trainflow.scheduler.error_containment import Each, Isolation, together
from trainflow.scheduler.idle_runs import IdleRuns
from trainflow.scheduler.run_decision import RunDecision, decide, stop_notice
from trainflow.scheduler.task_queue import TaskQueue
from trainflow.serialization.document import ChainDocument, DagDocument
from trainflow.settings.model import Settings
from trainflow.settings.outbox_channels import Channels, channels_of, told_of_end
from trainflow.settings.project import Project
from trainflow.states import DagRunState, TaskInstanceState

log = logging.getLogger(__name__)

_T = TaskInstanceState


@dataclass(slots=True)
class Hints:
    """What is worth looking at. Forgotten, it costs one look at everything."""

    runs: set[int] = field(default_factory=set)
    may_start: bool = False
    may_queue: bool = False

    def copy(self) -> Hints:
        """The same, to be used up."""
        return Hints(set(self.runs), self.may_start, self.may_queue)


class Phase(NamedTuple):
    """One step of a tick. A crash between any two of them must do no harm; the simulation tries each."""

    name: str
    run: Callable[[datetime], None]


class Scheduler:
    """Decides what runs next, over one database, for one executor."""

    def __init__(
        self,
        database: Database,
        executor: Executor,
        *,
        clock: Clock,
        versions: Versions,
        project: Project,
        settings: Settings,
        service_id: int,
    ) -> None:
        self._database = database
        self._clock = clock
        self._versions = versions
        self._channels = channels_of(settings)
        self.task_queue = TaskQueue(
            executor, versions=versions, project=project, settings=settings, service_id=service_id
        )
        self._hand_over = Phase("hand over", self.task_queue.hand_over)
        #: keeps one run from stopping all others
        self.isolation = Isolation(database, versions, self._was_set_aside, channels=self._channels)
        self._hints = Hints(may_start=True, may_queue=True)
        #: the look for retries that are due; None: look now
        self._next_look: float | None = None
        #: running runs that may not take for ever, by id and start; those that have taken too long
        self._time_outs: MonotonicDeadlines[tuple[int, datetime]] = MonotonicDeadlines(clock)
        self._too_long: set[tuple[int, datetime]] = set()
        #: what was decided with an outcome, and counts once `notice` is told; or that it is not known whether it counts
        self._decided: AppliedChange | None = None
        self._is_unsure = False
        #: runs with nothing under way; those that ran when all was looked at
        self._idle, self._running = IdleRuns(), list[int]()
        #: stops queueing, so that an engine can end
        self.draining = False
        #: called when a notice is to be delivered
        self.on_notice: Callable[[], None] = lambda: None

    # -- what others tell it ---------------------------------------------------------------------------------------

    def notice(self, change: AppliedChange) -> None:
        """Look there in the next tick: something changed. What was decided with it is handed over."""
        if change is self._decided:
            self._decided = None
            self.run(self._hand_over, self._clock.now())
            hit(f"scheduler: {self._hand_over.name}")
            return
        if change.ended:
            self._hints.runs.add(change.dag_run_id)
        if change.later:
            self._next_look = None
        if change.triggered:
            self._hints.may_start = True
        self._hints.may_queue = True

    def sweep(self) -> None:
        """Look at everything in the next tick: the safety net, and what is due after another process wrote."""
        self._hints.runs.update(self._database.read(self._running_runs))
        self._hints.runs -= self.isolation.untouchable
        self._hints.may_start = self._hints.may_queue = True
        self._next_look, self._is_unsure = None, False

    def _running_runs(self, connection: Connection) -> list[int]:
        self.task_queue.drains = drain_queries.listing(connection)
        self._running = run_queries.running(connection)
        return self._running

    def look_for_others(self) -> None:
        """Look whether another scheduler has left something to this one, which nothing else tells."""
        if self.task_queue.others and not self.draining:
            self._hints.may_queue = self._hints.may_queue or self._database.read(status_queries.is_any_scheduled)
        if self._running and not self.draining:
            idle = self._idle.due(self._database.read(live_queries.idle_runs))
            self._hints.runs |= idle - self.isolation.untouchable

    # -- the tick --------------------------------------------------------------------------------------------------

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The steps of a tick, in order."""
        return (
            Phase("reschedule what is due", self._reschedule_due),
            Phase("decide and queue", self._decide_and_queue),
            self._hand_over,
        )

    def tick(self) -> None:
        """Do what can be done now. Does nothing, and costs nothing, when no hint says that something is to be done."""
        if not (self.busy or self.task_queue.waits or self._next_look is None):
            return
        now = self._clock.now()
        for phase in self.phases:
            self.run(phase, now)
            hit(f"scheduler: {phase.name}")

    def run(self, phase: Phase, now: datetime) -> None:
        """One step of a tick; again when its transaction lost, or it is not known whether it counts."""
        self._database.retrying(partial(phase.run, now), before_again=self._start_over)

    def _start_over(self) -> None:
        """A transaction lost against another one, and nothing of it has happened; or all of it has, unheard of."""
        self.task_queue.start_over()
        self.sweep()

    @property
    def busy(self) -> bool:
        """Whether there is something to do right now."""
        hinted = bool(self._hints.runs) or self._hints.may_start or (self._hints.may_queue and not self.draining)
        return hinted or self._is_unsure or ((left := self.seconds_left) is not None and left <= 0)

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the next retry is due, or the next run has taken too long."""
        retry = None if self._next_look is None else self._next_look - self._clock.monotonic()
        return min((left for left in (retry, self._time_outs.seconds_left) if left is not None), default=None)

    def _reschedule_due(self, now: datetime) -> None:
        if self._next_look is not None and self._next_look > self._clock.monotonic():
            return
        with self._database.reading() as connection:
            seconds = task_queries.seconds_until_due(connection, now)
        if seconds > 0:
            self._next_look = self._clock.monotonic() + seconds
            return
        with self._database.transaction() as connection:
            due = task_queries.due(connection, now)
            waiting = {_T.UP_FOR_RETRY, _T.UP_FOR_RESCHEDULE}
            ids = [row.id for row in due]
            task_queries.begin_move_all(
                connection, ids, leaving=waiting, to=_T.SCHEDULED, scheduled_at=now, retry_at=None
            )
        self._next_look = None
        self._hints.may_queue = True

    def _decide_and_queue(self, now: datetime) -> None:
        """All that is decided is decided in one transaction: one commit between the end of a task and the next."""
        if self._is_unsure:
            self.sweep()
        over = self._time_outs.take_over()
        self._too_long.update(over)
        hints = self._hints
        hints.runs.update(dag_run_id for dag_run_id, _ in over)
        if not (hints.runs or ((hints.may_start or hints.may_queue) and not self.draining)):
            return

        def work(connection: Connection, each: Each) -> None:
            self._hints = hints.copy()
            self.task_queue.forget()
            self._decide_runs(now, connection, each)
            self._start_runs(now, connection, each)
            self._queue_tasks(now, connection, each)

        self.isolation.each(work, now)

    # -- what follows from an outcome, in its transaction: see `trainflow.metadata.execution_service.FollowUp` ---------

    @property
    def ready(self) -> bool:
        """Whether the next tick has nothing to do. It decides for all tasks of a run that has several under way."""
        queue, waits = self.task_queue, self._hints.runs or self._hints.may_start
        return not (self.draining or waits or queue.waits or queue.is_unsure or queue.widest > 1)

    def begin(self, connection: Connection, outcome: Outcome) -> Callable[[AppliedChange, datetime], None]:
        """Ask for what deciding about the run of an attempt needs, whose end is written. Call what is returned."""
        asked = run_queries.ask_running_of_attempt(connection, outcome.key)
        tasks = task_queries.of_run_of_attempt(connection, outcome.key)
        triggered = {run.dag_id for run in outcome.triggered_runs}

        def decide_and_queue(change: AppliedChange, now: datetime) -> None:
            self._decided, self._hints = change, Hints(may_start=change.triggered, may_queue=True)
            row = asked()
            if row is not None and row.id not in self.isolation.untouchable:
                self._decide_or_look_again(connection, row, tasks, now)
                if self._hints.may_start:
                    self._start_next_runs(connection, row.dag_id, triggered, now)
            if not (self._hints.runs or self._hints.may_start):
                self._queue_tasks(now, connection, together)
            if row is not None and not self._database.is_sqlite and tasks.is_any_active(row.id):
                # another one of them may be ending in another process: neither transaction has seen the other's end
                self._hints.runs.add(row.id)

        return decide_and_queue

    def _start_next_runs(self, connection: Connection, dag_id: str, triggered: set[str], now: datetime) -> None:
        """Start what waited for the end of a run of this DAG. Runs of others are left to the next tick, and so is a DAG
        that another scheduler has locked: a transaction that holds a run must not wait for one."""
        rows = queued_run_queries.ask_startable_of(connection, dag_id, now)()
        if rows is None:
            return
        self._hints.may_start = bool(triggered - {dag_id})
        self._start(rows, now, connection, together)

    def take_back(self) -> None:
        """Look at everything in the next tick: it is not known whether what was decided counts."""
        self._decided, self._is_unsure = None, True
        self.task_queue.start_over()

    # -- runs ------------------------------------------------------------------------------------------------------

    def _decide_runs(self, now: datetime, connection: Connection, each: Each) -> None:
        runs, self._hints.runs = self._hints.runs, set()
        if not runs:
            return
        tasks = task_queries.of_runs(connection, runs)
        for row in run_queries.rows_of(connection, runs):
            each(row.id, partial(self._decide_or_look_again, connection, row, tasks, now))

    def _decide_or_look_again(self, connection: Connection, row: Any, tasks: TasksOfRuns, now: datetime) -> None:
        try:
            self._decide_run(connection, row, tasks.of(row.id), now)
        except LostTransition as lost:
            log.info("%s", lost)
            self._hints.runs.add(row.id)

    def _decide_run(self, connection: Connection, row: Any, tasks: list[TaskStateRow], now: datetime) -> None:
        document, _ = self._versions.get(connection, row.version_id)
        past, no_place = None, False
        if any(task.depends_on_past for task in document.tasks):
            previous = run_queries.previous(connection, row.dag_id, row.number)
            if previous is not None:
                past = task_queries.past_states(connection, previous.id, document)
                no_place = queued_run_queries.waits_for_free_slot(connection, previous, now)
        decision = decide(
            document,
            tasks,
            timed_out=self._takes_too_long(row, document, now),
            past=past,
            past_has_no_place=no_place,
        )
        if decision.ends is not None or decision.yields:
            self._time_outs.stop((row.id, row.started_at))
        told = told_of_end(self._channels, trains=document.chain is not None)
        self._carry_out(connection, row, decision, now, channels=told)
        if decision.ends is DagRunState.FAILED and document.chain is not None:
            self._have_told(connection, row, document.chain, decision.note, now)

    def _takes_too_long(self, row: Any, document: DagDocument, now: datetime) -> bool:
        if document.dagrun_timeout_seconds is None or row.started_at is None:
            return False
        run, left = (row.id, row.started_at), seconds_left(row.started_at, document.dagrun_timeout_seconds, now)
        if left == 0.0 and run not in self._time_outs:
            self._too_long.add(run)
        if run not in self._too_long:
            self._time_outs.begin(run, left)
        return run in self._too_long

    def _have_told(
        self, connection: Connection, row: Any, chain: ChainDocument, note: str | None, now: datetime
    ) -> None:
        failure = status_queries.first_failure(connection, row.id)
        last_success = status_queries.last_success(connection, row.dag_id, row.number)
        notice = stop_notice(chain, row, failure, last_success=last_success, note=note)
        notification_queries.add(connection, notice, now)
        self.on_notice()

    def _was_set_aside(
        self, connection: Connection, row: Any, chain: ChainDocument | None, note: str, now: datetime
    ) -> None:
        """Others may wait for the end of such a run."""
        self._time_outs.stop((row.id, row.started_at))
        self._hints.may_start = True
        self._hints.runs.update(run_queries.running_ids(connection, row.dag_id))
        self._hints.runs.discard(row.id)
        if chain is not None:
            self._have_told(connection, row, chain, note, now)

    def _carry_out(
        self, connection: Connection, row: Any, decision: RunDecision, now: datetime, *, channels: Channels
    ) -> None:
        for step in decision.steps:
            if step.ends_attempts:
                attempt_queries.end_of_tasks(connection, step.ids, outcome="cancelled", now=now)
            values: dict[str, Any] = {"scheduled_at": now} if step.to is _T.SCHEDULED else {"ended_at": now}
            if step.problem is not None:
                values["problem"] = step.problem
            task_queries.begin_move_all(connection, step.ids, leaving={step.leaving}, to=step.to, **values)
            if step.to is _T.SCHEDULED:
                self._hints.may_queue = True
        if decision.released and row.released_at is None and run_queries.release(connection, row.id, now):
            log.info("run %s of %s: only tasks after the commit are left", row.run_id, row.dag_id)
            self._hints.may_start = True
        if decision.yields:
            run_queries.put_back(connection, row)
            log.info("run %s of %s: queued again, behind the cleared run that it waits for", row.run_id, row.dag_id)
            self._hints.may_start = True
        if decision.ends is None:
            return
        others = run_queries.finish(connection, row, to=decision.ends, now=now, note=decision.note, channels=channels)
        log.info("run %s of %s: %s", row.run_id, row.dag_id, decision.ends)
        self._hints.may_start = True
        # tasks of the next run may wait for this one's (depends_on_past)
        self._hints.runs.update(others)

    def _start_runs(self, now: datetime, connection: Connection, each: Each) -> None:
        if not self._hints.may_start or self.draining:
            return
        self._hints.may_start = False
        self._start(queued_run_queries.startable(connection, now), now, connection, each)

    def _start(self, rows: list[Any], now: datetime, connection: Connection, each: Each) -> None:
        started: list[task_queries.Move] = []
        for row in rows:
            if self.task_queue.drains.get(DrainKind.DAG, row.dag_id) is not None:
                continue
            each(row.id, partial(self._start_run, connection, row, now, started))
        self._decide_runs(now, connection, each)
        for move in started:
            move.check()  # its row was locked: it is there

    def _start_run(self, connection: Connection, row: Any, now: datetime, started: list[task_queries.Move]) -> None:
        move = run_queries.begin_start(
            connection, row, self._versions, now, has_tasks=row.has_tasks, channels=self._channels
        )
        started.append(move)
        self._hints.runs.add(row.id)
        log.info("run %s of %s: running", row.run_id, row.dag_id)

    # -- tasks -----------------------------------------------------------------------------------------------------

    def _queue_tasks(self, now: datetime, connection: Connection, each: Each) -> None:
        if not self._hints.may_queue or self.draining:
            return
        self._hints.may_queue = False
        again = self.task_queue.queue_all(now, self.isolation.untouchable, connection, each)
        self._hints.may_queue = again
