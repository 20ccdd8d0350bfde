"""End what an attempt left behind that did not end in good order: killed, crashed, lost with its worker or engine."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable

from trainflow.executors.pid_watch import PidWatch
from trainflow.executors.reactor import Reactor, Timer
from trainflow.observability.process_lifetime import GRACE_SECONDS, KILL_SECONDS, signal_all
from trainflow.observability.processes import ProcessEntry

log = logging.getLogger(__name__)

#: how soon it is looked again where the system does not tell that a process ended, in seconds
_LOOK_SECONDS = 0.2


class ProcessReaper:
    """Processes that are being ended: SIGTERM, a short wait, SIGKILL; never waits itself."""

    def __init__(
        self,
        reactor: Reactor,
        name: str,
        find: Callable[[], list[ProcessEntry]],
        on_gone: Callable[[], None],
        *,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        """`find` tells what is left; `on_gone` is called, never at once, when that is nothing."""
        self._reactor = reactor
        self._name = name
        self._find = find
        self._on_gone = on_gone
        self._told: set[tuple[int, float]] = set()
        self._watches: list[PidWatch] = []
        self._kills = self._gives_up = False
        self._timers: list[Timer] = [reactor.call_later(grace_seconds, self._out_of_grace)]
        self._again: Timer | None = reactor.call_later(0.0, self.look)

    def look(self) -> None:
        """End what is left, or find out that nothing is."""
        self._unwatch()
        found = self._find()
        if not found or self._gives_up:
            if found:
                log.error("attempt %s: cannot end %s, left behind", self._name, _pids(found))
            self.close()
            self._on_gone()
            return
        if not self._told:
            log.warning("attempt %s left %s running: ended with it", self._name, _pids(found))
        new = [each for each in found if (each.pid, each.started) not in self._told]
        signal_all(found if self._kills else new, signal.SIGKILL if self._kills else signal.SIGTERM)
        self._told |= {(each.pid, each.started) for each in found}
        self._watches = [PidWatch(self._reactor, each.pid, self._look_soon) for each in found]
        if not all(watch.works for watch in self._watches):
            self._look_soon(_LOOK_SECONDS)

    def _look_soon(self, seconds: float = 0.0) -> None:
        # what is readable once stays so: not watched until it was looked at
        self._unwatch()
        if self._again is not None:
            self._again.cancel()
        self._again = self._reactor.call_later(seconds, self.look)

    def _out_of_grace(self) -> None:
        self._kills = True
        self._timers.append(self._reactor.call_later(KILL_SECONDS, self._out_of_patience))
        self.look()

    def _out_of_patience(self) -> None:
        self._gives_up = True
        self.look()

    def _unwatch(self) -> None:
        for watch in self._watches:
            watch.close()
        self._watches = []

    def kill(self) -> None:
        """Kill the process now, without telling it before."""
        signal_all(self._find(), signal.SIGKILL)
        self.close()

    def close(self) -> None:
        """Look no more."""
        self._unwatch()
        for timer in [*self._timers, self._again]:
            if timer is not None:
                timer.cancel()


def _pids(entries: list[ProcessEntry]) -> str:
    return ", ".join(str(entry.pid) for entry in sorted(entries))
