"""The contract of an executor: exactly what one has to write. `trainflow.testing.executor_contract` tests it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, ClassVar, NamedTuple, Protocol, Self

from msgspec.structs import replace

from trainflow.clock import Clock
from trainflow.errors import EngineError
from trainflow.executors.reactor import Reactor
from trainflow.identifiers import did_you_mean
from trainflow.messages.execution_api import ExecutionApi, Started
from trainflow.messages.workload import AttemptKey, ExecuteTask, ProcessExit, ProcessIdentity
from trainflow.settings.executors import LOCAL, ExecutorSettingsError
from trainflow.settings.model import Settings
from trainflow.settings.project import Project


class InFlightAttempt(NamedTuple):
    """An attempt that the database says is queued or running, with what is known of its process."""

    key: AttemptKey
    running: bool
    hostname: str | None
    pid: int | None
    process_started: float | None
    #: name of the executor that it was handed to
    executor: str = LOCAL


class ExecutorHost(Protocol):
    """What an executor gets from the scheduler it belongs to."""

    @property
    def project(self) -> Project:
        """The project whose tasks are run."""
        ...

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        ...

    @property
    def clock(self) -> Clock:
        """The clock that everything in this process goes by."""
        ...

    @property
    def reactor(self) -> Reactor:
        """Where file descriptors and wake-ups go; everything an executor does in this process runs inside its turns."""
        ...

    @property
    def api(self) -> ExecutionApi:
        """Answers attempts of this host."""
        ...

    def has_begun(self, key: AttemptKey, pid: int | None = None) -> bool:
        """Whether a process (`pid`: this one of this host) has claimed this attempt, or it has ended. Asked when a
        process takes suspiciously long."""
        ...

    def has_reported(self, key: AttemptKey) -> bool:
        """Whether this attempt has said how it ended: nothing of it is under way, and there is nothing to call off."""
        ...

    def not_taken(self, workload: ExecuteTask, reason: str) -> None:
        """Give back what was taken over, because what would run it is away: it stays queued, and is handed over again.

        For an executor that finds out later; one that knows at once raises ExecutorUnavailable.
        """
        ...

    def note(self, key: AttemptKey, text: str | None) -> None:
        """Say, for people, what an attempt waits for that no process has claimed yet; None: nothing."""
        ...

    def explain(self, key: AttemptKey, cause: str) -> None:
        """Add, for people, why an attempt has ended that said itself that it did: what runs it may know the cause only
        later. Once or several times; of one that ended well nothing is added."""
        ...

    def taken(self, executor: str) -> None:
        """Say that an executor which `tells_later` could hand on a workload again, after one that it could not."""
        ...

    def exited(self, key: AttemptKey, exit: ProcessExit) -> None:
        """Report that the process of an attempt ended, or that its end will never be seen.

        To be called once for each attempt, after everything the attempt said itself was applied. A report of a stale
        attempt, or of one that said how it ended, changes nothing.
        """
        ...


class ExecutorUnavailable(EngineError):
    """What runs the attempts of an executor (a broker, a cluster) cannot be reached now, and will be again."""


class Executor(ABC):
    """Runs attempts somewhere."""

    #: its attempts speak over HTTP: a workload holds what claims it, and where the API server is
    remote: ClassVar[bool] = False
    #: it finds out later whether a workload could be handed on: `not_taken`, and `taken` when it can again
    tells_later: ClassVar[bool] = False

    @classmethod
    def from_options(cls, name: str, options: Mapping[str, Any]) -> Self:
        """The executor `name` of `[executors]`; `options` is what its table holds besides `type` and `slots`.

        Makes a value and reaches for nothing: it is called to check the settings too (`options.read_options` reads
        them into a struct). Raises ExecutorSettingsError for what can never work; EngineError for what this host
        lacks. By default it has no options.
        """
        for key in options:
            said = f"unknown setting executors.{name}.{key}{did_you_mean(key, ['type', 'slots'], 'known')}"
            raise ExecutorSettingsError(said, executor=name, key=key)
        return cls()

    @abstractmethod
    def start(self, host: ExecutorHost) -> None:
        """Make ready. Called once, before anything else. Raises EngineError when it cannot work here."""

    @abstractmethod
    def queue_workload(self, workload: ExecuteTask) -> None:
        """Take over one attempt; must not block. The attempt claims itself (`Start`) when it runs.

        Handing over twice is harmless: the second claim is refused. When the attempt cannot be run, report it with
        `host.exited`. Raises ExecutorUnavailable when what would run it is away: the attempt stays queued, and is
        handed over again later.
        """

    def waiting_processes(self, workload: ExecuteTask) -> Sequence[ProcessIdentity]:
        """Processes of this host that wait for an attempt, and could be given this one now; by default there are none.

        The attempt is claimed for one in the transaction that queues it, which saves a commit, and handed over by
        `queue_claimed`. Asked, it reserves nothing: the transaction may fail.
        """
        return ()

    def queue_claimed(self, workload: ExecuteTask, process: ProcessIdentity, started: Started) -> None:
        """`queue_workload` for an attempt that was claimed for a process that waited, which is given the answer, too.
        When that is gone, another one inherits its claim (`ExecuteTask.instead_of`)."""
        self.queue_workload(replace(workload, instead_of=process))

    @abstractmethod
    def sync(self) -> None:
        """Look after what is under way. Called at least every heartbeat; must not block."""

    @abstractmethod
    def adopt(self, attempts: Sequence[InFlightAttempt]) -> list[AttemptKey]:
        """Take over attempts that a dead scheduler's executor of this kind was running.

        Returns those that were not found alive; they will be treated as lost. What is adopted is watched from now on.
        """

    @abstractmethod
    def terminate(self, key: AttemptKey) -> None:
        """Tell an attempt that is not waited for any more to stop at once, without saving anything; when it has not
        after the grace time, end it by force. Unknown ones are ignored."""

    @abstractmethod
    def running(self) -> frozenset[AttemptKey]:
        """What this executor believes it has."""

    @abstractmethod
    def end(self, grace: timedelta) -> None:
        """Stop. Attempts on this host are told to, and get `grace` to save how far they are and to report; those that
        run elsewhere go on, and are adopted by the next engine. Then give everything back."""

    def hurry(self) -> None:  # noqa: B027
        """A second stop was asked for: an `end` that waits gives no more grace. Called by a signal handler."""
