"""The machine's clock, which a test moves forward."""

from __future__ import annotations

from datetime import datetime, timedelta

from trainflow.clock import SystemClock


class MovedClock(SystemClock):
    """What is due after an hour is due at once, when it is told to `advance`."""

    def __init__(self) -> None:
        self._moved = timedelta()

    def now(self) -> datetime:
        return super().now() + self._moved

    def monotonic(self) -> float:
        return super().monotonic() + self._moved.total_seconds()

    def advance(self, by: timedelta) -> None:
        """Move forward by `by`."""
        self._moved += by
