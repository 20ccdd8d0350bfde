"""What is going on with a DAG, as one value read from the database: what `status` shows and `why` judges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from itertools import chain
from typing import Any, NamedTuple, Self

import msgspec

from trainflow.engine.lock import running_engine
from trainflow.humanize import duration
from trainflow.insight.chains.lost_ledger_end import RememberedCheckpoint, last_committed
from trainflow.insight.refusals import is_dead_here, refusals, with_queues
from trainflow.metadata.queries import drain_queries, service_list_queries, status_queries
from trainflow.metadata.queries.drain_queries import DrainKind, Drains
from trainflow.metadata.queries.status_queries import FailedAttempt, ShownRun, ShownTask
from trainflow.metadata.sql_text import ReadableDatabase, ReadingConnection
from trainflow.observability.processes import hostname
from trainflow.serialization.document import ChainDocument, DagDocument, decode_known
from trainflow.settings.model import Settings
from trainflow.settings.project import Project
from trainflow.states import RUN_FINISHED, DagRunState, TaskInstanceState

_SCHEDULING = ("engine", "scheduler")
_TRIGGERING = ("engine", "triggerer")
#: an engine that has not renewed its lease for so many times its pause is late
_LATE = 3


class EngineSnapshot(msgspec.Struct, frozen=True):
    """Who schedules. `since`: when it started, where that is known. `silent_seconds`: for how long it has written
    nothing to its database, where that is longer than it should be (else None), and `problem` says so."""

    alive: bool = False
    pid: int | None = None
    hostname: str | None = None
    since: datetime | None = None
    #: a triggerer watches what deferred tasks wait for
    triggers: bool = False
    silent_seconds: float | None = None
    problem: str | None = None


class TaskSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One task of a run. `refused`: why it is not handed to the executor although it could run."""

    task_id: str
    role: str | None = None
    state: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    retry_at: datetime | None = None
    #: attempts that failed by their own fault
    failures: int = 0
    max_tries: int = 0
    progress: dict[str, Any] | None = None
    note: str | None = None
    problem: str | None = None
    refused: str | None = None
    #: the executor that it was handed to last, when, and the queue that workers of it listen on (None: on none)
    executor: str | None = None
    queued_at: datetime | None = None
    listened_queue: str | None = None
    #: the run whose same task it waits for (depends_on_past), and where that is
    waits_for_run: int | None = None
    past_state: str | None = None


class RunSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One run with its tasks."""

    run_id: str
    number: int
    state: str
    run_after: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    note: str | None = None
    #: the next run does not wait for it: only tasks after the commit are left
    released: bool = False
    tasks: list[TaskSnapshot] = []


class LastFailure(msgspec.Struct, frozen=True):
    """An attempt that failed or was lost."""

    run_id: str
    task_id: str
    at: datetime | None
    problem: str | None


class DagSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One DAG now. `known`: some engine has read its file at least once."""

    dag_id: str
    #: as it is typed after `trainflow start`
    path: str
    known: bool = True
    engine: EngineSnapshot = EngineSnapshot()
    import_problem: str | None = None
    #: since when no file defines it any more
    missing_since: datetime | None = None
    paused: bool = False
    #: why it takes nothing new, and what lets it
    drained: str | None = None
    max_active_runs: int = 16
    #: running, oldest first; those that the next run does not wait for come last
    running: list[RunSnapshot] = []
    #: the queued run that starts next
    queued: RunSnapshot | None = None
    #: the run that ended last
    last: RunSnapshot | None = None
    last_failure: LastFailure | None = None
    undelivered: int = 0
    chain: ChainDocument | None = None
    #: what was committed from here, as far as the newest runs know
    committed: RememberedCheckpoint | None = None


def engine_state(
    project: Project, settings: Settings, database: ReadableDatabase | None, now: datetime
) -> EngineSnapshot:
    """The engine of this home, or a scheduler elsewhere that uses its database."""
    begun: Sequence[Any] = []
    if database is not None:
        with database.reading() as connection:
            begun = service_list_queries.not_stopped(connection)
    living = service_list_queries.heard_lately(begun, now, timedelta(seconds=settings.engine.dead_after_seconds))
    rows = [row for row in living if row.kind in _SCHEDULING]
    # asked after the rows: of an engine that ends meanwhile nothing is said
    pid = running_engine(project.home)
    if pid is None and settings.database.url is None:
        living = [row for row in living if not _is_of_another_home(row)]
        rows = [row for row in rows if not _is_of_another_home(row)]
    triggers = any(row.kind in _TRIGGERING and not is_dead_here(row) for row in living)
    if pid is not None:
        # also where it has not been heard for long: it holds the lock
        mine = next(
            (row for row in reversed(begun) if row.kind in _SCHEDULING and row.pid == pid and not is_dead_here(row)),
            None,
        )
        if mine is None:
            # one that has just started has no lease yet
            return EngineSnapshot(True, pid or None, triggers=True)
        triggers = triggers or mine.kind in _TRIGGERING
        silence = _silence(project, settings, mine, now)
        return EngineSnapshot(True, pid, mine.hostname, mine.started_at, triggers, *silence)
    others = [row for row in rows if not is_dead_here(row)]
    if not others:
        return EngineSnapshot()
    silence = _silence(project, settings, max(others, key=lambda row: row.heartbeat_at), now)
    return EngineSnapshot(True, others[0].pid, others[0].hostname, others[0].started_at, triggers, *silence)


def _silence(project: Project, settings: Settings, row: Any, now: datetime) -> tuple[float | None, str | None]:
    """Seconds for which the engine has written nothing, where that is too long, and what a person is told of it."""
    seconds = (now - row.heartbeat_at).total_seconds()
    if seconds <= settings.engine.heartbeat_seconds * _LATE:
        return None, None
    # `status` is typed often, and an engine is seldom late
    from trainflow.observability.file_access import unwritable

    file = project.home.database if settings.database.url is None else None
    why = unwritable(file) if file is not None else None
    if why is None:
        why = (
            "it is stopped or overloaded, or the database takes no writes; its log says more: "
            f"{project.home.engine_log if row.kind == 'engine' else f'on {row.hostname}'}"
        )
    else:
        why = f"{file} cannot be written, {why}"
    said = f"the engine has written nothing to its database for {duration(seconds)}: {why}. Attempts that run go on"
    return seconds, said


def _is_of_another_home(row: Any) -> bool:
    """Whether an engine of this host is not that of the home with this database, whose lock is free: the home is a
    copy of one that is at work."""
    return bool(row.kind == "engine" and row.hostname == hostname())


class _Around(NamedTuple):
    """What tasks are looked up in: why which are refused, executors whose workers listen on queues."""

    refused: dict[int, str]
    with_queues: frozenset[str]
    drains: Drains

    def drained_dag(self, dag_id: str) -> str | None:
        """Why a DAG takes nothing new."""
        drain = self.drains.get(DrainKind.DAG, dag_id)
        return None if drain is None else drain.sentence


def dag_snapshots(
    connection: ReadingConnection,
    settings: Settings,
    engine: EngineSnapshot,
    now: datetime,
    *,
    path: str | None = None,
    dag_id: str | None = None,
) -> list[DagSnapshot]:
    """The DAGs of a file, the DAG of an id, or all there are."""
    around = _Around(refusals(connection, settings, now), with_queues(settings), drain_queries.listing(connection))
    rows = status_queries.dags(connection, path=path, dag_id=dag_id)
    documents = {row.dag_id: decode_known(row.dag_id, row.document) for row in rows}
    found = _Found.of(connection, documents)
    return [_dag_snapshot(connection, row, documents[row.dag_id], engine, around, found) for row in rows]


class _Found(NamedTuple):
    """What is shown of DAGs, asked for once of all of them: by DAG, and the tasks by the key of their run."""

    running: dict[str, list[ShownRun]]
    queued: dict[str, ShownRun]
    last: dict[str, ShownRun]
    failures: dict[str, FailedAttempt]
    undelivered: dict[str, int]
    tasks: dict[int, list[ShownTask]]
    committed: dict[str, RememberedCheckpoint]

    @classmethod
    def of(cls, connection: ReadingConnection, documents: Mapping[str, DagDocument]) -> Self:
        """Ask for it."""
        dag_ids = list(documents)
        runs = status_queries.shown_runs(connection, dag_ids)
        queued = {run.dag_id: run for run in reversed(runs) if run.state == DagRunState.QUEUED}
        last = {run.dag_id: run for run in runs if run.state in RUN_FINISHED}
        running: dict[str, list[ShownRun]] = {dag_id: [] for dag_id in dag_ids}
        # those that were released go on beside the one that trains
        for run in sorted(runs, key=lambda run: (run.released_at is not None, run.number)):
            if run.state == DagRunState.RUNNING:
                running[run.dag_id].append(run)
        shown = [*chain.from_iterable(running.values()), *queued.values(), *last.values()]
        return cls(
            running,
            queued,
            last,
            status_queries.last_failures(connection),
            status_queries.undelivered_by_dag(connection),
            status_queries.tasks_of(connection, [run.id for run in shown]),
            last_committed(connection, documents),
        )


def _dag_snapshot(
    connection: ReadingConnection,
    row: Any,
    document: DagDocument,
    engine: EngineSnapshot,
    around: _Around,
    found: _Found,
) -> DagSnapshot:
    dag_id = row.dag_id
    failure = found.failures.get(dag_id)

    def shown(run: Any) -> RunSnapshot | None:
        return None if run is None else _run(connection, run, document, around, found.tasks[run.id])

    return DagSnapshot(
        dag_id=dag_id,
        path=row.path,
        engine=engine,
        missing_since=row.missing_since,
        paused=row.is_paused,
        drained=around.drained_dag(dag_id),
        max_active_runs=row.max_active_runs,
        running=[run for run in map(shown, found.running[dag_id]) if run is not None],
        queued=shown(found.queued.get(dag_id)),
        last=shown(found.last.get(dag_id)),
        last_failure=None
        if failure is None
        else LastFailure(failure.run_id, failure.task_id, failure.ended_at, failure.problem),
        undelivered=found.undelivered.get(dag_id, 0),
        chain=document.chain,
        committed=found.committed.get(dag_id),
    )


def _run(
    connection: ReadingConnection, row: Any, document: DagDocument, around: _Around, rows: Sequence[ShownTask]
) -> RunSnapshot:
    tasks = [_task(task, document, around) for task in rows]
    return RunSnapshot(
        run_id=row.run_id,
        number=row.number,
        state=row.state,
        run_after=row.run_after,
        started_at=row.started_at,
        ended_at=row.ended_at,
        note=row.note,
        released=row.released_at is not None,
        tasks=_with_past(connection, row, document, tasks),
    )


def _with_past(connection: Any, row: ShownRun, document: DagDocument, tasks: list[TaskSnapshot]) -> list[TaskSnapshot]:
    """The scheduler's own rule, asked again: which of them wait for the previous run."""
    if row.state != DagRunState.RUNNING or not any(task.depends_on_past for task in document.tasks):
        return tasks
    from trainflow.metadata.queries import run_queries, task_queries
    from trainflow.scheduler.run_decision import waiting_for_past

    previous = run_queries.previous(connection, row.dag_id, row.number)
    if previous is None:
        return tasks
    past = task_queries.past_states(connection, previous.id, document)
    states = {task.task_id: TaskInstanceState(task.state) if task.state else None for task in tasks}
    held = set(waiting_for_past(document, states, past))
    return [
        msgspec.structs.replace(task, waits_for_run=previous.number, past_state=past.get(task.task_id))
        if task.task_id in held
        else task
        for task in tasks
    ]


def _task(row: Any, document: DagDocument, around: _Around) -> TaskSnapshot:
    described = document.task(row.task_id)
    return TaskSnapshot(
        task_id=row.task_id,
        role=described.role if described else None,
        state=row.state,
        started_at=row.started_at,
        ended_at=row.ended_at,
        retry_at=row.retry_at,
        failures=row.failures,
        max_tries=row.max_tries,
        progress=row.progress,
        note=row.note,
        problem=row.problem,
        refused=around.refused.get(row.id),
        executor=row.executor,
        queued_at=row.queued_at,
        listened_queue=row.queue if row.executor in around.with_queues else None,
    )
