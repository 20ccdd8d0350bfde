"""Where the time comes from: passed in, so that a test moves it and nothing sleeps.

Everything else in the package takes `now` (aware UTC) or a `Clock`; this is the only module that asks the system.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """A source of time."""

    def now(self) -> datetime:
        """The time of day, aware UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that never run backwards; only differences mean anything."""
        ...

    def processor(self) -> float:
        """Seconds for which this process has used a processor: waiting is none of it."""
        ...


class SystemClock(Clock):
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    def processor(self) -> float:
        return time.process_time()


class ManualClock(Clock):
    """A clock that moves only when told."""

    def __init__(self, start: datetime) -> None:
        self._start = ensure_utc(start)
        self._now = self._start

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return (self._now - self._start).total_seconds()

    def processor(self) -> float:
        return self.monotonic()

    def advance(self, by: timedelta) -> datetime:
        """Move forward by `by` and return the new time."""
        self._now += by
        return self._now


class MeasuredClock(Clock):
    """A clock that was set to `now` when it was made, and goes on by what another one measures: the time of the day of
    a host whose own clock may differ, or be set."""

    def __init__(self, now: datetime, measured_by: Clock) -> None:
        self._began = ensure_utc(now) - timedelta(seconds=measured_by.monotonic())
        self._measured_by = measured_by

    def now(self) -> datetime:
        return self._began + timedelta(seconds=self._measured_by.monotonic())

    def monotonic(self) -> float:
        return self._measured_by.monotonic()

    def processor(self) -> float:
        return self._measured_by.processor()


def elapsed_seconds(start: datetime | None, end: datetime | None) -> float | None:
    """Seconds from `start` to `end`; None where one of them is not known, and where the clock was set back between
    them: then it is not known how long it took."""
    return None if start is None or end is None or end < start else (end - start).total_seconds()


def ensure_utc(moment: datetime) -> datetime:
    """The same instant in UTC. Raises ValueError for a naive datetime: a guess would move partitions."""
    if moment.tzinfo is None:
        raise ValueError(f"naive datetime {moment.isoformat()}: give it a time zone (UTC)")
    return moment.astimezone(UTC)
