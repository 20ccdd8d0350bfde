"""The line to the engine of this home: what attempts have changed is told to it at once, and exactly."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from pathlib import Path

from trainflow.executors.execution_socket import changed_frame
from trainflow.metadata.applied_change import AppliedChange

log = logging.getLogger(__name__)

#: an engine that does not read for so long finds out by itself
_SEND_SECONDS = 1.0


class SchedulerLine:
    """A connection that is kept. Fit for several threads. Where no engine is, nothing is told: one that comes looks at
    everything, and one of another home looks from time to time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None

    def tell(self, change: AppliedChange) -> bool:
        """Tell of a change; whether there is an engine that hears it."""
        frame = changed_frame(change)
        with self._lock:
            # the engine that it was connected to may be gone, and another one be there
            for _ in range(1 if self._socket is None else 2):
                try:
                    self._connected().sendall(frame)
                    return True
                except OSError as error:
                    log.debug("the engine of this home cannot be told: %s", error)
                    self._hang_up()
        return False

    def _connected(self) -> socket.socket:
        if self._socket is None:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.settimeout(_SEND_SECONDS)
            try:
                connection.connect(str(self._path))
            except OSError:
                connection.close()
                raise
            self._socket = connection
        return self._socket

    def _hang_up(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
            self._socket = None

    def close(self) -> None:
        """Hang up."""
        with self._lock:
            self._hang_up()
