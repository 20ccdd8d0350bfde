"""The warm workers of an executor: the one that serves, and those that were replaced and still have children.

Of each is known which pipeline files it may load, and whether it imports ahead. `ForkserverClient` is one of them as
the control plane sees it: start it, ask it, hear it.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence

import msgspec

from trainflow.errors import EngineError
from trainflow.executors.executor import ExecutorHost
from trainflow.executors.fork_or_spawn import CrashHistory, may_fork
from trainflow.executors.framed_socket import FramedSocket
from trainflow.executors.reactor import Reactor
from trainflow.executors.spawn import SpawnedForkserver, spawn_forkserver
from trainflow.messages.execution_api import Started
from trainflow.messages.forkserver import (
    ChildEnded,
    ChildWaits,
    FromWorker,
    Given,
    Launch,
    Launched,
    Parse,
    Threaded,
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


log = logging.getLogger(__name__)


class WarmWorkers:
    """Starts workers, and asks the one that serves."""

    def __init__(
        self,
        host: ExecutorHost,
        memory: OomKills,
        *,
        forks: bool,
        prestarted: SpawnedForkserver | None,
        on_message: Callable[[ForkserverClient, FromWorker], None],
        on_death: Callable[[ForkserverClient], None],
    ) -> None:
        """`forks`: whether attempts are forked; without that there is no worker. `prestarted`: one that is already
        importing."""
        self._host = host
        self._memory = memory
        self._forks = forks
        self._prestarted = prestarted
        self._on_message, self._on_death = on_message, on_death
        self._workers: list[ForkserverClient] = []
        #: whether workers import ahead what tasks will need
        self._warms_up = True
        self._crashes = CrashHistory()
        self.start_missing()

    def __contains__(self, worker: ForkserverClient) -> bool:
        return worker in self._workers

    @property
    def all(self) -> tuple[ForkserverClient, ...]:
        """Every one that was started and has not ended."""
        return tuple(self._workers)

    @property
    def serving(self) -> ForkserverClient | None:
        """The worker that serves now; None when attempts are not forked. Raises OSError when none can be started."""
        self.start_missing()
        return self._workers[-1] if self._forks else None

    def start_missing(self) -> None:
        """Start a worker where none serves that should. Raises OSError when the system gives no process for it."""
        if self._forks and self._is_missing:
            self._start()

    @property
    def _is_missing(self) -> bool:
        return not self._workers or self._workers[-1].draining

    def _start(self) -> None:
        spawned, self._prestarted = self._prestarted or spawn_forkserver(self._host.project.root), None
        self._workers.append(
            ForkserverClient(
                self._host.reactor,
                spawned,
                self._memory,
                on_message=self._on_message,
                on_death=self._on_death,
            )
        )

    # -- attempts --------------------------------------------------------------------------------------------------

    def for_attempt(self, workload: ExecuteTask, *, alone: bool = False) -> ForkserverClient | None:
        """The worker that forks this attempt (`alone`: see `may_fork`); None: it is not forked. Raises OSError."""
        if may_fork(workload.source.path, self._crashes, as_set=self._forks, alone=alone):
            return self.serving
        return None

    def waiting_for(self, workload: ExecuteTask) -> Sequence[ProcessIdentity]:
        """Children that this attempt can be given to."""
        worker = self.for_attempt(workload) if not self._is_missing else None
        return worker.waiting_for(workload) if worker is not None else ()

    def give(
        self, worker: ForkserverClient, workload: ExecuteTask, process: ProcessIdentity, started: Started | None = None
    ) -> bool:
        """Give an attempt to a child that waits, with the answer to its claim, if it has one. False when it is gone."""
        return worker.give(process, ToWaiting(workload, started), warm_up=self._warms_up)

    def launch(self, worker: ForkserverClient, workload: ExecuteTask) -> int | None:
        """Have an attempt run by a child. Returns the pid of one that has waited; None: the worker will say."""
        for process in worker.waiting_for(workload)[:1]:
            if self.give(worker, workload, process):
                return process.pid
        worker.launch(Launch(workload, self._warms_up))
        return None

    def launched(self, workload: ExecuteTask | None) -> None:
        """A worker got so far as to launch this attempt (None: one that is not known any more)."""
        self._crashes.launched(workload.source.path if workload is not None else None)

    def has_child(self, pid: int) -> bool:
        """Whether the process is a child of one of them."""
        return any(pid in worker.children for worker in self._workers)

    # -- what becomes of them --------------------------------------------------------------------------------------

    def stale(self, worker: ForkserverClient, changed: str) -> None:
        """A file that this worker has imported is another one on disk."""
        log.info("%s has changed: the warm worker is replaced", changed)
        self._crashes.files_changed()
        worker.draining = True

    def threaded(self, worker: ForkserverClient, message: Threaded) -> None:
        """What this worker has imported has started threads."""
        worker.draining = True
        if self._crashes.threads(message.path):
            log.warning(
                "%s: %s: its attempts are not forked but run in interpreters of their own "
                '(isolation = "spawn" under [executors.local] says it for all pipelines)',
                message.path or "every import",
                message.how,
            )

    def retire(self, worker: ForkserverClient) -> None:
        """End a worker that was replaced and has no children."""
        if worker.draining and worker in self._workers and not worker.children:
            self._workers.remove(worker)
            worker.close()

    def forget(self, worker: ForkserverClient) -> None:
        """A worker has ended."""
        if worker in self._workers:
            self._workers.remove(worker)

    def crashed(self, worker: ForkserverClient, at: ExecuteTask | None) -> None:
        """A worker has ended that was to serve, while it was at this attempt. Raises EngineError when the next one
        would do no better."""
        if not worker.was_killed_from_outside():
            # it may have been importing ahead what kills it
            self._warms_up = False
            self._crashes.died(at=at.source.path if at is not None else None)
        if self._crashes.hopeless:
            raise EngineError(
                "the warm worker dies again and again before it launches anything: run "
                f"'{sys.executable} -m trainflow.execution.forkserver --check {self._host.project.root}' to see why, "
                'or set isolation = "spawn" under [executors.local]'
            )
        log.warning("the warm worker ended unexpectedly: a new one is started")

    def close(self) -> None:
        """End all of them; children that are left go on by themselves."""
        for worker in self._workers:
            worker.close()
        self._workers.clear()
