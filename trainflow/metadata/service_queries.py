"""The living parts of the control plane and their leases."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, func, insert, select, update

from trainflow.deadlines import TOLERANCE
from trainflow.metadata.models import ServiceTable

SERVICE = ServiceTable.table


def register(
    connection: Connection, *, kind: str, hostname: str, pid: int, process_started: float, now: datetime
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
        },
    )
    return int(result.inserted_primary_key[0])  # type: ignore[index]


_REGISTER = insert(SERVICE)


def renew_lease(connection: Connection, service_id: int, now: datetime) -> None:
    """Say that it still lives."""
    connection.execute(_RENEW, {"service": service_id, "b_now": now})


_RENEW = (
    update(SERVICE)
    .where(SERVICE.c.id == bindparam("service"))
    .values(
        heartbeat_at=bindparam("b_now", type_=SERVICE.c.heartbeat_at.type),
        heartbeats=func.coalesce(SERVICE.c.heartbeats, 0) + 1,
    )
)


def stop(connection: Connection, service_id: int, now: datetime) -> None:
    """Say that it ended in good order."""
    living = (SERVICE.c.id == service_id, SERVICE.c.stopped_at.is_(None))
    connection.execute(update(SERVICE).where(*living).values(stopped_at=now))


def not_stopped(connection: Connection) -> list[Row[Any]]:
    """The parts that have not ended in good order: living, or dead without a word (see `leases`)."""
    return list(connection.execute(_NOT_STOPPED))


_NOT_STOPPED = select(SERVICE).where(SERVICE.c.stopped_at.is_(None)).order_by(SERVICE.c.id)


def shown_as_living(
    connection: Connection, now: datetime, dead_after: timedelta, kind: str | None = None
) -> list[Row[Any]]:
    """The parts that said lately that they live, by the clocks of the day: for people, who look once. Nothing may be
    taken away from the others because of it."""
    since = now - dead_after - TOLERANCE
    return [row for row in not_stopped(connection) if row.heartbeat_at > since and kind in (None, row.kind)]


def everyone(connection: Connection) -> list[Row[Any]]:
    """Every part that is remembered: living, ended, or dead without a word."""
    return list(connection.execute(_EVERYONE))


_EVERYONE = select(SERVICE).order_by(SERVICE.c.id)


def forget_stopped(connection: Connection, before: datetime) -> None:
    """Drop what ended long ago."""
    connection.execute(delete(SERVICE).where(SERVICE.c.stopped_at.is_not(None), SERVICE.c.stopped_at < before))
