"""The parts of the control plane: which live, and what people and programs had them do."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import Row

from trainflow.deadlines import TOLERANCE
from trainflow.metadata.queries import event_queries, service_list_queries
from trainflow.metadata.queries.service_list_queries import Service
from trainflow.workspace.workspace import Workspace

HEALTHY, UNHEALTHY = "healthy", "unhealthy"


class ControlPlanePart(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the control plane. `state`: `running`, `success` (it ended in good order), or `failed` (it is silent,
    and said nothing of an end)."""

    id: int
    kind: str
    state: str
    hostname: str
    pid: int
    started_at: datetime
    stopped_at: datetime | None
    heartbeat_at: datetime


class DatabaseHealth(msgspec.Struct, frozen=True):
    """Health of the metadata database: it answered."""

    status: str


class SchedulerHealth(msgspec.Struct, frozen=True):
    """Health of the scheduler that said last that it lives."""

    status: str
    latest_scheduler_heartbeat: datetime | None


class TriggererHealth(msgspec.Struct, frozen=True):
    """Health of the triggerer that said last that it lives."""

    status: str
    latest_triggerer_heartbeat: datetime | None


class DagProcessorHealth(msgspec.Struct, frozen=True):
    """Health of the DAG processor that said last that it lives."""

    status: str
    latest_dag_processor_heartbeat: datetime | None


class Health(msgspec.Struct, frozen=True):
    """Health of all parts; an engine is each of them."""

    metadatabase: DatabaseHealth
    scheduler: SchedulerHealth
    triggerer: TriggererHealth
    dag_processor: DagProcessorHealth


def parts(workspace: Workspace, now: datetime) -> list[ControlPlanePart]:
    """Every part that is remembered, the newest first."""
    with workspace.database.reading() as connection:
        rows = service_list_queries.everyone(connection)
    since = now - timedelta(seconds=workspace.settings.engine.dead_after_seconds) - TOLERANCE
    return [_part(row, since) for row in reversed(rows)]


def _part(row: Service, since: datetime) -> ControlPlanePart:
    state = "success" if row.stopped_at is not None else "running" if row.heartbeat_at > since else "failed"
    names = [name for name in ControlPlanePart.__struct_fields__ if name != "state"]
    return ControlPlanePart(**{name: getattr(row, name) for name in names}, state=state)


def control_plane_health(workspace: Workspace, now: datetime) -> Health:
    """Which parts live."""
    found = parts(workspace, now)

    def newest(kind: str) -> tuple[str, datetime | None]:
        those = [each for each in found if each.kind in ("engine", kind)]
        alive = any(each.state == "running" for each in those)
        return HEALTHY if alive else UNHEALTHY, max((each.heartbeat_at for each in those), default=None)

    return Health(
        DatabaseHealth(HEALTHY),
        SchedulerHealth(*newest("scheduler")),
        TriggererHealth(*newest("triggerer")),
        DagProcessorHealth(*newest("dag_processor")),
    )


def events(
    workspace: Workspace,
    limit: int,
    *,
    dag_id: str | None = None,
    event: str | None = None,
    before: int | None = None,
) -> list[Row[Any]]:
    """The newest events, newest first, see `event_queries.listing`."""
    with workspace.database.reading() as connection:
        return event_queries.listing(connection, limit, dag_id=dag_id, event=event, before=before)
