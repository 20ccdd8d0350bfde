"""A warm worker process seen from the control plane: start it, ask it, hear it."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable

import msgspec

from trainflow.executors.framed_socket import FramedSocket
from trainflow.executors.reactor import Reactor
from trainflow.executors.spawn import SpawnedForkserver
from trainflow.messages.forkserver import FromWorker, Launch, Parse
from trainflow.observability.oom_kills import OomKills


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
        self.draining = False
        self._process = spawned.process
        self._ended_by_us = False
        self.memory = memory
        self._killed_before = memory.look()
        connection = spawned.connection.dup()
        spawned.discard()
        self._peer = FramedSocket(reactor, connection, on_message=self._heard, on_close=self._closed)

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
        self._peer.send(self._encoder.encode(request))

    def parse(self, request: Parse, result_descriptor: int) -> None:
        """Ask for a child that reads a file and answers on `result_descriptor`."""
        self._peer.send_with_descriptor(self._encoder.encode(request), result_descriptor)

    def _heard(self, message: bytes) -> None:
        self._on_message(self, self._decoder.decode(message))

    def _closed(self) -> None:
        try:
            self._process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            self.kill()
        self._on_death(self)

    def close(self) -> None:
        """End it; children that are left go on by themselves."""
        self._on_death = lambda _worker: None
        self._peer.close()

    def kill(self) -> None:
        """End it by force, as one does with a process that hangs."""
        self._ended_by_us = True
        self._process.kill()
        self._process.wait()
