"""What a scheduler is for the executors of its process: where they ask, and where they report."""

from __future__ import annotations

from collections.abc import Callable

from trainflow.clock import Clock
from trainflow.executors.configured import ConfiguredExecutors
from trainflow.executors.reactor import Reactor
from trainflow.messages.workload import AttemptKey, ExecuteTask, ProcessExit
from trainflow.metadata.execution_service import ExecutionService
from trainflow.settings.model import Settings
from trainflow.settings.project import Project


class SchedulerHost:
    """The `ExecutorHost` of an engine. Executors start before its database is there, and ask nothing until it is."""

    def __init__(
        self,
        project: Project,
        settings: Settings,
        clock: Clock,
        reactor: Reactor,
        executors: ConfiguredExecutors,
        service: Callable[[], ExecutionService],
    ) -> None:
        self.project, self.settings, self.clock, self.reactor = project, settings, clock, reactor
        self._executors, self._service = executors, service

    @property
    def api(self) -> ExecutionService:
        """Answers attempts."""
        return self._service()

    def has_begun(self, key: AttemptKey) -> bool:
        """See `ExecutorHost.has_begun`."""
        return self.api.has_begun(key)

    def has_reported(self, key: AttemptKey) -> bool:
        """See `ExecutorHost.has_reported`."""
        return self.api.has_reported(key)

    def exited(self, key: AttemptKey, exit: ProcessExit) -> None:
        """See `ExecutorHost.exited`."""
        self.api.exited(key, exit)

    def note(self, key: AttemptKey, text: str | None) -> None:
        """See `ExecutorHost.note`."""
        self.api.note_queued(key, text)

    def explain(self, key: AttemptKey, cause: str) -> None:
        """See `ExecutorHost.explain`."""
        self.api.explain(key, cause)

    def not_taken(self, workload: ExecuteTask, reason: str) -> None:
        """See `ExecutorHost.not_taken`."""
        self._executors.not_taken(workload, reason)

    def taken(self, executor: str) -> None:
        """See `ExecutorHost.taken`."""
        self._executors.taken(executor)
