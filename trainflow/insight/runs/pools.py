"""Pools, and what is in use of them."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Row

from trainflow.metadata.queries import pool_queries
from trainflow.metadata.queries.pool_queries import PoolUse
from trainflow.workspace.workspace import Workspace

#: slots of a pool without a limit
NO_LIMIT = -1


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """A limit that tasks share; all numbers are slots. `slots` -1 and `open` None: no limit. `deferred` tasks take
    slots only with `include_deferred`."""

    name: str
    slots: int
    include_deferred: bool
    description: str
    running: int
    queued: int
    deferred: int
    open: int | None


def list_pools(workspace: Workspace) -> list[Pool]:
    """All pools."""
    with workspace.database.reading() as connection:
        used = pool_queries.use(connection)
        return [_pool(row, used.get(row.name, PoolUse())) for row in pool_queries.listing(connection)]


def _pool(row: Row[Any], use: PoolUse) -> Pool:
    taken = use.running + use.queued + (use.deferred if row.include_deferred else 0)
    return Pool(
        name=row.name,
        slots=row.slots,
        include_deferred=row.include_deferred,
        description=row.description or "",
        running=use.running,
        queued=use.queued,
        deferred=use.deferred,
        open=None if row.slots == NO_LIMIT else max(0, row.slots - taken),
    )
