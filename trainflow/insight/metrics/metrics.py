"""All metrics of a project, as the text that Prometheus is given, and those of all attempts: how they ended, how long
they took, what they asked of stores."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import Row

from trainflow.clock import Clock
from trainflow.identifiers import attempt_time, earliest_attempt_id
from trainflow.insight.metrics.chain_gauges import ChainGauges
from trainflow.insight.metrics.fleet_gauges import fleet_families
from trainflow.messages.execution_api import OutcomeState
from trainflow.metadata.database import Database
from trainflow.metadata.queries import attempt_queries, live_queries
from trainflow.metadata.queries.dag_queries import Versions
from trainflow.observability.prometheus import MetricFamily, prometheus_text, store_families
from trainflow.observability.store_requests import StoreUse, summed
from trainflow.serialization.document import ChainDocument
from trainflow.workspace.workspace import Workspace

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
