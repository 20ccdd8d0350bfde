"""Drain a worker, a queue or a DAG: it finishes what it has and takes nothing new, until it is let go on."""

from __future__ import annotations

from datetime import datetime

import msgspec
from sqlalchemy import Connection

from trainflow.bounds import check_text
from trainflow.errors import InputError
from trainflow.identifiers import did_you_mean
from trainflow.metadata.queries import dag_queries, drain_queries, fleet_queries, service_list_queries
from trainflow.metadata.queries.drain_queries import Drain, DrainKind
from trainflow.metadata.queries.service_list_queries import WORKER, details_of, executors_of
from trainflow.workspace.workspace import Workspace

__all__ = ["DrainDone", "DrainKind", "drain", "undrain"]


class DrainDone(msgspec.Struct, frozen=True):
    """What is drained now, or is not any more. `changed`: it was not so before."""

    kind: str
    name: str
    drained: bool
    note: str | None
    changed: bool


def drain(workspace: Workspace, kind: DrainKind, name: str, now: datetime, *, note: str | None = None) -> DrainDone:
    """Have it take nothing new. Raises InputError for a worker or DAG that is not known; a queue is what tasks say."""
    check_text(name, kind.value)
    if note is not None:
        check_text(note, "note")

    def add(connection: Connection) -> bool:
        _check_known(connection, kind, name)
        before = drain_queries.listing(connection).get(kind, name)
        fleet_queries.drain(connection, Drain(kind, name, now if before is None else before.since, note))
        return before is None

    changed = workspace.database.write(add)
    workspace.wake_engine()
    return DrainDone(kind.value, name, True, note, changed)


def undrain(workspace: Workspace, kind: DrainKind, name: str) -> DrainDone:
    """Have it take what comes again. Raises InputError for what is not drained."""

    def remove(connection: Connection) -> bool:
        drained = [each.name for each in drain_queries.listing(connection).all() if each.kind is kind]
        if name not in drained:
            raise InputError(f"{kind.value} '{name}' is not drained{did_you_mean(name, drained, 'drained')}")
        return fleet_queries.undrain(connection, kind, name)

    workspace.database.write(remove)
    workspace.wake_engine()
    return DrainDone(kind.value, name, False, None, True)


def _check_known(connection: Connection, kind: DrainKind, name: str) -> None:
    """Raise InputError for what is neither there nor was within the last days."""
    if kind is DrainKind.QUEUE:
        return
    if kind is DrainKind.DAG:
        known = {row.dag_id for row in dag_queries.everything(connection)}
    else:
        rows = service_list_queries.everyone(connection)
        known = {row.hostname for row in rows if row.kind == WORKER or executors_of(row)}
        known |= {details.name for row in rows if (details := details_of(row)) is not None and details.name}
    if name not in known:
        shown = "DAG" if kind is DrainKind.DAG else "worker"
        raise InputError(f"no {shown} is called '{name}'{did_you_mean(name, sorted(known), 'known')}")
