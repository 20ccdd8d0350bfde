"""The API server beside an engine: a process of its own, started again when it dies.

The engine holds the socket. So nothing else takes the port while the server is started again, and who asks meanwhile
waits instead of being turned away.
"""

from __future__ import annotations

import logging
import socket
import subprocess

from trainflow.bootstrap import interpreter
from trainflow.executors.attempt_process import PidWatch
from trainflow.executors.reactor import Reactor, Timer
from trainflow.observability.process_lifetime import end_group
from trainflow.settings.project import Project

log = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 60.0
_LOOK_SECONDS = 1.0
_STOP_SECONDS = 6.0


class ApiServerProcess:
    """Keeps an API server running on a socket."""

    def __init__(self, reactor: Reactor, project: Project, listener: socket.socket) -> None:
        self._reactor = reactor
        self._project = project
        self._listener = listener
        self._pause = _FIRST_PAUSE_SECONDS
        self._process: subprocess.Popen[bytes] | None = None
        self._watch: PidWatch | None = None
        self._timer: Timer | None = None

    def start(self) -> None:
        """Start the process; where that cannot be done, try again later."""
        self._timer = None
        descriptor = self._listener.fileno()
        try:
            self._process = subprocess.Popen(
                interpreter("trainflow.api.main", str(self._project.root), str(descriptor)),
                pass_fds=[descriptor],
                stdin=subprocess.DEVNULL,
                # Ctrl-C in the terminal is for the engine alone
                start_new_session=True,
            )
        except OSError as error:
            log.error("the API server cannot be started: %s", error)
            self._start_later()
            return
        self._watch = PidWatch(self._reactor, self._process.pid, self._look)
        if not self._watch.works:
            self._timer = self._reactor.call_later(_LOOK_SECONDS, self._look)

    def _look(self) -> None:
        assert self._process is not None
        code = self._process.poll()
        if code is None:
            self._timer = self._reactor.call_later(_LOOK_SECONDS, self._look)
            return
        self._unwatch()
        log.error("the API server ended (exit code %d): started again in %g s", code, self._pause)
        self._start_later()

    def _start_later(self) -> None:
        self._timer = self._reactor.call_later(self._pause, self.start)
        self._pause = min(self._pause * 2, _LONGEST_PAUSE_SECONDS)

    def _unwatch(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def close(self) -> None:
        """End it in good order, and give the port back."""
        if self._timer is not None:
            self._timer.cancel()
        self._unwatch()
        if self._process is not None and self._process.poll() is None:
            end_group(self._process, _STOP_SECONDS)
        self._listener.close()
