"""The living parts of the control plane, each a row: registered, its lease renewed (`leases`), stopped."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec
from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from trainflow.bootstrap import version
from trainflow.metadata.leases import Leases
from trainflow.metadata.models import InstallationTable, ServiceTable
from trainflow.metadata.queries.service_list_queries import WORKER, ExecutorState, ServiceDetails, not_stopped
from trainflow.observability import processes
from trainflow.observability.processes import hostname

SERVICE = ServiceTable.table
#: stopped services are remembered this long
_REMEMBER = timedelta(days=7)


def register(
    connection: Connection,
    *,
    kind: str,
    hostname: str,
    pid: int,
    process_started: float,
    now: datetime,
    details: ServiceDetails | None = None,
) -> int:
    """Say that a part lives. Returns its id."""
    result = connection.execute(
        _REGISTER,
        {
            "kind": kind,
            "hostname": hostname,
            "pid": pid,
            "process_started": process_started,
            "started_at": now,
            "heartbeat_at": now,
            "heartbeats": 0,
            "details": None if details is None else msgspec.to_builtins(details),
        },
    )
    return int(result.inserted_primary_key[0])  # type: ignore[index]


_REGISTER = insert(SERVICE)


def renew_lease(connection: Connection, service_id: int, now: datetime, details: ServiceDetails | None = None) -> None:
    """Say that it still lives; also one that was taken for dead, because it stood still: what was taken over from it
    stays with the others, what it takes from now on is its own. `details`: what it says of itself from now on."""
    values = {"service": service_id, "b_now": now}
    if details is None:
        connection.execute(_RENEW, values)
    else:
        connection.execute(_RENEW_AND_SAY, {**values, "b_details": msgspec.to_builtins(details)})


_RENEW = (
    update(SERVICE)
    .where(SERVICE.c.id == bindparam("service"))
    .values(
        heartbeat_at=bindparam("b_now", type_=SERVICE.c.heartbeat_at.type),
        heartbeats=func.coalesce(SERVICE.c.heartbeats, 0) + 1,
        stopped_at=None,
    )
)
_RENEW_AND_SAY = _RENEW.values(details=bindparam("b_details", type_=SERVICE.c.details.type))


def note_executors(connection: Connection, service_id: int, states: Sequence[ExecutorState]) -> None:
    """Say what the executors of a scheduler are, for people."""
    values = {"executors": msgspec.to_builtins(list(states))}
    connection.execute(update(SERVICE).where(SERVICE.c.id == service_id).values(values))


def note_worker(connection: Connection, service_id: int, details: ServiceDetails) -> bool:
    """Write down what a worker says of itself; False when no worker of this id is remembered: that may be any."""
    is_worker = (SERVICE.c.id == service_id, SERVICE.c.kind == WORKER)
    values = {"details": msgspec.to_builtins(details)}
    if connection.execute(select(SERVICE.c.id).where(*is_worker)).first() is None:
        return False
    connection.execute(update(SERVICE).where(*is_worker).values(values))
    return True


def stop(connection: Connection, service_id: int, now: datetime) -> None:
    """Say that it ended in good order."""
    living = (SERVICE.c.id == service_id, SERVICE.c.stopped_at.is_(None))
    connection.execute(update(SERVICE).where(*living).values(stopped_at=now))


def forget_stopped(connection: Connection, before: datetime) -> None:
    """Drop what ended long ago."""
    connection.execute(delete(SERVICE).where(SERVICE.c.stopped_at.is_not(None), SERVICE.c.stopped_at < before))


def register_this_process(connection: Connection, kind: str, now: datetime) -> int:
    """Say that this process lives, and forget those that ended long ago. Returns its id."""
    forget_stopped(connection, now - _REMEMBER)
    return register(
        connection,
        kind=kind,
        hostname=hostname(),
        pid=os.getpid(),
        process_started=processes.started_at(os.getpid()),
        now=now,
        details=ServiceDetails(version()),
    )


def is_first_scheduler(connection: Connection, own: int, leases: Leases) -> bool:
    """Whether this part began first of the schedulers that live: what one of them does for all is for it to do."""
    services = not_stopped(connection)
    silent = leases.silent(services)
    return own == min((each.id for each in services if each.executors is not None and each.id not in silent), default=0)


def installation(connection: Connection) -> str:
    """What tells this database from any other."""
    return str(connection.execute(_INSTALLATION).scalar() or "")


_INSTALLATION = select(InstallationTable.table.c.id)
