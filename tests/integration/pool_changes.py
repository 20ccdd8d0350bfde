"""Transactions that change pools, for tests of databases."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection, update

from trainflow.metadata.database import Database
from trainflow.metadata.queries import pool_queries
from trainflow.metadata.queries.pool_queries import POOL


def slots(database: Database) -> dict[str, int]:
    with database.reading() as connection:
        return {name: pool.slots for name, pool in pool_queries.slots(connection).items()}


def add_to(name: str) -> Callable[[Connection], None]:
    def add(connection: Connection) -> None:
        changed = connection.execute(update(POOL).where(POOL.c.name == name).values(slots=POOL.c.slots + 1))
        assert changed.rowcount == 1  # looked at: it is locked from now on

    return add
