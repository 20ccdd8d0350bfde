"""One attempt in the hands of the local executor: its process, what is waited for, the end of what it leaves."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
from collections.abc import Callable

from trainflow.executors.reactor import Callback, Reactor, Timer
from trainflow.executors.warm_workers import ForkserverClient
from trainflow.messages.workload import ExecuteTask
from trainflow.observability.process_lifetime import GRACE_SECONDS, KILL_SECONDS, Ending
from trainflow.observability.processes import ProcessEntry

log = logging.getLogger(__name__)

#: how soon it is looked again where the system does not tell that a process ended, in seconds
_LOOK_SECONDS = 0.2


class PidWatch:
    """A process that is watched, also where it is not our child. Where the system cannot tell (no pidfd), or the
    process is gone: `works` is False, and it has to be polled from time to time."""

    def __init__(self, reactor: Reactor, pid: int, on_end: Callback) -> None:
        self._reactor = reactor
        self._descriptor: int | None = None
        if hasattr(os, "pidfd_open"):
            try:
                self._descriptor = os.pidfd_open(pid)
            except OSError:
                return
            reactor.watch(self._descriptor, on_end)

    @property
    def works(self) -> bool:
        """Will its end be seen?"""
        return self._descriptor is not None

    def close(self) -> None:
        """Watch no more."""
        if self._descriptor is not None:
            self._reactor.unwatch(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None


class ProcessReaper:
    """Ends what an attempt left behind that did not end in good order: killed, crashed, lost with its worker or engine.
    SIGTERM, a short wait, SIGKILL; never waits itself."""

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
        self._ending = Ending()
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
        if not self._ending.begun:
            log.warning("attempt %s left %s running: ended with it", self._name, _pids(found))
        self._ending.tell(found, kill=self._kills)
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

    def close(self) -> None:
        """Look no more."""
        self._unwatch()
        for timer in [*self._timers, self._again]:
            if timer is not None:
                timer.cancel()


def _pids(entries: list[ProcessEntry]) -> str:
    return ", ".join(str(entry.pid) for entry in sorted(entries))


class AttemptProcess:
    """An attempt that has not ended."""

    def __init__(self, workload: ExecuteTask | None, killed_before: int) -> None:
        """`workload`: None for one that was adopted. `killed_before`: see `OomKills.look`."""
        self.killed_before = killed_before
        self.workload = workload
        #: who was asked to fork it
        self.worker: ForkserverClient | None = None
        self.pid: int | None = None
        #: its process, where it is our own child
        self.process: subprocess.Popen[bytes] | None = None
        self.watch: PidWatch | None = None
        #: the signal that told it to stop, or is to as soon as it is there
        self.told: signal.Signals | None = None
        self.kill_timer: Timer | None = None
        #: until it has said its first word
        self.launch_timer: Timer | None = None
        #: it was killed because it did not
        self.hung = False
        #: it is not forked: it has an interpreter of its own
        self.alone = False
        #: its process has ended, and what it left is being ended
        self.remains: ProcessReaper | None = None

    def watch_end(self, reactor: Reactor, on_end: Callable[[], None]) -> None:
        """Be called when the process ends, where the system can do that; otherwise it has to be polled."""
        if self.watch is None and self.pid is not None:
            watch = PidWatch(reactor, self.pid, on_end)
            self.watch = watch if watch.works else None

    def unwatch(self) -> None:
        """Stop watching the process: its end is seen to otherwise."""
        if self.watch is not None:
            self.watch.close()
            self.watch = None

    def stop_waiting(self) -> None:
        """Stop waiting for its first word."""
        if self.launch_timer is not None:
            self.launch_timer.cancel()
            self.launch_timer = None

    def let_go(self) -> None:
        """Wait for nothing of it any more."""
        self.unwatch()
        self.stop_waiting()
        if self.remains is not None:
            self.remains.close()
        if self.kill_timer is not None:
            self.kill_timer.cancel()

    def tell(self, number: signal.Signals) -> None:
        """Signal its process."""
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it and whatever it has started: each attempt leads a process group of its own, almost from the start."""
        if self.pid is None:
            return
        for kill in (os.killpg, os.kill):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                kill(self.pid, signal.SIGKILL)
                return
