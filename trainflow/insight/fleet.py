"""Who is alive over this database, what it has in hand, what waits for it, and what takes nothing new."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, Row

from trainflow.clock import elapsed_seconds
from trainflow.insight.refusals import drain_of_worker, living_parts, refusals, with_queues
from trainflow.insight.why_task import handed_to
from trainflow.metadata.queries import drain_queries, fleet_queries
from trainflow.metadata.queries.drain_queries import DrainKind, Drains
from trainflow.metadata.queries.service_list_queries import WORKER, ExecutorState, Service, details_of, executors_of
from trainflow.settings.executors import executor_entries
from trainflow.workspace.workspace import Workspace


class FleetPart(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the control plane that lives. `in_use`: attempts of its own `local` executor, `slots`: how many it
    takes; None for one that runs none. `drained`: why it takes nothing new."""

    kind: str
    hostname: str
    pid: int
    version: str | None
    started_at: datetime
    heartbeat_at: datetime
    slots: int | None
    in_use: int | None
    drained: str | None


class FleetWorker(msgspec.Struct, frozen=True, kw_only=True):
    """A worker that lives. `name`: what it is drained by. `drained`: why it takes nothing new, from any of its
    queues."""

    name: str
    hostname: str
    pid: int
    version: str
    executor: str
    queues: list[str]
    slots: int
    in_use: int
    started_at: datetime
    heartbeat_at: datetime
    drained: str | None


class FleetExecutor(msgspec.Struct, frozen=True, kw_only=True):
    """An executor that is configured here. `slots` of `local` are those of each engine. `problem`: why it takes
    nothing now."""

    name: str
    type: str
    slots: int
    queued: int
    running: int
    problem: str | None


class FleetQueue(msgspec.Struct, frozen=True, kw_only=True):
    """A queue of tasks for an executor: how many wait for a slot, were handed over and not begun, run. `workers`: how
    many listen on it; None where none needs to."""

    queue: str
    executor: str
    scheduled: int
    queued: int
    running: int
    workers: int | None
    drained: str | None


class LongestWait(msgspec.Struct, frozen=True):
    """The task that has waited longest since it could run, and why it does not."""

    dag_id: str
    run_id: str
    task_id: str
    since: datetime
    seconds: float
    why: str


class DrainedThing(msgspec.Struct, frozen=True):
    """What takes nothing new: a `kind` of worker, queue or dag. `running`: attempts that it still finishes."""

    kind: str
    name: str
    since: datetime
    note: str | None
    running: int


class Fleet(msgspec.Struct, frozen=True, kw_only=True):
    """All of it."""

    parts: list[FleetPart]
    workers: list[FleetWorker]
    executors: list[FleetExecutor]
    queues: list[FleetQueue]
    oldest_waiting: LongestWait | None
    drained: list[DrainedThing]


def fleet(workspace: Workspace, now: datetime) -> Fleet:
    """What is there now, as the database knows it."""
    with workspace.database.reading() as connection:
        look = _Look(workspace, connection, living_parts(connection, workspace.settings, now), now)
    return Fleet(
        parts=[look.part(row) for row in look.living if row.kind != WORKER],
        workers=look.workers,
        executors=look.executors(),
        queues=look.queues(),
        oldest_waiting=look.oldest,
        drained=[look.drained(each) for each in look.drains.all()],
    )


class _Look:
    """What one look at the database has found."""

    def __init__(self, workspace: Workspace, connection: Connection, living: Sequence[Service], now: datetime) -> None:
        self._settings = workspace.settings
        self.living = living
        self.drains: Drains = drain_queries.listing(connection)
        self.work = fleet_queries.work(connection, self._settings.executor.default)
        self._entries = executor_entries(self._settings)
        self.workers = [each for row in living if row.kind == WORKER and (each := self._worker(row)) is not None]
        self.oldest = self._oldest(connection, now)

    def part(self, row: Service) -> FleetPart:
        """A part that lives."""
        details = details_of(row)
        local = {state.name: state.slots for state in executors_of(row) if state.type == "local"}
        drain = self.drains.get(DrainKind.WORKER, row.hostname) if local else None
        return FleetPart(
            **_said(row),
            kind=row.kind,
            version=None if details is None else details.version,
            slots=sum(local.values()) if local else None,
            in_use=self.work.held_by(row.id, local) if local else None,
            drained=None if drain is None else drain.sentence,
        )

    def _worker(self, row: Service) -> FleetWorker | None:
        details = details_of(row)
        if details is None or details.worker is None:
            return None
        name, worker = details.name or row.hostname, details.worker
        drain = drain_of_worker(self.drains, name, row.hostname)
        return FleetWorker(
            **_said(row),
            name=name,
            version=details.version,
            executor=worker.executor,
            queues=worker.queues,
            slots=worker.slots,
            in_use=worker.in_use,
            drained=None if drain is None else drain.sentence,
        )

    def executors(self) -> list[FleetExecutor]:
        """The executors that are configured, as schedulers see them."""
        said: dict[str, ExecutorState] = {}
        for row in self.living:
            said.update({state.name: state for state in executors_of(row)})
        return [
            FleetExecutor(
                name=name,
                type=entry.type,
                slots=entry.slots,
                queued=self.work.count(executor=name, state="queued"),
                running=self.work.count(executor=name, state="running"),
                problem=said[name].problem if name in said else None,
            )
            for name, entry in self._entries.items()
        ]

    def queues(self) -> list[FleetQueue]:
        """The queues that have tasks, or workers, or are drained."""
        listened = Counter((worker.executor, queue) for worker in self.workers for queue in worker.queues)
        known = {(each.executor, each.queue) for each in self.work.counts} | listened.keys()
        drained = {each.name for each in self.drains.all() if each.kind is DrainKind.QUEUE}
        known |= {(self._settings.executor.default, name) for name in drained - {queue for _, queue in known}}
        needs_workers = with_queues(self._settings)
        return [
            FleetQueue(
                queue=queue,
                executor=executor,
                scheduled=self.work.count(executor=executor, queue=queue, state="scheduled"),
                queued=self.work.count(executor=executor, queue=queue, state="queued"),
                running=self.work.count(executor=executor, queue=queue, state="running"),
                workers=listened[executor, queue] if executor in needs_workers else None,
                drained=None if (drain := self.drains.get(DrainKind.QUEUE, queue)) is None else drain.sentence,
            )
            for executor, queue in sorted(known)
        ]

    def _oldest(self, connection: Connection, now: datetime) -> LongestWait | None:
        row = fleet_queries.oldest_waiting(connection)
        if row is None:
            return None
        since = row.scheduled_at or row.queued_at or now
        waited = elapsed_seconds(since, now) or 0.0
        return LongestWait(row.dag_id, row.run_id, row.task_id, since, waited, self._why(connection, row, now))

    def _why(self, connection: Connection, row: Row[Any], now: datetime) -> str:
        refused = refusals(connection, self._settings, now).get(row.id)
        if refused is not None:
            return refused
        if not any(each.kind in ("engine", "scheduler") for each in self.living):
            return "no scheduler is alive"
        if row.is_paused:
            return f"DAG '{row.dag_id}' is paused"
        if row.state == "scheduled":
            return "is about to be handed to the executor"
        executor = row.executor or self._settings.executor.default
        queue = row.queue if executor in with_queues(self._settings) else None
        return handed_to(executor, row.queued_at, queue, row.note, now)

    def drained(self, drain: drain_queries.Drain) -> DrainedThing:
        """One thing that is drained, and what it still finishes."""
        if drain.kind is DrainKind.WORKER:
            own = sum(worker.in_use for worker in self.workers if drain.name in (worker.name, worker.hostname))
            held = sum(part.in_use or 0 for row in self.living if (part := self.part(row)).hostname == drain.name)
            running = own + held
        elif drain.kind is DrainKind.QUEUE:
            running = self.work.count(queue=drain.name, state="running")
        else:
            running = self.work.count(dag_id=drain.name, state="running")
        return DrainedThing(drain.kind.value, drain.name, drain.since, drain.note, running)


def _said(row: Service) -> dict[str, Any]:
    return {name: getattr(row, name) for name in ("hostname", "pid", "started_at", "heartbeat_at")}
