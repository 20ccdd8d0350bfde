"""Requests that are done once however often they come: a key of who asks, and the answer that was given."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, insert, select, update

from trainflow.metadata.api_models import IdempotencyKeyTable

KEY = IdempotencyKeyTable.table
#: how long an answer is kept
KEPT = timedelta(days=7)


def begin(connection: Connection, owner: str, key: str, fingerprint: str, now: datetime) -> Row[Any] | None:
    """The request that has this key; None: none had, and this one has it now. Two at once: the database lets one in,
    the other is tried again by `Database.write` and finds it."""
    connection.execute(delete(KEY).where(KEY.c.created_at < now - KEPT))
    found = find(connection, owner, key)
    if found is None:
        connection.execute(
            insert(KEY).values(owner=owner, key=key, fingerprint=fingerprint, status=None, created_at=now)
        )
    return found


def find(connection: Connection, owner: str, key: str) -> Row[Any] | None:
    """The request that has this key; None: none has."""
    return connection.execute(_FIND, {"owner": owner, "name": key}).one_or_none()


_OF_KEY = (KEY.c.owner == bindparam("owner"), KEY.c.key == bindparam("name"))
_FIND = select(KEY).where(*_OF_KEY)


def end(connection: Connection, owner: str, key: str, status: int, answer: str | None) -> None:
    """Keep what was answered."""
    statement = update(KEY).where(KEY.c.owner == owner, KEY.c.key == key)
    connection.execute(statement.values(status=status, answer=answer))


def forget(connection: Connection, owner: str, key: str) -> None:
    """Let the key be used again: nothing was answered."""
    connection.execute(delete(KEY).where(KEY.c.owner == owner, KEY.c.key == key))
