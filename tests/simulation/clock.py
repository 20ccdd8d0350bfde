"""The simulated clocks: they move when they are told to, and may be set."""

from __future__ import annotations

from datetime import datetime, timedelta

from trainflow.clock import ManualClock


class SettableClock(ManualClock):
    """A clock whose time of day may be changed; what it has measured stays as it was."""

    def __init__(self, start: datetime) -> None:
        super().__init__(start)
        self._shows = self._now

    def now(self) -> datetime:
        return self._shows

    def advance(self, by: timedelta) -> datetime:
        """Let time pass. Returns what it shows then."""
        super().advance(by)
        return self.jump(by)

    def jump(self, by: timedelta) -> datetime:
        """Set it forward, or back. Returns what it shows then."""
        self._shows += by
        return self._shows


class HostClock:
    """The clock of one host: time passes as it does for all, and the time of the day is its own."""

    def __init__(self, everybodys: SettableClock) -> None:
        self._everybodys = everybodys
        self._differs = timedelta()

    def now(self) -> datetime:
        return self._everybodys.now() + self._differs

    def monotonic(self) -> float:
        return self._everybodys.monotonic()

    def processor(self) -> float:
        return self._everybodys.processor()

    def jump(self, by: timedelta) -> None:
        """Set it forward, or back."""
        self._differs += by
