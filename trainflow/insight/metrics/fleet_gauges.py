"""The parts of the control plane, executors, queues, pools, and what waits to be told, as numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row

from trainflow.bootstrap import version
from trainflow.insight.refusals import is_dead_here
from trainflow.insight.runs.pools import NO_LIMIT, Pool, list_pools
from trainflow.metadata.queries import fleet_queries, live_queries, living_queries, notification_queries
from trainflow.metadata.queries.fleet_queries import Work
from trainflow.metadata.queries.living_queries import LoopUse, Service, details_of, executors_of
from trainflow.metadata.queries.outbox_queries import OutboxOfChannel
from trainflow.observability.prometheus import MetricFamily
from trainflow.settings.executors import executor_entries
from trainflow.settings.model import Settings
from trainflow.settings.outbox_channels import OutboxChannel
from trainflow.states import DagRunState
from trainflow.workspace.workspace import Workspace


def fleet_families(workspace: Workspace, now: datetime) -> list[MetricFamily]:
    """What there is now, as the database knows it."""
    settings = workspace.settings
    dead_after = timedelta(seconds=max(settings.engine.dead_after_seconds, 3 * settings.workers.heartbeat_seconds))
    with workspace.database.reading() as connection:
        shown = living_queries.shown_as_living(connection, now, dead_after)
        living = [row for row in shown if not is_dead_here(row)]
        waiting = fleet_queries.oldest_waiting(connection)
        work = [_tasks(fleet_queries.work(connection, settings.executor.default)), _oldest(waiting, now)]
        counted = _counted(connection)
    executors = _executors(settings, living)
    return [_about(), *_services(living), *counted, *work, *executors, *_pools(list_pools(workspace))]


def _gauge(name: str, says: str) -> MetricFamily:
    return MetricFamily(f"trainflow_{name}", "gauge", says)


def _about() -> MetricFamily:
    family = _gauge("build_info", "The version that answers.")
    family.add(1, version=version())
    return family


def _services(living: Sequence[Service]) -> list[MetricFamily]:
    """Heartbeats by kind and host, of the part that said last that it lives; and loops, where they have one."""
    heartbeats: dict[tuple[str, str], float] = {}
    loops: defaultdict[str, list[LoopUse]] = defaultdict(list)
    for row in living:
        key = (row.kind, row.hostname)
        heartbeats[key] = max(heartbeats.get(key, 0.0), row.heartbeat_at.timestamp())
        details = details_of(row)
        if details is not None and details.loop is not None:
            loops[row.hostname].append(details.loop)
    beats = _gauge("service_heartbeat_timestamp_seconds", "When a living part or worker said last that it lives.")
    for (kind, hostname), moment in sorted(heartbeats.items()):
        beats.add(moment, kind=kind, hostname=hostname)
    loop = MetricFamily(
        "trainflow_scheduler_loop_seconds", "summary", "Turns of the scheduler's loop, without the time that it waits."
    )
    longest = _gauge("scheduler_loop_longest_seconds", "The longest turn between the last two heartbeats.")
    for hostname, uses in sorted(loops.items()):
        loop.add(sum(each.seconds for each in uses), "_sum", hostname=hostname)
        loop.add(sum(each.turns for each in uses), "_count", hostname=hostname)
        longest.add(max(each.longest_seconds for each in uses), hostname=hostname)
    return [beats, loop, longest]


def _counted(connection: Connection) -> list[MetricFamily]:
    runs = _gauge("runs", "Runs that have not ended.")
    for row in live_queries.count_unfinished_runs(connection):
        runs.add(row.runs, dag_id=row.dag_id, state=DagRunState(row.state).value)
    problems = _gauge("import_problems", "Pipeline files that give no DAG.")
    problems.add(len(live_queries.problems(connection)))
    waiting = _gauge("deliveries_waiting", "What is still to be told to another system.")
    waiting.add(notification_queries.undelivered(connection)[0], channel="notifications")
    refused = _gauge("deliveries_refused", "What another system refused for good.")
    for channel in OutboxChannel:
        missing = OutboxOfChannel(channel).undelivered(connection)
        waiting.add(missing.waiting, channel=channel.value)
        refused.add(missing.refused, channel=channel.value)
    return [runs, problems, waiting, refused]


def _tasks(work: Work) -> MetricFamily:
    family = _gauge("tasks", "Tasks that wait for a slot, were handed over and have not begun, or run.")
    for executor, queue in sorted({(each.executor, each.queue) for each in work.counts}):
        for state in ("scheduled", "queued", "running"):
            count = work.count(executor=executor, queue=queue, state=state)
            family.add(count, executor=executor, queue=queue, state=state)
    return family


def _oldest(waiting: Row[Any] | None, now: datetime) -> MetricFamily:
    family = _gauge("oldest_waiting_task_seconds", "How long the task has waited that could run, and waits longest.")
    since = now if waiting is None else waiting.scheduled_at or waiting.queued_at or now
    family.add(max(0.0, (now - since).total_seconds()))
    return family


def _executors(settings: Settings, living: Sequence[Service]) -> list[MetricFamily]:
    slots = _gauge("executor_slots", "Slots of an executor; of a local one, those of each engine.")
    problem = _gauge("executor_problem", "1: no living scheduler has an executor of this name that takes anything.")
    takes = {state.name for row in living for state in executors_of(row) if state.problem is None}
    for name, entry in executor_entries(settings).items():
        slots.add(entry.slots, executor=name)
        problem.add(int(name not in takes), executor=name)
    return [slots, problem]


def _pools(pools: list[Pool]) -> list[MetricFamily]:
    slots = _gauge("pool_slots", "Slots of a pool that has a limit.")
    used = _gauge("pool_used_slots", "Slots of a pool that tasks take or wait for, by their state.")
    for pool in pools:
        slots.add(pool.slots if pool.slots != NO_LIMIT else None, pool=pool.name)
        for state in ("scheduled", "queued", "running", "deferred"):
            used.add(getattr(pool, state), pool=pool.name, state=state)
    return [slots, used]
