"""Deliveries to the mirror that are still to be made."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, bindparam, func, insert, select, update

from trainflow.deadlines import LONGEST_BACKOFF, is_pending
from trainflow.metadata.models import OutboxTable
from trainflow.observability.redaction import presentable

OUTBOX = OutboxTable.table
#: of why a delivery failed, this much is kept
REASON_CHARACTERS = 4_000


class Undelivered(NamedTuple):
    """What the mirror has not got: deliveries that wait and the reason of the first; those that it refused for good
    and the reason of the newest."""

    waiting: int = 0
    reason: str | None = None
    refused: int = 0
    refused_reason: str | None = None


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
        if is_pending(row.next_attempt_at, LONGEST_BACKOFF, now):
            break
        ready.append(row)
    return ready


def delivered(connection: Connection, outbox_id: int, now: datetime) -> None:
    """Note that it is in the mirror."""
    connection.execute(update(OUTBOX).where(OUTBOX.c.id == outbox_id).values(delivered_at=now, reason=None))


def failed(connection: Connection, outbox_id: int, *, reason: str, delay: timedelta, now: datetime) -> None:
    """The mirror could not be reached; try again after `delay`."""
    connection.execute(
        update(OUTBOX)
        .where(OUTBOX.c.id == outbox_id)
        .values(
            failures=OUTBOX.c.failures + 1, next_attempt_at=now + delay, reason=presentable(reason, REASON_CHARACTERS)
        )
    )


def make_due(connection: Connection, now: datetime) -> None:
    """Make due whatever waits for its next attempt."""
    waiting = (OUTBOX.c.delivered_at.is_(None), OUTBOX.c.next_attempt_at > now)
    connection.execute(update(OUTBOX).where(*waiting).values(next_attempt_at=now))


#: a delivery that was given up keeps the reason; one that arrived loses it
_WAITING = OUTBOX.c.delivered_at.is_(None)
_REFUSED = (OUTBOX.c.delivered_at.is_not(None), OUTBOX.c.reason.is_not(None))


def undelivered(connection: Connection) -> Undelivered:
    """How many deliveries wait or were refused, and why."""
    counted = select(func.count()).select_from(OUTBOX)
    waiting = connection.execute(counted.where(_WAITING)).scalar_one()
    refused = connection.execute(counted.where(*_REFUSED)).scalar_one()
    if not waiting and not refused:
        return Undelivered()
    why = select(OUTBOX.c.reason).limit(1)
    reason = connection.execute(why.where(_WAITING).order_by(OUTBOX.c.id)).scalar()
    refused_reason = connection.execute(why.where(*_REFUSED).order_by(OUTBOX.c.id.desc())).scalar()
    return Undelivered(waiting, reason, refused, refused_reason)


def deliver_refused_again(connection: Connection, now: datetime) -> int:
    """Let what was refused be tried once more; returns how many that are."""
    again = {"delivered_at": None, "reason": None, "failures": 0, "next_attempt_at": now}
    return connection.execute(update(OUTBOX).where(*_REFUSED).values(again)).rowcount


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
    connection.execute(
        update(OUTBOX)
        .where(OUTBOX.c.id == outbox_id)
        .values(delivered_at=now, reason=presentable(reason, REASON_CHARACTERS))
    )
