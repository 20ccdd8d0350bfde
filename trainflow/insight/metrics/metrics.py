"""All metrics of a project, as the text that Prometheus is given, and those of all attempts: how they ended, how long
they took, what they asked of stores; the parts of the control plane, executors, queues, pools, and what waits to be
told.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import Connection, Row

from trainflow.bootstrap import version
from trainflow.clock import Clock
from trainflow.identifiers import attempt_time, earliest_attempt_id
from trainflow.insight.metrics.chain_gauges import ChainGauges
from trainflow.insight.refusals import is_dead_here
from trainflow.insight.runs.pools import NO_LIMIT, Pool, list_pools
from trainflow.messages.execution_api import OutcomeState
from trainflow.metadata.database import Database
from trainflow.metadata.queries import (
    attempt_queries,
    fleet_queries,
    live_queries,
    notification_queries,
    service_list_queries,
)
from trainflow.metadata.queries.dag_queries import Versions
from trainflow.metadata.queries.fleet_queries import Work
from trainflow.metadata.queries.outbox_queries import OutboxOfChannel
from trainflow.metadata.queries.service_list_queries import LoopUse, Service, details_of, executors_of
from trainflow.observability.prometheus import MetricFamily, prometheus_text, store_families
from trainflow.observability.store_requests import StoreUse, summed
from trainflow.serialization.document import ChainDocument
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
        shown = service_list_queries.shown_as_living(connection, now, dead_after)
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


#: an answer is good for so long: a client in a loop costs no more
_FRESH_SECONDS = 1.0


class Metrics:
    """Fit for several threads. What it has counted, and what it knows of chains, it keeps."""

    def __init__(self, workspace: Workspace, clock: Clock) -> None:
        self._workspace = workspace
        self._clock = clock
        self._lock = threading.Lock()
        self._versions = Versions()
        self._attempts = AttemptCounters()
        self._chains = ChainGauges(workspace, clock)
        self._text, self._made_at = "", float("-inf")

    def text(self) -> str:
        """What is so now. Raises what the metadata database raises."""
        with self._lock:
            if self._clock.monotonic() - self._made_at < _FRESH_SECONDS:
                return self._text
            chains = self._chains.families(self._dags())
            self._attempts.look(self._workspace.database)
            fleet = fleet_families(self._workspace, self._clock.now())
            self._text = prometheus_text([*chains, *self._attempts.families(), *fleet])
            self._made_at = self._clock.monotonic()
            return self._text

    def _dags(self) -> list[tuple[str, int, str, ChainDocument | None]]:
        with self._workspace.database.reading() as connection:
            found = []
            for row in live_queries.dags(connection):
                if row.version_id is not None and row.missing_since is None:
                    document, source = self._versions.get(connection, row.version_id)
                    found.append((row.dag_id, row.version_id, source.path, document.chain))
            return found


#: schedulers write at the same time, and by clocks of their own: what was handed out at a moment may be there a little
#: later than what was handed out after it
_LATE = timedelta(minutes=1)
#: attempts that are read by one statement
_BATCH = 5_000
#: outcomes that are told from the first attempt of a task on: a rate needs the zero before the first one
_ALWAYS = {"success", "failed", "lost", "preempted"}


class AttemptCounters:
    """Each look reads the attempts that are new, and those that had not ended at the look before. What is deleted later
    stays counted. For one thread at a time."""

    def __init__(self) -> None:
        self._uses: list[StoreUse] = []
        #: (DAG, task, outcome) → attempts, and seconds that they ran; (DAG, task) → seconds until they began
        self._ended: defaultdict[tuple[str, str, str], int] = defaultdict(int)
        self._ran: defaultdict[tuple[str, str, str], float] = defaultdict(float)
        self._waited: defaultdict[tuple[str, str], float] = defaultdict(float)
        self._newest = ""
        #: attempts under way
        self._open: set[str] = set()
        #: attempts that are counted and may be read again
        self._counted: set[str] = set()

    def look(self, database: Database) -> None:
        """Read on. Raises what the database raises; then the next look reads the rest."""
        was_open = sorted(self._open)
        for first in range(0, len(was_open), _BATCH):
            part = was_open[first : first + _BATCH]
            rows = database.read(partial(attempt_queries.counted, ids=part))
            self._take(rows)
            self._open -= set(part) - {row.attempt_id for row in rows}  # deleted
        after = self._margin()
        while rows := database.read(partial(attempt_queries.counted, after=after, most=_BATCH)):
            self._take(rows)
            after = rows[-1].attempt_id
        self._newest = max(self._newest, after)
        margin = self._margin()
        self._counted = {each for each in self._counted if each > margin}

    def _margin(self) -> str:
        """The attempt after which some may have come late."""
        moment = attempt_time(self._newest)
        return "" if moment is None else earliest_attempt_id(moment - _LATE)

    def _take(self, rows: Iterable[Row[Any]]) -> None:
        for row in rows:
            if row.attempt_id in self._counted:
                continue
            if row.ended_at is None or row.outcome in (None, OutcomeState.DEFERRED.value):
                self._open.add(row.attempt_id)
                continue
            self._open.discard(row.attempt_id)
            self._counted.add(row.attempt_id)
            self._count(row)

    def _count(self, row: Row[Any]) -> None:
        key = (row.dag_id, row.task_id, row.outcome)
        self._ended[key] += 1
        self._ran[key] += _seconds(row.started_at, row.ended_at)
        self._waited[key[:2]] += _seconds(row.queued_at, row.started_at)
        if row.store_use:
            self._uses = summed([*self._uses, *attempt_queries.store_uses(row.store_use)])

    def families(self) -> list[MetricFamily]:
        """What was counted so far."""
        ended = MetricFamily("trainflow_attempts_total", "counter", "Attempts that have ended, by how.")
        ran = MetricFamily(
            "trainflow_attempt_seconds_total", "counter", "From the start of attempts to their end, waits included."
        )
        waited = MetricFamily(
            "trainflow_attempt_queued_seconds_total",
            "counter",
            "From handing attempts to their executor to their start.",
        )
        for (dag_id, task_id), seconds in sorted(self._waited.items()):
            waited.add(seconds, dag_id=dag_id, task_id=task_id)
            known = {outcome for dag, task, outcome in self._ended if (dag, task) == (dag_id, task_id)}
            for outcome in sorted(known | _ALWAYS):
                labels = {"dag_id": dag_id, "task_id": task_id, "outcome": outcome}
                ended.add(self._ended.get((dag_id, task_id, outcome), 0), **labels)
                ran.add(self._ran.get((dag_id, task_id, outcome), 0.0), **labels)
        return [ended, ran, waited, *store_families(self._uses)]


def _seconds(first: datetime | None, last: datetime | None) -> float:
    return 0.0 if first is None or last is None else max(0.0, (last - first).total_seconds())
