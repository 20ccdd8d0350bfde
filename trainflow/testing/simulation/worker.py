"""What surrounds a task process: its line to the control plane, and its way into the store, both of which it can be
stopped at. In between runs what runs in a real one: the product's task runner and operators."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from trainflow.checkpoints.store import Store, StoredFile
from trainflow.clock import Clock
from trainflow.execution.connection import Connection
from trainflow.execution.stop_signal import StopSignal
from trainflow.execution.task_runner import conduct
from trainflow.messages.outcome import Outcome
from trainflow.messages.requests import Reply, Request, Start
from trainflow.messages.workload import ExecuteTask
from trainflow.settings.model import Settings
from trainflow.settings.project import Project
from trainflow.testing.simulation.fiber import Fiber, Killed
from trainflow.testing.simulation.pipeline import SimulatedFiles

T = TypeVar("T")


class Surroundings(Protocol):
    """What an attempt reaches besides the control plane."""

    @property
    def clock(self) -> Clock: ...
    @property
    def files(self) -> SimulatedFiles: ...
    @property
    def project(self) -> Project: ...
    @property
    def settings(self) -> Settings: ...


@dataclass
class Work:
    """One attempt in one process."""

    workload: ExecuteTask
    pid: int
    process_started: float
    hostname: str
    store: Store
    surroundings: Surroundings
    #: it was told to stop
    told_to_stop: bool = False


def fiber_of(work: Work, stop: StopSignal) -> Fiber:
    """The process: claim, execute, report."""
    around = work.surroundings
    claim = Start(work.workload.key, work.pid, work.process_started, work.hostname)
    fiber = Fiber(
        lambda: conduct(
            work.workload,
            claim,
            SimulatedConnection(fiber),
            around.project,
            around.settings,
            around.files,
            stop=stop,
            clock=around.clock,
        ),
        work,
    )
    work.store = ProcessStore(work.store, fiber)
    return fiber


class SimulatedConnection(Connection):
    """The line of a process to the control plane: it pauses, and whoever lets it run brings the reply."""

    def __init__(self, fiber: Fiber) -> None:
        self._fiber = fiber

    def request(self, request: Request) -> Reply:
        reply: Reply = self._fiber.pause(request)
        return reply

    def tell(self, message: Request) -> None:
        self._fiber.pause(message)

    def conclude(self, outcome: Outcome) -> Reply | None:
        reply: Reply | None = self._fiber.pause(outcome)
        return reply

    def close(self) -> None:
        """There is nothing to hang up."""


class ProcessStore(Store):
    """The store as one process reaches it: it can be killed before each change, and changes nothing once it was."""

    def __init__(self, inner: Store, fiber: Fiber) -> None:
        self.inner = inner
        self.url = inner.url
        self._fiber = fiber

    def read(self, path: str) -> bytes:
        return self._look(lambda: self.inner.read(path))

    def read_many(self, paths: Sequence[str]) -> list[bytes | None]:
        return self._look(lambda: self.inner.read_many(paths))

    def chunks(self, path: str) -> Iterator[bytes]:
        return self._look(lambda: self.inner.chunks(path))

    def files(self, folder: str) -> list[StoredFile]:
        return self._look(lambda: self.inner.files(folder))

    def folders(self, folder: str) -> list[str]:
        return self._look(lambda: self.inner.folders(folder))

    def exists(self, path: str) -> bool:
        return self._look(lambda: self.inner.exists(path))

    def create_exclusive(self, path: str, data: bytes) -> None:
        self._change(f"creates {path}", lambda: self.inner.create_exclusive(path, data))

    def replace(self, path: str, data: bytes) -> None:
        self._change(f"writes {path}", lambda: self.inner.replace(path, data))

    def put_file(self, source: Path, path: str) -> None:
        self._change(f"uploads {path}", lambda: self.inner.put_file(source, path))

    def get_file(self, path: str, target: Path) -> None:
        self._look(lambda: self.inner.get_file(path, target))

    def delete(self, path: str) -> None:
        self._change(f"deletes {path}", lambda: self.inner.delete(path))

    def delete_folder(self, folder: str) -> None:
        self._change(f"deletes {folder}", lambda: self.inner.delete_folder(folder))

    def _look(self, call: Callable[[], T]) -> T:
        if self._fiber.killed:
            raise Killed
        return call()

    def _change(self, what: str, call: Callable[[], T]) -> T:
        self._fiber.pause(what)
        return call()
