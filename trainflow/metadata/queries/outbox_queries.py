"""Deliveries to other systems that are still to be made. A row is one fact for one channel: each channel is delivered,
tried again and pruned by itself."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, bindparam, delete, insert, select, update

from trainflow.deadlines import LONGEST_BACKOFF, is_pending
from trainflow.metadata.models import OutboxTable
from trainflow.metadata.queries.status_queries import Undelivered, undelivered
from trainflow.observability.redaction import presentable
from trainflow.settings.outbox_channels import Channels, OutboxChannel

OUTBOX = OutboxTable.table
#: of why a delivery failed, this much is kept
REASON_CHARACTERS = 4_000


def add(connection: Connection, channels: Channels, kind: str, run: Any, now: datetime) -> None:
    """Have it told of a run (`id`, `clear_number`) by these channels, in the transaction that makes it true. The same
    fact is told once by each. Costs nothing without a channel."""
    if channels:
        values = {"kind": kind, "dag_run_id": run.id, "created_at": now, "next_attempt_at": now}
        _add_once(connection, channels, f"{kind}:{run.id}:{run.clear_number}", values)


def add_payload(
    connection: Connection, *, channel: OutboxChannel, key: str, kind: str, payload: dict[str, Any], now: datetime
) -> None:
    """A delivery that says all there is to say, and is about no run of this database. The same `key` is told once."""
    values = {"kind": kind, "payload": payload, "created_at": now, "next_attempt_at": now}
    _add_once(connection, (channel,), key, values)


def _add_once(connection: Connection, channels: Channels, key: str, values: dict[str, Any]) -> None:
    known = set(connection.execute(_CHANNELS_BY_KEY, {"key": key}).scalars())
    for channel in channels:
        if channel.value not in known:
            connection.execute(_INSERT, {"key": key, "channel": channel.value, **values})


_CHANNELS_BY_KEY = select(OUTBOX.c.channel).where(OUTBOX.c.key == bindparam("key"))
_INSERT = insert(OUTBOX)


def delivered(connection: Connection, outbox_id: int, now: datetime) -> None:
    """Note that the system has it."""
    connection.execute(update(OUTBOX).where(OUTBOX.c.id == outbox_id).values(delivered_at=now, reason=None))


def failed(connection: Connection, outbox_id: int, *, reason: str, delay: timedelta, now: datetime) -> None:
    """The system could not be reached; try again after `delay`."""
    connection.execute(
        update(OUTBOX)
        .where(OUTBOX.c.id == outbox_id)
        .values(
            failures=OUTBOX.c.failures + 1, next_attempt_at=now + delay, reason=presentable(reason, REASON_CHARACTERS)
        )
    )


def failures(connection: Connection, outbox_id: int) -> int:
    """How often a delivery has failed."""
    return int(connection.execute(select(OUTBOX.c.failures).where(OUTBOX.c.id == outbox_id)).scalar_one())


def given_up(connection: Connection, outbox_id: int, reason: str, now: datetime) -> None:
    """The system refuses it for good: it is not tried again, and does not hold up what comes behind it."""
    connection.execute(
        update(OUTBOX)
        .where(OUTBOX.c.id == outbox_id)
        .values(delivered_at=now, reason=presentable(reason, REASON_CHARACTERS))
    )


class OutboxOfChannel:
    """The deliveries of one channel."""

    def __init__(self, channel: OutboxChannel) -> None:
        self._channel = channel
        self._mine = OUTBOX.c.channel == channel.value
        self._waiting: tuple[ColumnElement[bool], ...] = (self._mine, OUTBOX.c.delivered_at.is_(None))
        #: a delivery that was given up keeps the reason; one that arrived loses it
        self._refused = (self._mine, OUTBOX.c.delivered_at.is_not(None), OUTBOX.c.reason.is_not(None))

    def pending(self, connection: Connection, now: datetime, limit: int = 200) -> list[Row[Any]]:
        """What may be delivered now, in the order in which it happened.

        Nothing behind a delivery that waits for its next attempt: a system sees a chain in order.
        """
        rows = connection.execute(select(OUTBOX).where(*self._waiting).order_by(OUTBOX.c.id).limit(limit)).all()
        ready: list[Row[Any]] = []
        for row in rows:
            if is_pending(row.next_attempt_at, LONGEST_BACKOFF, now):
                break
            ready.append(row)
        return ready

    def next_attempt_at(self, connection: Connection) -> datetime | None:
        """When the next delivery is due; None when there is none."""
        return connection.execute(
            select(OUTBOX.c.next_attempt_at).where(*self._waiting).order_by(OUTBOX.c.id).limit(1)
        ).scalar()

    def make_due(self, connection: Connection, now: datetime) -> None:
        """Make due whatever waits for its next attempt."""
        waits = (*self._waiting, OUTBOX.c.next_attempt_at > now)
        connection.execute(update(OUTBOX).where(*waits).values(next_attempt_at=now))

    def undelivered(self, connection: Connection) -> Undelivered:
        """How many deliveries wait or were refused, and why."""
        return undelivered(connection, self._channel)

    def deliver_refused_again(self, connection: Connection, now: datetime) -> int:
        """Let what was refused be tried once more; returns how many that are."""
        again = {"delivered_at": None, "reason": None, "failures": 0, "next_attempt_at": now}
        return connection.execute(update(OUTBOX).where(*self._refused).values(again)).rowcount

    def prune(self, connection: Connection, before: datetime) -> int:
        """Forget what arrived before that moment; what was refused is kept, since it may be let try again. Returns how
        many that were."""
        arrived = (self._mine, OUTBOX.c.delivered_at < before, OUTBOX.c.reason.is_(None))
        return connection.execute(delete(OUTBOX).where(*arrived)).rowcount
