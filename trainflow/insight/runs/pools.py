"""Pools, and what is in use of them."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Row

from trainflow.errors import NotFound
from trainflow.identifiers import did_you_mean
from trainflow.metadata.queries import pool_queries
from trainflow.metadata.queries.pool_queries import PoolUse
from trainflow.workspace.workspace import Workspace

#: slots of a pool without a limit
NO_LIMIT = -1


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """A limit that tasks share; all numbers are slots. `slots` -1 and `open` None: no limit. `scheduled` tasks
    wait for one; `deferred` tasks take slots only with `include_deferred`."""

    name: str
    slots: int
    include_deferred: bool
    description: str
    running: int
    queued: int
    scheduled: int
    deferred: int
    open: int | None


def pool_named(workspace: Workspace, name: str) -> Pool:
    """The pool of a name. Raises NotFound."""
    found = list_pools(workspace)
    for each in found:
        if each.name == name:
            return each
    raise NotFound(f"no pool is called '{name}'{did_you_mean(name, [each.name for each in found])}")


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
        scheduled=use.scheduled,
        deferred=use.deferred,
        open=None if row.slots == NO_LIMIT else max(0, row.slots - taken),
    )
