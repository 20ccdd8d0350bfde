"""Create, change and delete pools. Tasks that run go on, even when there are more of them than slots now."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection

from trainflow.identifiers import check_name
from trainflow.metadata.queries import pool_queries, task_queries
from trainflow.workspace.workspace import Workspace


class PoolDone(msgspec.Struct, frozen=True):
    """A pool as it is now; `slots` -1: no limit. `created`: it was not there before."""

    name: str
    slots: int
    created: bool


class PoolDeleted(msgspec.Struct, frozen=True):
    """A pool that is gone, or would be; `waiting`: so many tasks of runs that have not ended name it, and do not start
    any more."""

    name: str
    waiting: int


def set_pool(
    workspace: Workspace, name: str, slots: int, *, description: str | None = None, include_deferred: bool | None = None
) -> PoolDone:
    """Create a pool or change it; what is None stays as it was. Raises InputError."""
    check_name(name, "pool")

    def put(connection: Connection) -> bool:
        before = next((row for row in pool_queries.listing(connection) if row.name == name), None)
        pool_queries.put(
            connection,
            name,
            slots,
            description=(before.description or "" if before else "") if description is None else description,
            include_deferred=(before.include_deferred if before else False)
            if include_deferred is None
            else include_deferred,
        )
        return before is None

    created = workspace.database.write(put)
    workspace.wake_engine()
    return PoolDone(name, slots, created)


def plan_delete_pool(workspace: Workspace, name: str) -> PoolDeleted:
    """What `delete_pool` would come to. Raises InputError."""
    with workspace.database.reading() as connection:
        pool_queries.check_removable(connection, name)
        return PoolDeleted(name, task_queries.count_in_pool(connection, name))


def delete_pool(workspace: Workspace, name: str) -> PoolDeleted:
    """Delete a pool. Tasks that name it are not started any more until it is there again. Raises InputError."""
    with workspace.database.transaction() as connection:
        pool_queries.remove(connection, name)
        return PoolDeleted(name, task_queries.count_in_pool(connection, name))
