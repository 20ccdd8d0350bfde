"""Wait for a moment."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from typing import Any

from trainflow.authoring.context import clock_of_task
from trainflow.authoring.trigger import BaseTrigger, TriggerEvent
from trainflow.clock import Clock, SystemClock, ensure_utc
from trainflow.deadlines import seconds_left
from trainflow.errors import InputError

#: the longest single sleep: a clock that is set, or a laptop that wakes up, is noticed after this many seconds
_LONGEST_SLEEP_SECONDS = 60.0


def _moment(value: datetime | str) -> datetime:
    return ensure_utc(datetime.fromisoformat(value) if isinstance(value, str) else value)


class DateTimeTrigger(BaseTrigger):
    """Fires once `moment` (aware) has come, at once when it is past; the payload is the moment, ISO 8601."""

    def __init__(self, moment: datetime | str, clock: Clock | None = None) -> None:
        super().__init__()
        self.moment = _moment(moment)
        self._clock = clock or SystemClock()

    def serialize(self) -> tuple[str, dict[str, Any]]:
        # a moment, never a duration: a triggerer that takes over does not begin to wait anew
        return f"{__name__}.{type(self).__name__}", {"moment": self.moment.isoformat()}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        # imported here: the task that defers only describes the trigger, and pays for what it imports
        import asyncio

        left = self._countdown()
        while (remaining := left()) > 0:
            await asyncio.sleep(min(remaining, _LONGEST_SLEEP_SECONDS))
        yield TriggerEvent(self.moment.isoformat())

    def _countdown(self) -> Callable[[], float]:
        """Asked again and again: seconds that are left. A moment of the calendar goes by the time of the day."""
        return lambda: (self.moment - self._clock.now()).total_seconds()


class TimeDeltaTrigger(DateTimeTrigger):
    """Fires `delta` (a timedelta or seconds) after it was made; made again elsewhere, it keeps its moment. It never
    waits for longer than `delta`, whatever becomes of the clock."""

    def __init__(
        self,
        delta: timedelta | float | None = None,
        *,
        moment: datetime | str | None = None,
        since: datetime | str | None = None,
        clock: Clock | None = None,
    ) -> None:
        clock = clock or clock_of_task() or SystemClock()
        if moment is None:
            if delta is None:
                raise InputError("TimeDeltaTrigger: give delta")
            moment = clock.now() + (delta if isinstance(delta, timedelta) else timedelta(seconds=delta))
        super().__init__(moment, clock)
        self.since = clock.now() if since is None else _moment(since)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        name, kwargs = super().serialize()
        return name, {**kwargs, "since": self.since.isoformat()}

    def _countdown(self) -> Callable[[], float]:
        whole = (self.moment - self.since).total_seconds()
        end = self._clock.monotonic() + seconds_left(self.since, whole, self._clock.now())
        return lambda: end - self._clock.monotonic()
