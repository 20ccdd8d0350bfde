"""Notices that are still to be delivered."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from trainflow.deadlines import LONGEST_BACKOFF, TOLERANCE
from trainflow.identifiers import canonical_json, digest
from trainflow.messages.notice import Notice
from trainflow.metadata.models import NotificationTable
from trainflow.observability.redaction import presentable

NOTIFICATION = NotificationTable.table
#: of why a delivery failed, this much is kept
REASON_CHARACTERS = 4_000


def add(connection: Connection, notice: Notice, now: datetime) -> bool:
    """Have it told, in the transaction that makes it true. The same fact is told once: False when it is known."""
    key = _key(notice)
    if connection.execute(select(NOTIFICATION.c.id).where(NOTIFICATION.c.key == key)).one_or_none() is not None:
        return False
    values = {"key": key, "notice": msgspec.to_builtins(notice), "created_at": now, "next_attempt_at": now}
    try:
        # two processes may find out the same at once, and neither may lose its own work over it
        with connection.begin_nested():
            connection.execute(insert(NOTIFICATION).values(**values))
    except IntegrityError:
        return False
    return True


def _key(notice: Notice) -> str:
    chain = [notice.pipeline, notice.stage, notice.branch]
    return digest(canonical_json([*chain, notice.event.value, notice.key]))


def pending(connection: Connection, now: datetime, limit: int = 100) -> list[Row[Any]]:
    """What may be told now, oldest first. One that waits for its next attempt holds up no other."""
    return list(
        connection.execute(
            select(NOTIFICATION)
            .where(
                NOTIFICATION.c.delivered_at.is_(None),
                # not `deadlines.is_pending`
                or_(
                    NOTIFICATION.c.next_attempt_at <= now,
                    NOTIFICATION.c.next_attempt_at > now + LONGEST_BACKOFF + TOLERANCE,
                ),
            )
            .order_by(NOTIFICATION.c.id)
            .limit(limit)
        )
    )


def taken(connection: Connection, notification_id: int, by: Iterable[str], now: datetime, reason: str | None) -> None:
    """Every target has it; or (with a reason) it is not told any more."""
    connection.execute(
        update(NOTIFICATION)
        .where(NOTIFICATION.c.id == notification_id)
        .values(
            delivered_at=now,
            taken_by=_names(by),
            reason=None if reason is None else presentable(reason, REASON_CHARACTERS),
        )
    )


def failed(
    connection: Connection, notification_id: int, by: Iterable[str], *, reason: str, delay: timedelta, now: datetime
) -> None:
    """Note that only the targets `by` have it; the others are tried again after `delay`."""
    connection.execute(
        update(NOTIFICATION)
        .where(NOTIFICATION.c.id == notification_id)
        .values(
            taken_by=_names(by),
            failures=NOTIFICATION.c.failures + 1,
            next_attempt_at=now + delay,
            reason=presentable(reason, REASON_CHARACTERS),
        )
    )


def takers(row: Row[Any]) -> frozenset[str]:
    """The targets that have it already."""
    return frozenset(filter(None, row.taken_by.split(",")))


def make_due(connection: Connection, now: datetime) -> None:
    """Make due whatever waits for its next attempt."""
    waiting = (NOTIFICATION.c.delivered_at.is_(None), NOTIFICATION.c.next_attempt_at > now)
    connection.execute(update(NOTIFICATION).where(*waiting).values(next_attempt_at=now))


def next_attempt_at(connection: Connection) -> datetime | None:
    """When the next one is due; None when there is none."""
    return connection.execute(
        select(func.min(NOTIFICATION.c.next_attempt_at)).where(NOTIFICATION.c.delivered_at.is_(None))
    ).scalar()


def undelivered(connection: Connection) -> tuple[int, str | None]:
    """How many are waiting, and why the first that failed did."""
    waiting = NOTIFICATION.c.delivered_at.is_(None)
    count = connection.execute(select(func.count()).select_from(NOTIFICATION).where(waiting)).scalar_one()
    reason = connection.execute(
        select(NOTIFICATION.c.reason)
        .where(waiting, NOTIFICATION.c.reason.is_not(None))
        .order_by(NOTIFICATION.c.id)
        .limit(1)
    ).scalar()
    return count, reason


def _names(by: Iterable[str]) -> str:
    return ",".join(sorted(by))
