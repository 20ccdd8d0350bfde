"""The environment of a task process: its line to the control plane, and its way into the store, both of which it can be
stopped at. In between runs what runs in a real one: the product's task runner and operators."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from tests.simulation.fiber import Fiber, Killed
from tests.simulation.memory_store import MemoryStore
from tests.simulation.pipeline import SimulatedFiles
from trainflow.clock import Clock
from trainflow.errors import StoreFailure
from trainflow.execution.attempt_main import claim_of
from trainflow.execution.execution_api_client import ExecutionApiClient
from trainflow.execution.stop_signal import StopSignal
from trainflow.execution.task_runner import conduct
from trainflow.messages.execution_api import Outcome, Reply, Request, Start, Started
from trainflow.messages.workload import ExecuteTask, ProcessIdentity
from trainflow.settings.model import Settings
from trainflow.settings.project import Project
from trainflow.storage.store import Store, StoreFile

T = TypeVar("T")


class AttemptEnvironment(Protocol):
    """What an attempt reaches besides the control plane."""

    @property
    def files(self) -> SimulatedFiles: ...
    @property
    def project(self) -> Project: ...
    @property
    def settings(self) -> Settings: ...


@dataclass
class SimulatedAttempt:
    """One attempt in one process."""

    workload: ExecuteTask
    pid: int
    process_started: float
    world_store: MemoryStore
    environment: AttemptEnvironment
    #: of its host
    clock: Clock
    #: what it meets in the store
    store_fault: StoreFault | None = None
    #: of the engines, too; or it speaks over a network
    hostname: str = field(default_factory=socket.gethostname)
    #: the answer to the claim that was made for this process
    started: Started | None = None
    #: it was told to stop
    told_to_stop: bool = False
    #: its way to the store
    store: ProcessStore = field(init=False)

    @property
    def is_remote(self) -> bool:
        """Whether it speaks over a network, and has no home of an engine beside it."""
        return bool(self.workload.api_url)

    @property
    def claim(self) -> Start:
        """What its process claims the attempt with."""
        return claim_of(self.workload, ProcessIdentity(self.pid, self.process_started), self.hostname)

    @property
    def token(self) -> str:
        """What its process proves with that it speaks for the attempt."""
        return f"token of process {self.pid}"


def fiber_of(work: SimulatedAttempt, stop: StopSignal) -> Fiber:
    """The process: claim, execute, report."""
    around = work.environment
    fiber = Fiber(
        lambda: conduct(
            work.workload,
            work.claim,
            SimulatedConnection(fiber),
            around.project,
            around.settings,
            around.files,
            stop=stop,
            clock=work.clock,
            started=work.started,
        ),
        work,
    )
    work.store = ProcessStore(work.world_store, fiber)
    work.store.store_fault = work.store_fault
    return fiber


class SimulatedConnection(ExecutionApiClient):
    """The line of a process to the control plane: it pauses, and what lets it run brings the reply."""

    def __init__(self, fiber: Fiber) -> None:
        self._fiber = fiber

    def request(self, request: Request) -> Reply:
        reply: Reply = self._fiber.pause(request)
        return reply

    def tell(self, message: Request) -> None:
        self._fiber.pause(message)

    def report_outcome(self, outcome: Outcome) -> Reply | None:
        reply: Reply | None = self._fiber.pause(outcome)
        return reply

    def close(self) -> None:
        """There is nothing to hang up."""


@dataclass
class StoreFault:
    """What one process meets in the store: from its call number `begins` (from 1) on, `lasts` calls long."""

    kind: str
    begins: int
    lasts: int = 1

    def applies(self) -> bool:
        """Count a call."""
        self.begins -= 1
        return self.begins <= 0 and -self.begins < self.lasts


class ProcessStore(Store):
    """The store as one process reaches it: it can be killed before each change, and changes nothing once it was."""

    def __init__(self, inner: MemoryStore, fiber: Fiber) -> None:
        self.inner = inner
        self.url = inner.url
        self.store_fault: StoreFault | None = None
        #: what was there when this process began: what a listing that is behind shows
        self._old = frozenset(inner.contents)
        self._fiber = fiber

    def read(self, path: str) -> bytes:
        return self._look(path, lambda: self.inner.read(path))

    def read_many(self, paths: Sequence[str]) -> list[bytes | None]:
        return self._look(paths[0] if paths else "", lambda: self.inner.read_many(paths))

    def chunks(self, path: str) -> Iterator[bytes]:
        return self._look(path, lambda: self.inner.chunks(path))

    def files(self, folder: str) -> list[StoreFile]:
        found = self._look(folder, lambda: self.inner.files(folder))
        return [file for file in found if file.path in self._old] if self._is("stale") else found

    def folders(self, folder: str) -> list[str]:
        found = self._look(folder, lambda: self.inner.folders(folder))
        if not self._is("stale"):
            return found
        return [name for name in found if any(path.startswith(f"{folder}/{name}/") for path in self._old)]

    def exists(self, path: str) -> bool:
        return self._look(path, lambda: self.inner.exists(path))

    def create_exclusive(self, path: str, data: bytes) -> None:
        self._change("creates", path, lambda: self.inner.create_exclusive(path, data))

    def replace(self, path: str, data: bytes) -> None:
        self._change("writes", path, lambda: self.inner.replace(path, data))

    def put_file(self, source: Path, path: str) -> None:
        def torn() -> None:
            data = source.read_bytes()
            self.inner.replace(path, data[: len(data) // 2])

        self._change("uploads", path, lambda: self.inner.put_file(source, path), torn)

    def get_file(self, path: str, target: Path) -> None:
        self._look(path, lambda: self.inner.get_file(path, target))

    def delete(self, path: str) -> None:
        self._change("deletes", path, lambda: self.inner.delete(path))

    def delete_folder(self, folder: str) -> None:
        self._change("deletes", folder, lambda: self.inner.delete_folder(folder))

    def _look(self, path: str, call: Callable[[], T]) -> T:
        if self._fiber.killed:
            raise Killed
        if self._is("before", "after", "throttled") and self._applies():
            raise _refused(path)
        return call()

    def _change(self, what: str, path: str, call: Callable[[], None], torn: Callable[[], None] | None = None) -> None:
        self._fiber.pause(f"{what} {path}")
        failing = self._is("before", "after", "throttled", "full", "torn") and self._applies()
        if failing and torn is not None and self._is("torn"):
            torn()
        if failing and not self._is("after") and not (self._is("full") and what == "deletes"):
            raise _refused(path)
        call()
        if failing and self._is("after"):
            raise _refused(path)

    def _is(self, *kinds: str) -> bool:
        return self.store_fault is not None and self.store_fault.kind in kinds

    def _applies(self) -> bool:
        return self.store_fault is not None and self.store_fault.applies()


def _refused(location: str) -> StoreFailure:
    return StoreFailure(f"{location}: made to fail", location=location)


class SimulatedStop(StopSignal):
    """How a simulated process is told to stop: its grace is over when the world says so."""

    def _limit_patience(self) -> None:
        """There is no timer."""
