"""Pools."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from trainflow.bounds import LARGEST_INTEGER, check_text
from trainflow.errors import InputError, NotFound
from trainflow.identifiers import did_you_mean
from trainflow.metadata.models import PoolTable
from trainflow.metadata.queries import in_flight, queueing_lock
from trainflow.metadata.queries.task_queries import TASK
from trainflow.metadata.schema import DEFAULT_POOL

POOL = PoolTable.table


class PoolSlots(NamedTuple):
    """A pool as configured, and what deferred tasks use of it. `slots` -1: no limit."""

    slots: int
    used_by_deferred: int = 0


def slots(connection: Connection) -> dict[str, PoolSlots]:
    """Pool → its slots."""
    return _answered(connection, connection.execute(_SLOTS))()


def ask_and_lock_slots(connection: Connection, *, seat: int | None) -> Callable[[], dict[str, PoolSlots]]:
    """Like `slots`, for a transaction that queues tasks, alone or with a `seat` beside others (`queueing_lock`). Call
    what is returned for the answer."""
    if seat is not None:
        queueing_lock.lock_beside(connection, seat)
    else:
        queueing_lock.lock_alone(connection)
    return _answered(connection, connection.execute(_SLOTS if queueing_lock.has_seats(connection) else _SLOTS_LOCKED))


def _answered(connection: Connection, asked: Any) -> Callable[[], dict[str, PoolSlots]]:

    def answer() -> dict[str, PoolSlots]:
        rows = asked.all()
        counting = [row.name for row in rows if row.include_deferred]
        deferred = in_flight.deferred_pool_slots(connection, counting) if counting else {}
        return {row.name: PoolSlots(row.slots, deferred.get(row.name, 0)) for row in rows}

    return answer


_SLOTS = select(POOL.c.name, POOL.c.slots, POOL.c.include_deferred).order_by(POOL.c.name)
_SLOTS_LOCKED = _SLOTS.with_for_update()


def listing(connection: Connection) -> list[Row[Any]]:
    """Every pool."""
    return list(connection.execute(select(POOL).order_by(POOL.c.name)))


def put(connection: Connection, name: str, slot_count: int, *, description: str, include_deferred: bool) -> None:
    """Create or change a pool. Raises InputError for a number of slots that means nothing."""
    check_text(name, "pool")
    if slot_count > LARGEST_INTEGER:
        raise InputError(f"pool '{name}': slots must be {LARGEST_INTEGER:,} at most, or -1 for no limit")
    if slot_count < -1:
        raise InputError(f"pool '{name}': slots must be 0 or more, or -1 for no limit, not {slot_count}")
    values = {"slots": slot_count, "description": description, "include_deferred": include_deferred}
    # a scheduler that counts slots now does so with what they were, and has ended before they change
    queueing_lock.lock_alone(connection)
    if connection.execute(update(POOL).where(POOL.c.name == name).values(**values)).rowcount == 0:
        connection.execute(insert(POOL).values(name=name, **values))


def remove(connection: Connection, name: str) -> None:
    """Delete a pool. Raises InputError for the default pool and for one that does not exist."""
    check_removable(connection, name)
    queueing_lock.lock_alone(connection)
    connection.execute(delete(POOL).where(POOL.c.name == name))


def check_removable(connection: Connection, name: str) -> None:
    """Raise InputError for the default pool and for one that does not exist."""
    if name == DEFAULT_POOL:
        raise InputError(f"{DEFAULT_POOL} cannot be deleted: tasks that name no pool use it")
    known = [row.name for row in listing(connection)]
    if name not in known:
        raise NotFound(f"no pool is called '{name}'{did_you_mean(name, known)}")


class PoolUse(NamedTuple):
    """Slots in use, by what the tasks that use them do."""

    running: int = 0
    queued: int = 0
    #: those that wait for a slot
    scheduled: int = 0
    deferred: int = 0


def use(connection: Connection) -> dict[str, PoolUse]:
    """Pool → what is in use of it; pools without a task at work are left out."""
    states = ("running", "queued", "scheduled", "deferred")
    rows = connection.execute(
        select(TASK.c.pool, TASK.c.state, func.sum(TASK.c.pool_slots))
        .where(TASK.c.state.in_(states))
        .group_by(TASK.c.pool, TASK.c.state)
    )
    found: dict[str, dict[str, int]] = {}
    for pool, state, count in rows:
        found.setdefault(pool, {})[state] = int(count)
    return {pool: PoolUse(**counts) for pool, counts in found.items()}
