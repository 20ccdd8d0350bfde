"""Create, migrate and empty the metadata database; have what MLflow refused delivered again.

What was trained is in the checkpoint stores: after a reset the chains go on at their heads.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from trainflow.errors import EngineAlreadyRunning
from trainflow.insight.database import exists, place_of
from trainflow.insight.snapshot import engine_state
from trainflow.metadata import schema
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
