"""Create, migrate, clean and empty the metadata database; have what MLflow refused delivered again.

What was trained is in the checkpoint stores: after a reset the chains go on at their heads. Cleaning deletes runs that
ended long ago, and logs of which no run knows: without it a home grows for ever, by some kilobytes of database and a
log for each task of each run.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import msgspec

from trainflow.engine.run_cleanup import OldLog, deleted, logs_of_no_run, old_logs
from trainflow.errors import EngineAlreadyRunning, InputError
from trainflow.insight.database import exists, place_of
from trainflow.insight.snapshot import engine_state
from trainflow.metadata import schema
from trainflow.metadata.bound_parameters import in_parts
from trainflow.metadata.queries import cleanup_queries
from trainflow.metadata.queries.outbox_queries import OutboxOfChannel
from trainflow.metadata.schema import HEAD, current_revision, ensure_schema
from trainflow.settings.outbox_channels import OutboxChannel
from trainflow.workspace.workspace import Workspace


class MigrationDone(msgspec.Struct, frozen=True):
    """`before`: the revision it was at, None where it was empty or not there."""

    place: str
    before: str | None
    after: str | None


class ResetPlan(msgspec.Struct, frozen=True):
    """The database whose runs, tasks, XComs and pools would be dropped."""

    place: str


def migrate(workspace: Workspace) -> MigrationDone:
    """Create the database, or bring its schema up to date. Raises EngineError."""
    with workspace.untouched_database() as database:
        before = current_revision(database) if exists(database) else None
        workspace.project.home.create()
        ensure_schema(database)
        return MigrationDone(place_of(database), before, current_revision(database))


def plan_reset(workspace: Workspace, now: datetime) -> ResetPlan:
    """What `reset` would empty. Raises EngineAlreadyRunning while an engine uses it."""
    with workspace.untouched_database() as database:
        usable = exists(database) and current_revision(database) == HEAD
        state = engine_state(workspace.project, workspace.settings, database if usable else None, now)
        if state.alive:
            where = f" on {state.hostname}" if state.hostname else ""
            raise EngineAlreadyRunning(
                f"an engine (pid {state.pid}{where}) uses this database: end it with 'trainflow stop' first",
                pid=state.pid or 0,
            )
        return ResetPlan(place_of(database))


def reset(workspace: Workspace, now: datetime) -> ResetPlan:
    """Drop every run, task, XCom and pool. Raises EngineAlreadyRunning while an engine uses the database."""
    plan = plan_reset(workspace, now)
    workspace.project.home.create()
    with workspace.untouched_database() as database:
        schema.reset(database)
    return plan


def deliver_again(workspace: Workspace, now: datetime) -> int:
    """Let what MLflow refused be delivered again; how many deliveries that are."""
    database, mlflow = workspace.existing_database, OutboxOfChannel(OutboxChannel.MLFLOW)
    again = database.write(lambda connection: mlflow.deliver_refused_again(connection, now)) if database else 0
    workspace.wake_engine()
    return again


#: what ended lately may still be looked at, cleared or waited for
LEAST_AGE = timedelta(days=1)
#: runs that are deleted in one transaction: others write in between
_RUNS_AT_ONCE = 100


class OldRuns(msgspec.Struct, frozen=True):
    """The runs of a DAG that are deleted: how many, and when the first and the last of them ended."""

    dag_id: str
    runs: int
    first_ended_at: datetime
    last_ended_at: datetime


class Cleanup(msgspec.Struct, frozen=True):
    """What is deleted, or would be: runs that ended before a moment (`before`), and logs of this host that are of no
    run (any more), with their bytes. `awaited`: runs that stay, since a system outside is still to be told of them."""

    before: datetime
    dags: list[OldRuns]
    awaited: int
    logs: int
    log_bytes: int


def plan_cleanup(workspace: Workspace, older_than: timedelta, now: datetime) -> Cleanup:
    """What `clean_up` would delete. Raises InputError for what is younger than a day."""
    before = _before(older_than, now)
    rows = workspace.database.read(lambda connection: cleanup_queries.ended_before(connection, before))
    going = [row for row in rows if not row.is_awaited]
    logs = list(_logs_of_no_run(workspace, before, {row.id for row in going}))
    return Cleanup(before, _by_dag(going), len(rows) - len(going), len(logs), sum(each.size for each in logs))


def clean_up(workspace: Workspace, older_than: timedelta, now: datetime) -> Cleanup:
    """Delete runs that ended so long ago, with their tasks, XComs and logs; engines may be at work. Killed on the way,
    it has deleted a part, and what is left is deleted the next time. Raises InputError for what is younger than a day.
    """
    before = _before(older_than, now)
    database = workspace.database
    rows = database.read(lambda connection: cleanup_queries.ended_before(connection, before))
    going = {row.id: row for row in rows if not row.is_awaited}
    gone: list[int] = []
    for some in in_parts(going, _RUNS_AT_ONCE):
        gone += database.write(partial(cleanup_queries.delete_ended, ids=some, before=before))
    logs = [each for each in _logs_of_no_run(workspace, before) if deleted(each.path)]
    by_dag = _by_dag([going[number] for number in gone])
    return Cleanup(before, by_dag, len(rows) - len(going), len(logs), sum(each.size for each in logs))


def _before(older_than: timedelta, now: datetime) -> datetime:
    if older_than < LEAST_AGE:
        raise InputError("--older-than is at least 1d: what ended lately may still be looked at, cleared or waited for")
    return now - older_than


def _by_dag(rows: Collection[Any]) -> list[OldRuns]:
    found: dict[str, list[datetime]] = {}
    for row in rows:
        found.setdefault(row.dag_id, []).append(row.ended_at)
    return [OldRuns(dag_id, len(ended), min(ended), max(ended)) for dag_id, ended in sorted(found.items())]


def _logs_of_no_run(workspace: Workspace, before: datetime, going: Collection[int] = frozenset()) -> Iterator[OldLog]:
    logs = old_logs(workspace.project.home.logs.glob("*/**/*.log*"), before)
    return logs_of_no_run(logs, workspace.database, going)
