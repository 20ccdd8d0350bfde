"""Why tasks that could run are not handed over, or not taken: asked for people, with the scheduler's own rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from trainflow.metadata.queries import drain_queries, service_list_queries, status_queries
from trainflow.metadata.queries.drain_queries import Drain, DrainKind, Drains
from trainflow.metadata.queries.service_list_queries import WORKER, Service, details_of, executors_of
from trainflow.metadata.sql_text import ReadingConnection
from trainflow.observability.processes import hostname, is_alive
from trainflow.settings.executors import ExecutorEntry, executor_entries
from trainflow.settings.model import Settings

#: drained workers that are named
_NAMED = 3


def with_queues(settings: Settings) -> frozenset[str]:
    """Executors whose workers are started with the queues that they listen on."""
    return frozenset(name for name, entry in executor_entries(settings).items() if entry.type == "celery")


def is_dead_here(row: Any) -> bool:
    """A lease outlives a killed process by some seconds; on this host the process itself can be asked."""
    return bool(row.hostname == hostname()) and not is_alive(row.pid, row.process_started)


def refusals(connection: ReadingConnection, settings: Settings, now: datetime) -> dict[int, str]:
    """What the scheduler would refuse to queue now, and why: its own rule, asked again. And what was queued for an
    executor that takes nothing now."""
    drains = drain_queries.listing(connection)
    living = living_parts(connection, settings, now)
    problems = _executor_problems(living) | _drained_hosts(living, executor_entries(settings), drains)
    drained = drained_queues(living, drains)
    stuck = {}
    for row in status_queries.handed_over(connection) if problems or drained else ():
        if (row.executor, row.queue) in drained:
            stuck[row.id] = drained[row.executor, row.queue]
        elif row.executor in problems:
            stuck[row.id] = f"executor '{row.executor}' takes nothing: {problems[row.executor]}"
    if not status_queries.is_any_scheduled(connection):
        return stuck
    return stuck | _refused(connection, settings, problems, drains)


def _refused(connection: Any, settings: Settings, problems: Mapping[str, str], drains: Drains) -> dict[int, str]:
    """The scheduler's rule, with what it would ask."""
    from trainflow.metadata.queries import in_flight, pool_queries, scheduled_queries
    from trainflow.metadata.queries.dag_queries import Versions
    from trainflow.scheduler.executor_slots import ExecutorSlots
    from trainflow.scheduler.queueing import Limits, choose

    versions, held = Versions(), in_flight.in_flight_tasks(connection)
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
    return choose(
        scheduled_queries.scheduled(connection),
        limits,
        lambda each: in_flight.count_in_flight(connection, each.dag_id, each.task_id),
    ).refused


def living_parts(connection: ReadingConnection, settings: Settings, now: datetime) -> list[Service]:
    """The parts and workers that live, as far as people can see."""
    dead_after = timedelta(seconds=max(settings.engine.dead_after_seconds, 3 * settings.workers.heartbeat_seconds))
    return [row for row in service_list_queries.shown_as_living(connection, now, dead_after) if not is_dead_here(row)]


def _executor_problems(living: Sequence[Service]) -> dict[str, str]:
    """Executors that no living scheduler has to whom they take anything, and why."""
    states = [state for row in living for state in executors_of(row)]
    good = {state.name for state in states if state.problem is None}
    return {state.name: state.problem for state in states if state.problem is not None and state.name not in good}


def _drained_hosts(living: Sequence[Service], entries: Mapping[str, ExecutorEntry], drains: Drains) -> dict[str, str]:
    """Executors that run attempts on the hosts of engines, all of which are drained."""
    found: dict[str, list[Drain | None]] = {}
    for row in living:
        for state in executors_of(row):
            if state.name in entries and entries[state.name].is_local:
                found.setdefault(state.name, []).append(drains.get(DrainKind.WORKER, row.hostname))
    return {name: said for name, each in found.items() if (said := _all_drained(each)) is not None}


def drained_queues(living: Sequence[Service], drains: Drains) -> dict[tuple[str | None, str], str]:
    """Queues, by executor, whose workers are all drained: what is said of a task that was handed over for one."""
    found: dict[tuple[str | None, str], list[Drain | None]] = {}
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
