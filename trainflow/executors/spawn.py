"""Start the processes that run code of users: a warm worker, or an interpreter for one attempt.

Imports nothing heavy, so that it can be started before the engine is imported.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from pathlib import Path
from typing import NamedTuple

import msgspec

from trainflow.bootstrap import interpreter
from trainflow.messages.forkserver import Parse
from trainflow.messages.frames import pack
from trainflow.messages.workload import WORKLOAD_VARIABLE, ExecuteTask, ParseFile
from trainflow.observability.processes import MARK, mark_of, with_room_for_mark
from trainflow.settings.environment import worker_environment


class SpawnedForkserver(NamedTuple):
    """A process that imports what every attempt needs, and our end of the line to it."""

    process: subprocess.Popen[bytes]
    connection: socket.socket

    def parse(self, request: ParseFile) -> socket.socket:
        """Have a file read as soon as it can, and loaded for the attempts that will follow. The answer comes on the
        socket (`FromParser`)."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        frame = pack(msgspec.json.encode(Parse(request, load=True)))
        with theirs:
            socket.send_fds(self.connection, [frame], [theirs.fileno()])
        return ours

    def discard(self) -> None:
        """Hang up: it ends by itself. Harmless while another process uses the line: that one has a descriptor of its
        own."""
        self.connection.close()


def spawn_attempt(workload: ExecuteTask) -> subprocess.Popen[bytes]:
    """Start an interpreter that runs one attempt. Raises OSError when no process can be started."""
    encoded = msgspec.json.encode(workload).decode()
    return subprocess.Popen(
        interpreter("trainflow.execution.attempt_main"),
        env={**worker_environment(os.environ), WORKLOAD_VARIABLE: encoded, MARK: mark_of(workload.key.attempt_id)},
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        pass_fds=workload.rank_sockets,
    )


def spawn_forkserver(project_root: Path) -> SpawnedForkserver:
    """Start a warm worker for a project. Raises OSError when no process can be started."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with theirs, contextlib.ExitStack() as on_failure:
        on_failure.callback(ours.close)
        process = subprocess.Popen(
            interpreter("trainflow.execution.forkserver", str(theirs.fileno()), str(project_root), str(os.getpid())),
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env=with_room_for_mark(worker_environment(os.environ)),
            # Ctrl-C in the terminal is for the engine alone: it tells the attempts
            start_new_session=True,
        )
        on_failure.pop_all()
    return SpawnedForkserver(process, ours)
