"""Pools, files that cannot be read, living parts, the event log, health and version."""

from __future__ import annotations

from datetime import datetime
from importlib import metadata
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from trainflow.actions import pools as actions
from trainflow.actions.pools import set_pool
from trainflow.api.rest.endpoints import ApiCall, EndpointGroup, NoQuery
from trainflow.api.rest.paging import Paged, Text
from trainflow.api.rest.problems import RequestRefused
from trainflow.insight.runs.control_plane import Health, control_plane_health, events, parts
from trainflow.insight.runs.dags import import_problems
from trainflow.insight.runs.pools import Pool, list_pools, pool_named

pools = EndpointGroup("Pool", is_airflows=True)
control_plane = EndpointGroup("Server", is_airflows=True)

_NO_LIMIT = -1
Slots = Annotated[int, Meta(ge=-1, le=2**31 - 1)]


class PoolShape(msgspec.Struct, frozen=True, kw_only=True):
    """A limit that tasks share, in slots; -1: no limit."""

    name: str
    slots: int
    description: str | None
    include_deferred: bool
    occupied_slots: int
    running_slots: int
    queued_slots: int
    scheduled_slots: int
    open_slots: int
    deferred_slots: int


class Pools(msgspec.Struct, frozen=True):
    """All pools."""

    pools: list[PoolShape]
    total_entries: int


@pools.get("/pools")
def get_pools(call: ApiCall[Paged, None]) -> Pools:
    """List the pools and what is in use of them."""
    found = [pool_shape(each) for each in list_pools(call.workspace)]
    return Pools(found[call.query.offset : call.query.offset + call.query.limit], len(found))


@pools.get("/pools/{pool_name}")
def get_pool(call: ApiCall[NoQuery, None]) -> PoolShape:
    """Show a pool."""
    return pool_shape(pool_named(call.workspace, call.path["pool_name"]))


def pool_shape(pool: Pool) -> PoolShape:
    """A pool as Airflow shows one."""
    return PoolShape(
        name=pool.name,
        slots=pool.slots,
        description=pool.description,
        include_deferred=pool.include_deferred,
        occupied_slots=pool.running + pool.queued + (pool.deferred if pool.include_deferred else 0),
        running_slots=pool.running,
        queued_slots=pool.queued,
        scheduled_slots=pool.scheduled,
        open_slots=_NO_LIMIT if pool.open is None else pool.open,
        deferred_slots=pool.deferred,
    )


class PoolBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A pool that is to be. `slots` -1: no limit."""

    name: Text
    slots: Slots
    description: Annotated[str, Meta(max_length=1000)] | None = None
    include_deferred: bool = False


class PoolPatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What changes of a pool; what is not named stays."""

    slots: Slots | None = None
    description: Annotated[str, Meta(max_length=1000)] | None = None
    include_deferred: bool | None = None


class PoolPatchQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`update_mask`: as in Airflow; it names what is in the body."""

    update_mask: list[Literal["slots", "description", "include_deferred"]] = msgspec.field(default_factory=list)


@pools.post("/pools", success=201)
def post_pool(call: ApiCall[NoQuery, PoolBody]) -> PoolShape:
    """Create a pool."""
    body = call.body
    if any(each.name == body.name for each in list_pools(call.workspace)):
        raise RequestRefused(409, "PoolExists", f"pool '{body.name}' is there already", "change it with PATCH")
    set_pool(
        call.workspace, body.name, body.slots, description=body.description, include_deferred=body.include_deferred
    )
    return pool_shape(pool_named(call.workspace, body.name))


@pools.patch("/pools/{pool_name}")
def patch_pool(call: ApiCall[PoolPatchQuery, PoolPatch]) -> PoolShape:
    """Change a pool. Tasks that run go on, even when there are more of them than slots now."""
    mask = call.query.update_mask
    changes = {
        name: value
        for name, value in msgspec.structs.asdict(call.body).items()
        if value is not None and (not mask or name in mask)
    }
    known = pool_named(call.workspace, call.path["pool_name"])
    set_pool(call.workspace, known.name, **{"slots": known.slots, **changes})
    return pool_shape(pool_named(call.workspace, known.name))


@pools.delete("/pools/{pool_name}")
def delete_pool(call: ApiCall[NoQuery, None]) -> None:
    """Delete a pool. Tasks that name it are not started any more until it is there again."""
    actions.delete_pool(call.workspace, pool_named(call.workspace, call.path["pool_name"]).name)


class ImportFailure(msgspec.Struct, frozen=True, kw_only=True):
    """A pipeline file that cannot be read. `line` and `column` are 1-based; `is_changed`: the file has changed
    since."""

    import_error_id: int
    timestamp: datetime
    filename: str
    stack_trace: str
    line: int | None
    column: int | None
    is_changed: bool


class ImportFailures(msgspec.Struct, frozen=True):
    """Files that cannot be read, by path."""

    import_errors: list[ImportFailure]
    total_entries: int


@control_plane.get("/importErrors")
def get_import_errors(call: ApiCall[Paged, None]) -> ImportFailures:
    """List the pipeline files that cannot be read, with the line."""
    found = sorted(import_problems(call.workspace), key=lambda each: each.path or "")
    shown = [
        ImportFailure(
            import_error_id=number,
            timestamp=each.at,
            filename=each.path or "",
            stack_trace=each.traceback or each.message,
            line=each.line,
            column=each.column,
            is_changed=each.is_changed,
        )
        for number, each in enumerate(found, 1)
    ]
    return ImportFailures(shown[call.query.offset : call.query.offset + call.query.limit], len(found))


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the control plane. `state`: running, success (it ended in good order) or failed (it is silent)."""

    id: int
    job_type: str
    state: str
    start_date: datetime
    end_date: datetime | None
    latest_heartbeat: datetime
    hostname: str
    pid: int


class Jobs(msgspec.Struct, frozen=True):
    """Parts of the control plane, the newest first."""

    jobs: list[Job]
    total_entries: int


class JobQuery(Paged, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`is_alive`: only parts that live."""

    is_alive: bool | None = None
    job_type: Text | None = None


@control_plane.get("/jobs")
def get_jobs(call: ApiCall[JobQuery, None]) -> Jobs:
    """List the parts of the control plane: engines, schedulers, triggerers, API servers."""
    query = call.query
    found = [
        Job(
            id=each.id,
            job_type=each.kind,
            state=each.state,
            start_date=each.started_at,
            end_date=each.stopped_at,
            latest_heartbeat=each.heartbeat_at,
            hostname=each.hostname,
            pid=each.pid,
        )
        for each in parts(call.workspace, call.now)
        if query.job_type in (None, each.kind) and query.is_alive in (None, each.state == "running")
    ]
    return Jobs(found[query.offset : query.offset + query.limit], len(found))


class EventLog(msgspec.Struct, frozen=True, kw_only=True):
    """A deed, or a refusal: `owner`, who asked for it; `address`, from where; `extra`, what it was, as JSON."""

    event_log_id: int
    when: datetime
    event: str
    owner: str
    address: str
    dag_id: str | None
    run_id: str | None
    task_id: str | None
    extra: str


class EventLogs(msgspec.Struct, frozen=True, kw_only=True):
    """The newest events, newest first. `next_before`: what `before` is for those behind them."""

    event_logs: list[EventLog]
    total_entries: int
    next_before: int | None


class EventQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`before`: only those with a smaller id."""

    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    dag_id: Text | None = None
    event: Text | None = None
    before: Annotated[int, Meta(ge=1, le=2**53)] | None = None


@control_plane.get("/eventLogs")
def get_event_logs(call: ApiCall[EventQuery, None]) -> EventLogs:
    """List who did what, when, and from where, the newest first."""
    query = call.query
    rows = events(call.workspace, query.limit, dag_id=query.dag_id, event=query.event, before=query.before)
    found = [
        EventLog(
            event_log_id=row.id,
            when=row.at,
            event=row.event,
            owner=row.owner,
            address=row.address,
            dag_id=row.dag_id,
            run_id=row.run_id,
            task_id=row.task_id,
            extra=msgspec.json.encode(row.extra).decode(),
        )
        for row in rows
    ]
    more = found[-1].event_log_id if len(found) == query.limit else None
    return EventLogs(event_logs=found, total_entries=len(found), next_before=more)


class Version(msgspec.Struct, frozen=True):
    """The version of trainflow."""

    version: str
    git_version: str | None


@control_plane.get("/version")
def get_version(call: ApiCall[NoQuery, None]) -> Version:
    """Say which version answers."""
    return Version(metadata.version("trainflow"), None)


@control_plane.get("/monitor/health")
def get_health(call: ApiCall[NoQuery, None]) -> Health:
    """Say which parts live. Always 200: `/ready` of the server answers 503 while no scheduler lives."""
    return control_plane_health(call.workspace, call.now)
