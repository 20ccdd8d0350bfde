"""One attempt in the hands of the local executor: its process, who is to launch it, what is waited for."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable

from trainflow.executors.forkserver_client import ForkserverClient
from trainflow.executors.pid_watch import PidWatch
from trainflow.executors.process_reaper import ProcessReaper
from trainflow.executors.reactor import Reactor, Timer
from trainflow.messages.workload import ExecuteTask


class AttemptProcess:
    """An attempt that has not ended."""

    def __init__(self, workload: ExecuteTask | None, killed_before: int) -> None:
        """`workload`: None for one that was adopted. `killed_before`: see `OomKills.overview_of`."""
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
