"""A warm worker process seen from the control plane: start it, ask it, hear it."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
from collections.abc import Callable, Sequence

import msgspec

from trainflow.executors.framed_socket import FramedSocket
from trainflow.executors.reactor import Reactor
from trainflow.executors.spawn import SpawnedForkserver
from trainflow.messages.forkserver import (
    ChildEnded,
    ChildWaits,
    FromWorker,
    Given,
    Launch,
    Launched,
    Parse,
    ToWaiting,
    Unused,
)
from trainflow.messages.frames import pack
from trainflow.messages.workload import ExecuteTask, ProcessIdentity
from trainflow.observability.oom_kills import OomKills

#: as much as the kernel takes for a child at once; what is larger goes through the warm process
_MOST_GIVEN_BYTES = 64 << 10


class ForkserverClient:
    """A warm worker. It serves until it says `Stale` or dies; then its owner makes another one."""

    def __init__(
        self,
        reactor: Reactor,
        spawned: SpawnedForkserver,
        memory: OomKills,
        *,
        on_message: Callable[[ForkserverClient, FromWorker], None],
        on_death: Callable[[ForkserverClient], None],
    ) -> None:
        self._encoder = msgspec.json.Encoder()
        self._decoder = msgspec.json.Decoder(FromWorker)
        self._on_message = on_message
        self._on_death = on_death
        #: children that have not ended, by pid
        self.children: set[int] = set()
        #: children that were forked ahead and wait for an attempt, oldest first, with the line to each
        self._waiting: dict[ProcessIdentity, socket.socket] = {}
        #: tasks of which it was asked to launch an attempt
        self._launched: set[tuple[str, str, str]] = set()
        self.draining = False
        self._process = spawned.process
        self._ended_by_us = False
        self.memory = memory
        self._killed_before = memory.look()
        connection = spawned.connection.dup()
        spawned.discard()
        self._peer = FramedSocket(
            reactor, connection, on_message=self._heard, on_close=self._closed, takes_descriptors=True
        )

    @property
    def pid(self) -> int:
        """Process id of the forkserver."""
        return self._process.pid

    def was_killed_from_outside(self) -> bool:
        """Whether it was sent a signal that no crash sends: then nothing it did is to blame. Asked once, when it has
        ended."""
        from_outside = self._process.returncode in (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGHUP)
        return from_outside and not self._ended_by_us and not self.memory.explain(self._killed_before)

    def launch(self, request: Launch) -> None:
        """Ask for a child that runs an attempt."""
        self._launched.add(_task_of(request.workload))
        self._peer.send(self._encoder.encode(request))

    def waiting_for(self, workload: ExecuteTask) -> Sequence[ProcessIdentity]:
        """Children that can be given an attempt at once, and for which it can be claimed before. None for the first
        attempt of a task, before which the worker imports what can be imported ahead."""
        return tuple(self._waiting) if not self.draining and _task_of(workload) in self._launched else ()

    def give(self, process: ProcessIdentity, launch: ToWaiting, *, warm_up: bool) -> bool:
        """Give a child that waits its attempt. False when it is gone, or cannot be given this."""
        frame = pack(self._encoder.encode(launch))
        line = self._waiting.pop(process, None)
        if line is None:
            return False
        with line, contextlib.suppress(OSError):
            # never waits: nothing else is in the buffer
            line.setblocking(False)
            if len(frame) <= _MOST_GIVEN_BYTES and line.send(frame) == len(frame):
                self.children.add(process.pid)
                self._peer.send(self._encoder.encode(Given(launch.workload, process.pid, warm_up)))
                return True
        return False

    def parse(self, request: Parse, result_descriptor: int) -> None:
        """Ask for a child that reads a file and answers on `result_descriptor`."""
        self._peer.send_with_descriptor(self._encoder.encode(request), result_descriptor)

    def _heard(self, message: bytes) -> None:
        said = self._decoder.decode(message)
        match said:
            case ChildWaits(process) if self._peer.descriptors:
                self._waiting[process] = socket.socket(fileno=self._peer.descriptors.popleft())
            case ChildWaits():
                return  # no descriptor was free for its line: the system has closed that, and so it ends unused
            case Unused(pid) | ChildEnded(pid):
                self.children.discard(pid)
                for process in [each for each in self._waiting if each.pid == pid]:
                    self._waiting.pop(process).close()
            case Launched(_, pid):
                self.children.add(pid)
        self._on_message(self, said)

    def _hang_up_on_waiting(self) -> None:
        while self._waiting:
            self._waiting.popitem()[1].close()

    def _closed(self) -> None:
        self._hang_up_on_waiting()
        try:
            self._process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            self.kill()
        self._on_death(self)

    def close(self) -> None:
        """End it; children that are left go on by themselves."""
        self._on_death = lambda _worker: None
        self._hang_up_on_waiting()
        self._peer.close()

    def kill(self) -> None:
        """End it by force, as one does with a process that hangs."""
        self._ended_by_us = True
        self._process.kill()
        self._process.wait()


def _task_of(workload: ExecuteTask) -> tuple[str, str, str]:
    return workload.source.path, workload.dag_id, workload.task_id
