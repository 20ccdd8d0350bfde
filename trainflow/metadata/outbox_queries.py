"""Deliveries to the mirror that are still to be made."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, bindparam, func, insert, select, update

from trainflow.metadata.models import Outbox

OUTBOX = Outbox.table


def add(connection: Connection, *, kind: str, dag_run_id: int, clear_number: int, now: datetime) -> None:
    """Tell the mirror, in the transaction that makes it true. The same fact is told once."""
    key = f"{kind}:{dag_run_id}:{clear_number}"
    if connection.execute(_BY_KEY, {"key": key}).one_or_none() is None:
        row = {"key": key, "dag_run_id": dag_run_id, "kind": kind, "created_at": now, "next_attempt_at": now}
        connection.execute(_INSERT, row)


def add_payload(connection: Connection, *, key: str, kind: str, payload: dict[str, Any], now: datetime) -> None:
    """A delivery that says all there is to say, and is about no run of this database. The same `key` is told once."""
    if connection.execute(_BY_KEY, {"key": key}).one_or_none() is None:
        connection.execute(
            _INSERT, {"key": key, "kind": kind, "payload": payload, "created_at": now, "next_attempt_at": now}
        )


_BY_KEY = select(OUTBOX.c.id).where(OUTBOX.c.key == bindparam("key"))
_INSERT = insert(OUTBOX)


def pending(connection: Connection, now: datetime, limit: int = 200) -> list[Row[Any]]:
    """What may be delivered now, in the order in which it happened.

    Nothing behind a delivery that waits for its next attempt: the mirror sees a chain in order.
    """
    rows = connection.execute(
        select(OUTBOX).where(OUTBOX.c.delivered_at.is_(None)).order_by(OUTBOX.c.id).limit(limit)
    ).all()
    ready: list[Row[Any]] = []
    for row in rows:
        if row.next_attempt_at > now:
            break
        ready.append(row)
    return ready


def delivered(connection: Connection, outbox_id: int, now: datetime) -> None:
    """It is in the mirror."""
    connection.execute(update(OUTBOX).where(OUTBOX.c.id == outbox_id).values(delivered_at=now, reason=None))


def failed(connection: Connection, outbox_id: int, *, reason: str, delay: timedelta, now: datetime) -> None:
    """The mirror could not be reached; try again after `delay`."""
    connection.execute(
        update(OUTBOX)
        .where(OUTBOX.c.id == outbox_id)
        .values(failures=OUTBOX.c.failures + 1, next_attempt_at=now + delay, reason=reason)
    )


def make_due(connection: Connection, now: datetime) -> None:
    """Whatever waits for its next attempt is due now."""
    waiting = (OUTBOX.c.delivered_at.is_(None), OUTBOX.c.next_attempt_at > now)
    connection.execute(update(OUTBOX).where(*waiting).values(next_attempt_at=now))


def undelivered(connection: Connection) -> tuple[int, str | None]:
    """How many are waiting, and why the first one failed, if it did."""
    count = connection.execute(
        select(func.count()).select_from(OUTBOX).where(OUTBOX.c.delivered_at.is_(None))
    ).scalar_one()
    reason = connection.execute(
        select(OUTBOX.c.reason).where(OUTBOX.c.delivered_at.is_(None)).order_by(OUTBOX.c.id).limit(1)
    ).scalar()
    return count, reason


def next_attempt_at(connection: Connection) -> datetime | None:
    """When the next delivery is due; None when there is none."""
    return connection.execute(
        select(OUTBOX.c.next_attempt_at).where(OUTBOX.c.delivered_at.is_(None)).order_by(OUTBOX.c.id).limit(1)
    ).scalar()


def failures(connection: Connection, outbox_id: int) -> int:
    """How often a delivery has failed."""
    return int(connection.execute(select(OUTBOX.c.failures).where(OUTBOX.c.id == outbox_id)).scalar_one())


def given_up(connection: Connection, outbox_id: int, reason: str, now: datetime) -> None:
    """The mirror refuses it for good: it is not tried again, and does not hold up what comes behind it."""
    connection.execute(update(OUTBOX).where(OUTBOX.c.id == outbox_id).values(delivered_at=now, reason=reason))
