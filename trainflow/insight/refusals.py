"""Why tasks that could run are not handed over, or not taken: asked for people, with the scheduler's own rule."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row

from trainflow.metadata.queries import drain_queries, in_flight, pool_queries, service_queries, status_queries
from trainflow.metadata.queries.dag_queries import Versions
from trainflow.metadata.queries.drain_queries import Drain, DrainKind, Drains
from trainflow.metadata.queries.service_queries import WORKER, details_of, executors_of
from trainflow.observability.processes import is_alive
from trainflow.scheduler.queueing import ExecutorSlots, Limits, choose
from trainflow.settings.executors import ExecutorEntry, executor_entries
from trainflow.settings.model import Settings
from trainflow.states import TaskInstanceState

#: drained workers that are named
_NAMED = 3


def with_queues(settings: Settings) -> frozenset[str]:
    """Executors whose workers are started with the queues that they listen on."""
    return frozenset(name for name, entry in executor_entries(settings).items() if entry.type == "celery")


def is_dead_here(row: Any) -> bool:
    """A lease outlives a killed process by some seconds; on this host the process itself can be asked."""
    return bool(row.hostname == socket.gethostname()) and not is_alive(row.pid, row.process_started)


def refusals(connection: Connection, settings: Settings, now: datetime) -> dict[int, str]:
    """What the scheduler would refuse to queue now, and why: its own rule, asked again. And what was queued for an
    executor that takes nothing now."""
    candidates = status_queries.scheduled(connection)
    held = in_flight.in_flight_tasks(connection)
    drains = drain_queries.listing(connection)
    living = living_parts(connection, settings, now)
    problems = _executor_problems(living) | _drained_hosts(living, executor_entries(settings), drains)
    stuck = {
        task.id: f"executor '{task.executor}' takes nothing: {problems[task.executor]}"
        for task in held
        if task.state == TaskInstanceState.QUEUED and task.executor in problems
    }
    if drained := drained_queues(living, drains):
        stuck |= {
            row.id: drained[row.executor, row.queue]
            for row in status_queries.handed_over(connection)
            if (row.executor, row.queue) in drained
        }
    if not candidates:
        return stuck
    versions = Versions()
    limits = Limits(
        executors=ExecutorSlots(
            executor_entries(settings),
            settings.executor.default,
            held,
            own=None,
            problems=problems,
        ),
        pools=pool_queries.slots(connection),
        held=held,
        documents=lambda candidate: versions.get(connection, candidate.version_id)[0],
        drains=drains,
    )
    refused = choose(
        candidates, limits, lambda each: in_flight.count_in_flight(connection, each.dag_id, each.task_id)
    ).refused
    return stuck | refused


def living_parts(connection: Connection, settings: Settings, now: datetime) -> list[Row[Any]]:
    """The parts and workers that live, as far as people can see."""
    dead_after = timedelta(seconds=max(settings.engine.dead_after_seconds, 3 * settings.workers.heartbeat_seconds))
    return [row for row in service_queries.shown_as_living(connection, now, dead_after) if not is_dead_here(row)]


def _executor_problems(living: Sequence[Row[Any]]) -> dict[str, str]:
    """Executors that no living scheduler has to whom they take anything, and why."""
    states = [state for row in living for state in executors_of(row)]
    good = {state.name for state in states if state.problem is None}
    return {state.name: state.problem for state in states if state.problem is not None and state.name not in good}


def _drained_hosts(living: Sequence[Row[Any]], entries: Mapping[str, ExecutorEntry], drains: Drains) -> dict[str, str]:
    """Executors that run attempts on the hosts of engines, all of which are drained."""
    found: dict[str, list[Drain | None]] = {}
    for row in living:
        for state in executors_of(row):
            if state.name in entries and entries[state.name].is_local:
                found.setdefault(state.name, []).append(drains.get(DrainKind.WORKER, row.hostname))
    return {name: said for name, each in found.items() if (said := _all_drained(each)) is not None}


def drained_queues(living: Sequence[Row[Any]], drains: Drains) -> dict[tuple[str, str], str]:
    """Queues, by executor, whose workers are all drained: what is said of a task that was handed over for one."""
    found: dict[tuple[str, str], list[Drain | None]] = {}
    for row in living if drains else ():
        details = details_of(row) if row.kind == WORKER else None
        if details is None or details.worker is None:
            continue
        drain = drain_of_worker(drains, details.name or row.hostname, row.hostname)
        for queue in details.worker.queues:
            found.setdefault((details.worker.executor, queue), []).append(drain)
    return {
        (executor, queue): f"no worker takes anything from queue '{queue}': {said}"
        for (executor, queue), each in found.items()
        if (said := _all_drained(each)) is not None
    }


def drain_of_worker(drains: Drains, name: str, hostname: str) -> Drain | None:
    """The drain of a worker, which is meant by its name or by its host."""
    return drains.get(DrainKind.WORKER, name) or drains.get(DrainKind.WORKER, hostname)


def _all_drained(each: Sequence[Drain | None]) -> str | None:
    """What is said where all of them are drained; None: one is not."""
    drains = [drain for drain in each if drain is not None]
    if len(drains) < len(each):
        return None
    said = sorted({drain.sentence for drain in drains})
    more = f"; and {len(said) - _NAMED} more" if len(said) > _NAMED else ""
    return "; ".join(said[:_NAMED]) + more
