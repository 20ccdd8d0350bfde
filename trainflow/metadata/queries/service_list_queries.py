"""The living parts of the control plane and workers, as they say of themselves. Read only, as text: see
`status_queries`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from trainflow.deadlines import TOLERANCE
from trainflow.metadata.sql_text import ReadingConnection, SqlText

#: kind of the parts that hear attempts on other hosts
API_SERVER = "api_server"
#: kind of what takes attempts elsewhere, and has no database: the API server writes its row
WORKER = "worker"


class Service(NamedTuple):
    """A part or a worker, and its lease. `executors`, `details`: see `executors_of` and `details_of`."""

    id: int
    kind: str
    hostname: str
    pid: int
    process_started: float
    started_at: datetime
    heartbeat_at: datetime
    stopped_at: datetime | None
    heartbeats: int | None
    executors: list[Any] | None
    details: dict[str, Any] | None


class ExecutorState(msgspec.Struct, frozen=True):
    """One executor of a scheduler. `problem`: why it takes nothing now."""

    name: str
    type: str
    slots: int
    problem: str | None = None


def executors_of(row: Service) -> list[ExecutorState]:
    """The executors of a service."""
    return msgspec.convert(row.executors or [], list[ExecutorState])


class WorkerState(msgspec.Struct, frozen=True):
    """A worker that takes attempts from a queue. `in_use`: slots with an attempt."""

    executor: str
    queues: list[str]
    slots: int
    in_use: int = 0


class LoopUse(msgspec.Struct, frozen=True):
    """The loop of a scheduler since it began: turns, and seconds in which it did not wait. `longest_seconds`: of one
    turn, since the heartbeat before."""

    turns: int = 0
    seconds: float = 0.0
    longest_seconds: float = 0.0


class ServiceDetails(msgspec.Struct, frozen=True):
    """What a part or a worker says of itself. `name`: what it is drained by, where that is not its host."""

    version: str
    name: str | None = None
    worker: WorkerState | None = None
    loop: LoopUse | None = None


def details_of(row: Service) -> ServiceDetails | None:
    """What it said of itself."""
    return None if row.details is None else msgspec.convert(row.details, ServiceDetails)


def not_stopped(connection: ReadingConnection) -> list[Service]:
    """The parts that have not ended in good order: living, or dead without a word (see `metadata.leases`)."""
    return _NOT_STOPPED.rows(connection)


def shown_as_living(
    connection: ReadingConnection, now: datetime, dead_after: timedelta, kind: str | None = None
) -> list[Service]:
    """The parts that said lately that they live, by the clocks of the day: for people, who look once. Nothing may be
    taken away from the others because of it."""
    return [row for row in heard_lately(not_stopped(connection), now, dead_after) if kind in (None, row.kind)]


def heard_lately(rows: Sequence[Service], now: datetime, dead_after: timedelta) -> list[Service]:
    """Parts that said lately that they live: see `shown_as_living`."""
    since = now - dead_after - TOLERANCE
    return [row for row in rows if row.heartbeat_at > since]


def everyone(connection: ReadingConnection) -> list[Service]:
    """Every part that is remembered: living, ended, or dead without a word."""
    return _EVERYONE.rows(connection)


def _services(which: str) -> SqlText[Service]:
    return SqlText(
        f"SELECT {', '.join(Service._fields)} FROM service {which} ORDER BY id",
        Service,
        moments=["started_at", "heartbeat_at", "stopped_at"],
        documents=["executors", "details"],
    )


_NOT_STOPPED = _services("WHERE stopped_at IS NULL")
_EVERYONE = _services("")
