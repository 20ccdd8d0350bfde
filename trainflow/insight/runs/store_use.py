"""What attempts have asked of stores: by run, and of all together for Prometheus."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection

from trainflow.metadata.database import Database
from trainflow.metadata.queries import attempt_queries
from trainflow.observability.prometheus import prometheus_text
from trainflow.observability.store_requests import StoreUse, Totals, summed, totals

#: schedulers write at the same time: what ended at a moment may be there a little later
_LATE = timedelta(minutes=1)


def store_totals(connection: Connection, runs: Sequence[int]) -> dict[int, Totals | None]:
    """What the attempts of runs asked of stores; None: nothing. By the id of the run."""
    found = attempt_queries.store_use_by_run(connection, runs)
    return {run: totals(uses) if uses else None for run, uses in found.items()}


class StoreMetrics:
    """Counters of all attempts of a metadata database. Each look reads what has ended since the one before."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._uses: list[StoreUse] = []
        self._newest: datetime | None = None
        #: attempts that are in the sums and may be seen again
        self._counted: dict[str, datetime] = {}

    def text(self, database: Database) -> str:
        """The counters, in the text format of Prometheus. Safe for threads."""
        with self._lock:
            return self._text(database)

    def _text(self, database: Database) -> str:
        since = None if self._newest is None else self._newest - _LATE
        rows = database.read(lambda connection: attempt_queries.store_use_since(connection, since))
        for row in rows:
            if row.attempt_id not in self._counted:
                self._uses = summed([*self._uses, *attempt_queries.store_uses(row.store_use)])
                self._counted[row.attempt_id] = row.ended_at
            self._newest = row.ended_at
        if self._newest is not None:
            limit = self._newest - _LATE
            self._counted = {name: at for name, at in self._counted.items() if at >= limit}
        return prometheus_text(self._uses)
