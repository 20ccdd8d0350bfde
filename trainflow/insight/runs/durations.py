"""How long runs and tasks took: from start to end, without the time in which no engine ran.

An attempt that outlives its engine works on, so what an attempt did in one go counts in full.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row

from trainflow.clock import elapsed_seconds
from trainflow.deadlines import TOLERANCE
from trainflow.metadata.queries import attempt_queries, service_list_queries
from trainflow.metadata.queries.service_list_queries import Service
from trainflow.settings.model import Settings

#: parts that bring runs forward
_KINDS = frozenset({"engine", "scheduler"})


class Span(NamedTuple):
    """Time from `start` to `end`."""

    start: datetime
    end: datetime


def covered_seconds(start: datetime, end: datetime, spans: Iterable[Span]) -> float:
    """How many seconds between `start` and `end` lie in one of `spans`, which may overlap."""
    covered, reached = timedelta(0), start
    for span in sorted(spans):
        begin = max(span.start, reached)
        if begin < min(span.end, end):
            covered += min(span.end, end) - begin
            reached = min(span.end, end)
    return covered.total_seconds()


class WorkingTime:
    """The engines of a database, as far as they are remembered; what was before counts as with an engine. `attempts`:
    run → task instance → what its attempts did in one go."""

    def __init__(
        self, engines: Sequence[Span], now: datetime, attempts: Mapping[int, Mapping[int, list[Span]]] | None = None
    ) -> None:
        self.now = now
        since = min((span.start for span in engines), default=now)
        self._spans = [Span(datetime.min.replace(tzinfo=now.tzinfo), since), *engines]
        self._attempts = attempts or {}

    @classmethod
    def read(cls, connection: Connection, settings: Settings, now: datetime, runs: Sequence[int]) -> WorkingTime:
        """Times of the engines that the database knows, and of these runs."""
        dead = now - timedelta(seconds=settings.engine.dead_after_seconds) - TOLERANCE
        rows = [row for row in service_list_queries.everyone(connection) if row.kind in _KINDS]
        attempts: dict[int, dict[int, list[Span]]] = {}
        for row in attempt_queries.done_in_one_go(connection, runs):
            of_run = attempts.setdefault(row.dag_run_id, {})
            of_run.setdefault(row.task_instance_id, []).append(Span(row.started_at, row.ended_at))
        return cls([Span(row.started_at, _last_seen(row, dead, now)) for row in rows], now, attempts)

    def of_run(self, row: Row[Any]) -> float | None:
        """Seconds that a row of `dag_run` took, to now where it has not ended; None when it has not begun."""
        spans = [span for each in self._attempts.get(row.id, {}).values() for span in each]
        return self.seconds(row.started_at, row.ended_at, spans)

    def of_task(self, row: Row[Any], run: int, task: int) -> float | None:
        """The same of a row of a task instance or of an attempt at it."""
        return self.seconds(row.started_at, row.ended_at, self._attempts.get(run, {}).get(task, []))

    def seconds(self, start: datetime | None, end: datetime | None, beside: Iterable[Span] = ()) -> float | None:
        """Seconds to `end`, or to now, None when it has not begun, or where that cannot be told (see
        `elapsed_seconds`). `beside`: when it was at work in any case."""
        if elapsed_seconds(start, end or self.now) is None:
            return None
        assert start is not None
        return covered_seconds(start, end or self.now, [*self._spans, *beside])


def _last_seen(row: Service, dead: datetime, now: datetime) -> datetime:
    seen: datetime = row.stopped_at or row.heartbeat_at
    return now if row.stopped_at is None and seen > dead else seen
