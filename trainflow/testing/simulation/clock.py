"""The simulated clock: moves when it is told to, and may be set."""

from __future__ import annotations

from datetime import datetime, timedelta

from trainflow.clock import ManualClock


class SettableClock(ManualClock):
    """A clock whose time of day somebody may change; what it has measured stays as it was."""

    def __init__(self, start: datetime) -> None:
        super().__init__(start)
        self._set_by = timedelta()

    def now(self) -> datetime:
        return super().now() + self._set_by

    def jump(self, by: timedelta) -> None:
        """Set it forward, or back."""
        self._set_by += by
