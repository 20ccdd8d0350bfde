"""Children that are forked ahead of their attempts, so that no fork is on the way from task to task.

Each waits on a line of its own. Once it says that it waits, the line goes to the engine, which gives it an attempt
without asking the warm process, and may have claimed that for it before. Before, the warm process gives it one itself.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket

import msgspec

from trainflow.errors import ProtocolError
from trainflow.messages import frames
from trainflow.messages.forkserver import ToWaiting
from trainflow.messages.workload import ExecuteTask

#: a child is not kept longer than this without being used: an idle engine has no process too many
KEEP_SECONDS = 2.0
#: a short task ends before the child is there that is forked when it begins
MOST_SPARES = 2
_LAUNCH = msgspec.json.Decoder(ToWaiting)


class SpareChildren:
    """The children that wait, as the warm process sees them."""

    def __init__(self) -> None:
        #: of those that have not said yet that they wait, oldest first: pid → our end of the line
        self._lines: dict[int, socket.socket] = {}
        #: those whose line the engine has
        self._announced: set[int] = set()
        #: the end of this pipe tells them that they are not needed
        self._needed: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self._lines) + len(self._announced)

    def needed_end(self) -> int:
        """The descriptor that a child watches while it waits."""
        if self._needed is None:
            self._needed = os.pipe()
        return self._needed[0]

    def add(self, pid: int, line: socket.socket) -> None:
        """Keep one that was forked."""
        self._lines[pid] = line

    def announce(self, pid: int) -> socket.socket | None:
        """The line of one that waits, for the engine; None: it is not kept any more."""
        line = self._lines.pop(pid, None)
        if line is not None:
            self._announced.add(pid)
        return line

    def give(self, workload: ExecuteTask) -> int | None:
        """Hand an attempt to the oldest that the engine does not know. Returns its pid; None: there is none."""
        for pid in list(self._lines):
            with self._lines.pop(pid) as line, contextlib.suppress(OSError):
                frames.send(line, msgspec.json.encode(ToWaiting(workload)))
                return pid
        return None

    def forget(self, pid: int) -> None:
        """One has its attempt, or has ended."""
        self._announced.discard(pid)
        if (line := self._lines.pop(pid, None)) is not None:
            line.close()

    def drop(self) -> list[int]:
        """Need none any more. One that was just given an attempt runs it all the same; those that were not asked for
        are killed, they may hang. Returns the pids of the latter."""
        killed = list(self._lines)
        for pid, line in self._lines.items():
            line.close()
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._lines.clear()
        self._announced.clear()
        if self._needed is not None:
            for descriptor in self._needed:
                os.close(descriptor)
            self._needed = None
        return killed

    def close_in_child(self) -> None:
        """Close, in another child, its copies of what belongs to the warm process."""
        for line in self._lines.values():
            line.close()
        if self._needed is not None:
            os.close(self._needed[1])


def wait_for_launch(line: socket.socket, needed: int) -> ToWaiting | None:
    """The child's end: its attempt, or None when it will get none."""
    with line, contextlib.suppress(OSError, ProtocolError):
        readable, _, _ = select.select([line.fileno(), needed], [], [])
        if line.fileno() in readable and (data := frames.receive(line)) is not None:
            return _LAUNCH.decode(data)
    return None
