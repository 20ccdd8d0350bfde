"""Trigger, cancel and clear runs. An engine that is alive is told at once, otherwise the next one finds it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, Row

from trainflow.actions.dags import read_into_database
from trainflow.engine.lock import running_engine
from trainflow.errors import InputError, LostTransition
from trainflow.identifiers import manual_run_id
from trainflow.insight.runs.runs import RunSummary, run_summary
from trainflow.metadata import run_creation
from trainflow.metadata.queries import run_queries, task_queries
from trainflow.metadata.queries.dag_queries import Versions
from trainflow.observability.redaction import check_no_secrets
from trainflow.settings.outbox_channels import channels_of
from trainflow.states import EXECUTION_STATES, FINISHED, RUN_FINISHED, DagRunState, DagRunType, TriggeredBy
from trainflow.workspace.names import check_tasks, dag_named, file_named, is_file, run_named
from trainflow.workspace.workspace import Workspace


class RunRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A run that is asked for. `conf` satisfies the params of the DAG; `run_id` by default manual__<time>_<random>.
    `or_existing`: a run of this id that was asked for in the same words by the same way is the answer."""

    conf: dict[str, Any] = {}
    run_id: str | None = None
    logical_date: datetime | None = None
    run_after: datetime | None = None
    note: str | None = None
    triggered_by: TriggeredBy = TriggeredBy.CLI
    or_existing: bool = False
    #: W3C's, of the span that it is asked for in; what is none is ignored
    traceparent: str | None = None


class TriggerDone(msgspec.Struct, frozen=True):
    """A run that is queued. `waits_for`: why it does not start at once, and what to do; None: nothing keeps it."""

    run: RunSummary
    waits_for: str | None


class CancelPlan(msgspec.Struct, frozen=True):
    """A run that would end as failed, as it is now: `failing` are tasks at work, which would be told to stop, `skipped`
    those that would never run."""

    run: RunSummary
    failing: list[str]
    skipped: list[str]


class ClearedRun(msgspec.Struct, frozen=True):
    """A run that runs again, or would, and the tasks of it that do."""

    dag_id: str
    run_id: str
    number: int
    state: str
    cleared: list[str]


def trigger(workspace: Workspace, dag: str, asked: RunRequest, now: datetime) -> TriggerDone:
    """Queue a run. A pipeline file is read first, so that the run is of what it says now.

    Raises InputError, DagNotFound.
    """
    check_no_secrets(asked.conf, "--conf")
    if is_file(dag):
        read_into_database(workspace, file_named(dag), now)
    found, row = _create(workspace, dag, asked, now)
    workspace.wake_engine()
    return TriggerDone(run_summary(row, now), _why_not_at_once(workspace, found))


def _create(workspace: Workspace, dag: str, asked: RunRequest, now: datetime) -> tuple[Row[Any], Row[Any]]:
    """Create the run; its DAG, and its own row."""
    run_id = asked.run_id or manual_run_id(now, os.urandom(3).hex())
    tries: list[int] = []

    def create(connection: Connection) -> tuple[Row[Any], Row[Any]]:
        found = dag_named(connection, workspace.project, dag)
        tries.append(1)
        made = run_queries.find(connection, found.dag_id, run_id) if len(tries) > 1 or asked.or_existing else None
        if made is not None and (len(tries) > 1 or _is_same(made, asked)):
            return found, made  # by the try before, whose commit was not heard of, or asked for before
        created = run_creation.create(
            connection,
            dag_id=found.dag_id,
            run_id=run_id,
            run_type=DagRunType.MANUAL,
            triggered_by=asked.triggered_by,
            conf=asked.conf,
            now=now,
            run_after=asked.run_after,
            logical_date=asked.logical_date,
            note=asked.note,
            traceparent=_traceparent(asked),
        )
        return found, run_queries.by_id(connection, created)

    return workspace.database.write(create)


def _traceparent(asked: RunRequest) -> str | None:
    if not asked.traceparent:
        return None
    # of those who trace alone
    from trainflow.telemetry.trace_context import parent_of

    found = parent_of(asked.traceparent)
    return None if found is None else str(found)


def _is_same(made: Row[Any], asked: RunRequest) -> bool:
    """Whether a run is what is asked for: its conf and its date, and by the same way."""
    same = (made.conf, made.logical_date, made.triggered_by)
    return same == (asked.conf, asked.logical_date, asked.triggered_by)


def _why_not_at_once(workspace: Workspace, dag: Row[Any]) -> str | None:
    if dag.is_paused:
        return f"the DAG is paused, it waits for 'trainflow dags unpause {dag.dag_id}'"
    if workspace.database.is_sqlite and running_engine(workspace.project.home) is None:
        return "no engine is alive, it waits for 'trainflow start PIPELINE' or 'trainflow standalone'"
    return None


def plan_cancel(workspace: Workspace, dag: str, run: str, now: datetime) -> CancelPlan:
    """What `cancel` would end. Raises DagNotFound, DagRunNotFound; LostTransition where it has ended."""
    with workspace.database.reading() as connection:
        row = run_named(connection, workspace.project, dag, run)
        run_queries.check_unfinished(row)
        states = task_queries.states_in_run(connection, row.id)
    failing = [task_id for task_id, state in states.items() if state in EXECUTION_STATES]
    skipped = [task_id for task_id, state in states.items() if state not in FINISHED and task_id not in failing]
    return CancelPlan(run_summary(row, now), failing, skipped)


def cancel(workspace: Workspace, dag: str, run: str, now: datetime, *, note: str) -> RunSummary:
    """End a queued or running run as failed. Raises DagNotFound, DagRunNotFound; LostTransition where it has ended."""
    channels = channels_of(workspace.settings)

    def work(connection: Connection) -> Row[Any]:
        row = run_named(connection, workspace.project, dag, run)
        run_queries.cancel(connection, row, Versions(), now, note=note, channels=channels)
        return run_queries.by_id(connection, row.id)

    row = workspace.database.write(work)
    workspace.wake_engine()
    return run_summary(row, now)


def set_note(workspace: Workspace, dag_id: str, run_id: str, note: str | None) -> None:
    """Say something of a run, instead of what was said before. Raises DagNotFound, DagRunNotFound."""

    def work(connection: Connection) -> None:
        run_queries.set_note(connection, run_queries.get(connection, dag_id, run_id).id, note)

    workspace.database.write(work)


def delete(workspace: Workspace, dag_id: str, run_id: str) -> None:
    """Forget a run that has ended, with its tasks and what they handed over; what it trained stays in its ledger, its
    logs stay where they are. Raises DagNotFound, DagRunNotFound; LostTransition where it has not ended."""

    def work(connection: Connection) -> None:
        row = run_queries.get(connection, dag_id, run_id)
        if row.state not in RUN_FINISHED:
            raise LostTransition(f"run '{run_id}' of '{dag_id}' has not ended ({row.state}): cancel it first")
        run_queries.delete(connection, row.id)

    workspace.database.write(work)


class ClearRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Runs that are to run again: whole, or from `tasks` on (`only`: nothing downstream of them), or what `failed`."""

    runs: Sequence[str]
    tasks: Sequence[str] = ()
    only: bool = False
    failed: bool = False


def plan_clear(workspace: Workspace, dag: str, asked: ClearRequest) -> list[ClearedRun]:
    """What `clear` would let run again. Raises InputError when there is nothing to clear in one of the runs."""
    with workspace.database.reading() as connection:
        return [cleared for _, cleared in _to_clear(connection, workspace, dag, asked)]


def clear(workspace: Workspace, dag: str, asked: ClearRequest, now: datetime) -> list[ClearedRun]:
    """Let runs run again, in the order of the chain. Raises InputError where one has nothing to clear."""

    def work(connection: Connection) -> list[ClearedRun]:
        chosen = _to_clear(connection, workspace, dag, asked)
        for dag_run_id, run in chosen:
            run_queries.clear(connection, dag_run_id, now, set(run.cleared))
        return [run for _, run in chosen]

    cleared = workspace.database.write(work)
    workspace.wake_engine()
    return cleared


def _to_clear(
    connection: Connection, workspace: Workspace, dag: str, asked: ClearRequest
) -> list[tuple[int, ClearedRun]]:
    """The key of each run, and what of it runs again."""
    rows = {row.number: row for row in (run_named(connection, workspace.project, dag, name) for name in asked.runs)}
    return [(row.id, _chosen(connection, row, asked)) for _, row in sorted(rows.items())]


def _chosen(connection: Connection, row: Row[Any], asked: ClearRequest) -> ClearedRun:
    document, _ = Versions().get(connection, row.version_id)
    states = task_queries.states_in_run(connection, row.id)
    check_tasks(asked.tasks, [task.task_id for task in document.tasks], f"run {row.run_id} of {row.dag_id}")
    chosen = set(asked.tasks) or set(states)
    if asked.failed:
        chosen &= {task_id for task_id, state in states.items() if state in ("failed", "upstream_failed")}
        if not chosen:
            raise InputError(f"run {row.run_id} of {row.dag_id}: no task has failed, nothing was cleared")
    if not asked.only:
        chosen = document.with_downstream(chosen)
    order = [task.task_id for task in document.tasks if task.task_id in chosen and task.task_id in states]
    return ClearedRun(row.dag_id, row.run_id, row.number, DagRunState.QUEUED, order)
