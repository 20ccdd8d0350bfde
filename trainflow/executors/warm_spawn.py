"""Start a warm worker's process. Imports nothing heavy, so that it can be started before the engine is imported."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import msgspec

from trainflow.messages.frames import pack
from trainflow.messages.warm import Parse
from trainflow.messages.workload import ParseFile


class Spawned(NamedTuple):
    """A process that imports what every attempt needs, and our end of the line to it."""

    process: subprocess.Popen[bytes]
    connection: socket.socket

    def parse(self, request: ParseFile) -> socket.socket:
        """Have a file read as soon as it can, and loaded for the attempts that will follow. The answer comes on the
        socket (`FromReader`)."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        frame = pack(msgspec.json.encode(Parse(request, load=True)))
        with theirs:
            socket.send_fds(self.connection, [frame], [theirs.fileno()])
        return ours

    def discard(self) -> None:
        """Hang up: it ends by itself. Harmless when somebody uses the line: that one has a descriptor of its own."""
        self.connection.close()


def spawn(project_root: Path) -> Spawned:
    """Start a warm worker for a project. Raises OSError when no process can be started."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with theirs, contextlib.ExitStack() as on_failure:
        on_failure.callback(ours.close)
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "trainflow.execution.warm_worker", str(theirs.fileno()), str(project_root)],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            # Ctrl-C in the terminal is for the engine alone: it tells the attempts
            start_new_session=True,
        )
        on_failure.pop_all()
    return Spawned(process, ours)
