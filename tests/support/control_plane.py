"""A scheduler and its database without processes: what is queued lands in a list, a test plays the attempts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Row

from tests.support.fresh_schema import make_schema
from trainflow.clock import ManualClock
from trainflow.executors.executor import Executor, ExecutorHost, InFlightAttempt
from trainflow.messages.execution_api import AttemptFailure, Outcome, OutcomeState, Reply, Start, Started
from trainflow.messages.workload import AttemptKey, DagSource, ExecuteTask, ProcessExit, ProcessIdentity
from trainflow.metadata import run_creation
from trainflow.metadata.applied_change import AppliedChange
from trainflow.metadata.database import Database
from trainflow.metadata.execution_service import ExecutionService
from trainflow.metadata.leases import Leases
from trainflow.metadata.queries import dag_queries, run_queries, service_queries, task_queries
from trainflow.metadata.queries.dag_queries import Versions
from trainflow.scheduler.loop import Scheduler
from trainflow.serialization.document import DagDocument, TaskDocument, encode
from trainflow.settings.model import DatabaseSettings, Settings
from trainflow.settings.project import Project, project_at
from trainflow.states import DagRunType, TriggeredBy

START = datetime(2026, 1, 1, tzinfo=UTC)


class RecordingExecutor(Executor):
    """Remembers what it was told; `alive` says what a later one finds when it adopts."""

    def __init__(self) -> None:
        self.workloads: list[ExecuteTask] = []
        #: processes that wait for an attempt
        self.waiting: list[ProcessIdentity] = []
        #: what was claimed for them, with what they are told
        self.claimed: dict[AttemptKey, tuple[ProcessIdentity, Started]] = {}
        self.alive: set[AttemptKey] = set()
        self.terminated: list[AttemptKey] = []

    def start(self, host: ExecutorHost) -> None:
        return None

    def queue_workload(self, workload: ExecuteTask) -> None:
        self.workloads.append(workload)
        self.alive.add(workload.key)

    def waiting_processes(self, workload: ExecuteTask) -> Sequence[ProcessIdentity]:
        return self.waiting

    def queue_claimed(self, workload: ExecuteTask, process: ProcessIdentity, started: Started) -> None:
        self.waiting.remove(process)
        self.claimed[workload.key] = process, started
        self.queue_workload(workload)

    def sync(self) -> None:
        return None

    def adopt(self, attempts: Sequence[InFlightAttempt]) -> list[AttemptKey]:
        return [attempt.key for attempt in attempts if attempt.key not in self.alive]

    def terminate(self, key: AttemptKey) -> None:
        self.terminated.append(key)

    def running(self) -> frozenset[AttemptKey]:
        return frozenset(self.alive)

    def end(self, grace: timedelta) -> None:
        return None

    def take(self) -> list[ExecuteTask]:
        """What was handed over since the last call, in order."""
        taken, self.workloads = self.workloads, []
        return taken


class ControlPlane:
    """One scheduler over a database; several may share one."""

    def __init__(
        self,
        project: Project,
        *,
        clock: ManualClock,
        settings: Settings | None = None,
        database_url: str | None = None,
    ) -> None:
        self.project = project
        self.settings = settings or Settings()
        if database_url is not None:
            self.settings = msgspec.structs.replace(self.settings, database=DatabaseSettings(url=database_url))
        self.clock = clock
        self.database = Database.of(project.home, self.settings)
        make_schema(self.database)
        self.versions = Versions()
        self.executor = RecordingExecutor()
        self.changes: list[AppliedChange] = []
        self.service = ExecutionService(
            self.database,
            clock,
            self.versions,
            lost_attempts=self.settings.engine.lost_attempts,
            on_change=self._changed,
        )
        with self.database.transaction() as connection:
            self.service_id = service_queries.register(
                connection, kind="engine", hostname="here", pid=1, process_started=1.0, now=clock.now()
            )
        self.leases = Leases(clock.monotonic, self.settings.engine.dead_after_seconds)
        self.scheduler = Scheduler(
            self.database,
            self.executor,
            clock=clock,
            versions=self.versions,
            project=project,
            settings=self.settings,
            service_id=self.service_id,
        )
        self.service.follow_up = self.scheduler

    def _changed(self, change: AppliedChange) -> None:
        self.changes.append(change)
        self.scheduler.notice(change)

    # -- what people do --------------------------------------------------------------------------------------------

    def add_dag(self, dag_id: str, *tasks: TaskDocument, **more: Any) -> DagDocument:
        """Make these tasks (in topological order) the current version of a DAG."""
        document = DagDocument(dag_id=dag_id, tasks=list(tasks), **more)
        with self.database.transaction() as connection:
            source = DagSource(f"pipelines/{dag_id}.py")
            dag_queries.store(connection, document, encode(document), source, self.clock.now())
        return document

    def add_run(self, dag_id: str, run_id: str = "r1", **more: Any) -> int:
        """Queue a run, as a person does."""
        with self.database.transaction() as connection:
            created = run_creation.create(
                connection,
                dag_id=dag_id,
                run_id=run_id,
                run_type=DagRunType.MANUAL,
                triggered_by=TriggeredBy.TEST,
                conf={},
                now=self.clock.now(),
                **more,
            )
        self.scheduler.sweep()
        return created

    # -- what attempts do ------------------------------------------------------------------------------------------

    def tick(self) -> list[ExecuteTask]:
        """One tick; what was handed over by it."""
        self.scheduler.tick()
        return self.executor.take()

    def claim(self, workload: ExecuteTask, pid: int = 100) -> Reply:
        """The attempt claims itself."""
        return self.service.handle(Start(workload.key, pid, 1.0, "here"))

    def report(self, workload: ExecuteTask, state: OutcomeState = OutcomeState.SUCCESS, **more: Any) -> Reply:
        """The attempt says how it ended, and its process is gone."""
        self.executor.alive.discard(workload.key)
        if state is OutcomeState.FAILED:
            more.setdefault("problem", AttemptFailure("it failed"))
        return self.service.handle(Outcome(workload.key, state, **more))

    def exit(self, workload: ExecuteTask) -> None:
        """The attempt's process is killed."""
        self.executor.alive.discard(workload.key)
        self.service.exited(workload.key, ProcessExit(signal=9))

    def play(self, workload: ExecuteTask, state: OutcomeState = OutcomeState.SUCCESS, **more: Any) -> Reply:
        """Claim and report."""
        self.claim(workload)
        return self.report(workload, state, **more)

    # -- what is in the database -----------------------------------------------------------------------------------

    def run(self, dag_run_id: int) -> Row[Any]:
        """The row of a run."""
        with self.database.reading() as connection:
            return run_queries.by_id(connection, dag_run_id)

    def task(self, dag_run_id: int, task_id: str) -> Row[Any]:
        """The row of a task instance."""
        with self.database.reading() as connection:
            rows = task_queries.rows_of_run(connection, dag_run_id)
        return next(row for row in rows if row.task_id == task_id)

    def states(self, dag_run_id: int) -> dict[str, str | None]:
        """Task id → state."""
        with self.database.reading() as connection:
            return {row.task_id: row.state for row in task_queries.rows_of_run(connection, dag_run_id)}

    def close(self) -> None:
        """Give the connections back."""
        self.database.close()


@contextmanager
def control_plane(folder: Path, *, clock: ManualClock | None = None, **more: Any) -> Iterator[ControlPlane]:
    """A control plane whose home lies in `folder`, and its database too unless `database_url` says otherwise."""
    project = project_at(folder)
    project.home.create()
    plane = ControlPlane(project, clock=clock or ManualClock(START), **more)
    try:
        yield plane
    finally:
        plane.close()


@contextmanager
def control_plane_with_run(folder: Path) -> Iterator[ControlPlane]:
    """A control plane over SQLite in which a run of a DAG `d` with one task `a` is queued."""
    with control_plane(folder) as plane:
        plane.add_dag("d", empty_task("a"))
        plane.add_run("d")
        yield plane


def empty_task(task_id: str, *upstream: str, **more: Any) -> TaskDocument:
    """A task that is never executed."""
    return TaskDocument(task_id=task_id, operator="EmptyOperator", upstream=list(upstream), **more)
