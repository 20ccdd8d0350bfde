"""Be called when a process ends that is not our child."""

from __future__ import annotations

import os

from trainflow.executors.reactor import Callback, Reactor


class PidWatch:
    """A process that is watched. Where the system cannot tell (no pidfd), or the process is gone: `works` is False, and
    it has to be polled from time to time."""

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
