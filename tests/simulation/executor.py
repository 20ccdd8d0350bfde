"""The simulated executor: the contract of an executor, over simulated processes of the world."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple, Protocol

from trainflow.executors.executor import Executor, ExecutorHost, InFlightAttempt
from trainflow.messages.execution_api import Outcome, Started
from trainflow.messages.workload import AttemptKey, ExecuteTask, ProcessExit, ProcessIdentity

if TYPE_CHECKING:
    from tests.simulation.process import Process

_UNSEEN = "the process ended while it was not watched"


class Claimed(NamedTuple):
    """A process for which an attempt was claimed, and the answer."""

    process: ProcessIdentity
    started: Started


class Host(Protocol):
    """Where processes run, and their home."""

    spooled: dict[AttemptKey, Outcome]

    def launch(self, workload: ExecuteTask, claimed: Claimed | None = None) -> Process:
        """Start a process, or give an attempt to one that has waited."""
        ...

    def find(self, pid: int | None) -> Process | None:
        """A process that lives or has lived."""
        ...


class WaitingProcesses:
    """Processes that wait for an attempt, as its engine knows them."""

    def __init__(self, first_pid: int) -> None:
        self._pid = first_pid

    def one(self) -> ProcessIdentity | None:
        """One that waits; of three times one there is none."""
        self._pid += 1
        return ProcessIdentity(self._pid, float(self._pid)) if self._pid % 3 else None

    def is_gone(self, identity: ProcessIdentity) -> bool:
        """Whether one that has waited is there no more, unnoticed."""
        return identity.pid % 4 == 0


class SimulatedExecutor(Executor):
    """Starts processes and watches them. What it sees, it sees only when `notice` or `sync` lets it look."""

    def __init__(self, host_of_processes: Host, waiting: WaitingProcesses | None = None) -> None:
        self._processes = host_of_processes
        self._waiting = waiting
        self._held: dict[AttemptKey, Process | None] = {}
        self._children: set[int] = set()
        #: the next workload never starts, unnoticed
        self.swallows_next = False
        #: what it adopts next it does not see
        self.blind = False

    def start(self, host: ExecutorHost) -> None:
        self._host = host

    def queue_workload(self, workload: ExecuteTask) -> None:
        if self.swallows_next:
            self.swallows_next = False
            return
        process = self._processes.launch(workload)
        self._children.add(process.work.pid)
        self._held[workload.key] = process

    def waiting_processes(self, workload: ExecuteTask) -> Sequence[ProcessIdentity]:
        process = self._waiting.one() if self._waiting is not None else None
        return () if process is None else (process,)

    def queue_claimed(self, workload: ExecuteTask, process: ProcessIdentity, started: Started) -> None:
        if self.swallows_next or self._waiting is None or self._waiting.is_gone(process):
            super().queue_claimed(workload, process, started)
            return
        launched = self._processes.launch(workload, Claimed(process, started))
        self._children.add(launched.work.pid)
        self._held[workload.key] = launched

    def sync(self) -> None:
        for key, process in list(self._held.items()):
            if process is not None and not process.alive and process.work.pid not in self._children:
                self._ended(key, process)

    def adopt(self, attempts: Sequence[InFlightAttempt]) -> list[AttemptKey]:
        blind, self.blind = self.blind, False
        lost = []
        for attempt in attempts:
            if self._apply_spooled(attempt.key):
                continue
            process = self._processes.find(attempt.pid) if attempt.running else None
            if process is not None and process.alive and process.key == attempt.key and not blind:
                self._held[attempt.key] = process
            else:
                lost.append(attempt.key)
        return lost

    def terminate(self, key: AttemptKey) -> None:
        process = self._held.get(key)
        if process is not None:
            process.work.told_to_stop = True

    def running(self) -> frozenset[AttemptKey]:
        return frozenset(self._held)

    def end(self, grace: timedelta) -> None:
        """Attempts are told to stop; the world lets them go on, or not."""
        for key, process in self._held.items():
            if process is not None and not process.work.workload.shielded:
                self.terminate(key)

    def process(self, key: AttemptKey) -> Process | None:
        """Where an attempt runs, as far as it knows."""
        return self._held.get(key)

    # -- what it may notice ----------------------------------------------------------------------------------------

    @property
    def has_ended(self) -> list[AttemptKey]:
        """Children that ended and were not reported yet."""
        return [
            key
            for key, process in self._held.items()
            if process is not None and not process.alive and process.work.pid in self._children
        ]

    def notice(self, key: AttemptKey) -> None:
        """See that a child ended."""
        process = self._held[key]
        assert process is not None
        self._ended(key, process)

    def give_up(self, key: AttemptKey) -> None:
        """Believe that an attempt is gone, whether it is or not."""
        if self._held.pop(key, None) is not None:
            self._host.exited(key, ProcessExit(reason="its host cannot be reached"))

    def _ended(self, key: AttemptKey, process: Process) -> None:
        if self._apply_spooled(key):
            return
        del self._held[key]
        assert process.exit is not None
        child = process.work.pid in self._children
        self._host.exited(key, process.exit if child else ProcessExit(reason=_UNSEEN))

    def _apply_spooled(self, key: AttemptKey) -> bool:
        outcome = self._processes.spooled.get(key)
        if outcome is None:
            return False
        self._host.api.handle(outcome)
        del self._processes.spooled[key]
        self._held.pop(key, None)
        return True
