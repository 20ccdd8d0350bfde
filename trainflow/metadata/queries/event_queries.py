"""The event log: who did what, when, from where."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, insert, select

from trainflow.metadata.api_models import EventTable

EVENT = EventTable.table
_LONGEST = 250


class ApiEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A deed, or a refusal. `owner`: who asked for it; `address`: from where; `extra`: what it was."""

    at: datetime
    event: str
    owner: str
    address: str
    dag_id: str | None = None
    run_id: str | None = None
    task_id: str | None = None
    extra: dict[str, Any] = {}


def add(connection: Connection, event: ApiEvent) -> None:
    """Note an event. Names that are longer than any that there is are cut: they were not found."""
    values = {
        name: value[:_LONGEST] if isinstance(value, str) else value
        for name, value in msgspec.structs.asdict(event).items()
    }
    connection.execute(insert(EVENT).values(**values))


def listing(
    connection: Connection,
    limit: int,
    *,
    dag_id: str | None = None,
    event: str | None = None,
    before: int | None = None,
) -> list[Row[Any]]:
    """The newest events, newest first; of a DAG, of a kind, and before the one of an id, where these are given."""
    statement = select(EVENT).order_by(EVENT.c.id.desc()).limit(limit)
    if dag_id is not None:
        statement = statement.where(EVENT.c.dag_id == dag_id)
    if event is not None:
        statement = statement.where(EVENT.c.event == event)
    if before is not None:
        statement = statement.where(EVENT.c.id < before)
    return list(connection.execute(statement))


def find(connection: Connection, event_id: int) -> Row[Any] | None:
    """One of them."""
    return connection.execute(select(EVENT).where(EVENT.c.id == event_id)).one_or_none()
