"""How much of the time the loop of an engine has something to do: what its lease says, and `/metrics` shows."""

from __future__ import annotations

from trainflow.bootstrap import version
from trainflow.clock import Clock
from trainflow.executors.reactor import Reactor
from trainflow.metadata.queries.service_list_queries import LoopUse, ServiceDetails


class LoopUtilization:
    """Turns of one loop, and the seconds of each in which it did not wait."""

    def __init__(self, clock: Clock, reactor: Reactor) -> None:
        self._clock = clock
        self._reactor = reactor
        self._turns, self._seconds, self._longest = 0, 0.0, 0.0
        self._busy_since = 0.0
        self.begin()

    def begin(self) -> None:
        """A turn begins."""
        self._busy_since = self._clock.monotonic() - self._reactor.waited_seconds

    def end(self) -> None:
        """A turn ends."""
        seconds = self._clock.monotonic() - self._reactor.waited_seconds - self._busy_since
        self._turns += 1
        self._seconds += seconds
        self._longest = max(self._longest, seconds)

    def details(self) -> ServiceDetails:
        """What to say of it with a heartbeat; the longest turn is looked for anew from then on."""
        use = LoopUse(self._turns, round(self._seconds, 6), round(self._longest, 6))
        self._longest = 0.0
        return ServiceDetails(version(), loop=use)
