"""The lock under which schedulers of one database queue tasks, so that no limit is exceeded that they share.

A transaction that queues counts what is held, and takes what is free. What another one takes meanwhile it does not see
before that is committed, which on a server takes as long as its disk does. So it locks, in one of two ways:

- *alone*: no other transaction queues anything before this one has ended. What it counts is exact.
- *beside others*: it has one of a few seats, each of which is one transaction's. It takes MOST_BESIDE slots at most, so
  the others take no more than UNSEEN while it does not see it; and it takes nothing where that could be too much. So
  no scheduler waits for the disk of another one, as long as no limit is near.

Why that is never too much: of all that have a seat at some moment, one has counted last. It saw whatever was committed
then; each of the others had a seat at that moment, or had ended. So no more than UNSEEN was missing from what it
counted, and it left room for that.

PostgreSQL has the seats (advisory locks, which end with their transaction). MySQL and MariaDB lock the pools, SQLite
has one writer: there everyone is alone.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Select, bindparam, func, literal_column, select

#: how many transactions may queue beside each other
SEATS = 4
#: pool slots, and so tasks, that one of them takes at most
MOST_BESIDE = 8
#: what the others have taken at most that one of them does not see
UNSEEN = (SEATS - 1) * MOST_BESIDE

#: a number among the advisory locks of the database that is ours ("trai")
_CLASS: Any = literal_column(str(int.from_bytes(b"trai")))


def has_seats(connection: Connection) -> bool:
    """Whether transactions can queue beside each other."""
    return connection.dialect.name == "postgresql"


def lock_beside(connection: Connection, seat: int) -> None:
    """Take a seat (0 … SEATS - 1) until this transaction ends. Only where `has_seats`."""
    connection.execute(_ONE, {"seat": seat})


def lock_alone(connection: Connection) -> None:
    """Have all seats until this transaction ends: no other one queues anything. Where there are none it locks nothing:
    the pools are to be locked when they are read."""
    if has_seats(connection):
        connection.execute(_ALL)


_ONE: Select[Any] = select(func.pg_advisory_xact_lock(_CLASS, bindparam("seat")))
# in order, so that two that want all of them do not wait for each other
_ALL: Select[Any] = select(func.pg_advisory_xact_lock(_CLASS, literal_column("seat"))).select_from(
    func.generate_series(literal_column("0"), literal_column(str(SEATS - 1))).alias("seat")
)
