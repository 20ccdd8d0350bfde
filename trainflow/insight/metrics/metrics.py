"""All metrics of a project, as the text that Prometheus is given."""

from __future__ import annotations

import threading

from trainflow.clock import Clock
from trainflow.insight.metrics.attempt_counters import AttemptCounters
from trainflow.insight.metrics.chain_gauges import ChainGauges
from trainflow.insight.metrics.fleet_gauges import fleet_families
from trainflow.metadata.queries import live_queries
from trainflow.metadata.queries.dag_queries import Versions
from trainflow.observability.prometheus import prometheus_text
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
