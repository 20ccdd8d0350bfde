"""A child that was forked ahead and waits for its attempt, so that the fork is not on the way from task to task."""

from __future__ import annotations

import contextlib
import os
import signal
import socket

import msgspec

from trainflow.errors import ProtocolError
from trainflow.messages import frames
from trainflow.messages.workload import ExecuteTask

#: a spare is not kept longer than this without being used: an idle engine has no process too many
KEEP_SECONDS = 2.0


class SpareChild:
    """The parent's end. At most one exists at a time, and every other child closes its copy of this end."""

    def __init__(self, pid: int, connection: socket.socket) -> None:
        self.pid = pid
        self._connection = connection

    def give(self, workload: ExecuteTask) -> bool:
        """Hand it its attempt. False when it is not there any more (it was killed)."""
        try:
            frames.send(self._connection, msgspec.json.encode(workload))
        except OSError:
            return False
        finally:
            self._connection.close()
        return True

    def drop(self) -> None:
        """Kill the child, which is not needed: it has nothing to lose, and may hang."""
        self.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Close this end: in another child, which has a copy of it."""
        self._connection.close()


def wait_for_workload(connection: socket.socket) -> ExecuteTask | None:
    """The child's end: its attempt, or None when it will get none."""
    with connection, contextlib.suppress(OSError, ProtocolError):
        data = frames.receive(connection)
        if data is not None:
            return _WORKLOADS.decode(data)
    return None


_WORKLOADS = msgspec.json.Decoder(ExecuteTask)
