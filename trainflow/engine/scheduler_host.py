"""What a scheduler is for the executors of its process: where they ask, and where they report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainflow.executors.configured import ConfiguredExecutors
from trainflow.messages.workload import AttemptKey, ExecuteTask, ProcessExit

if TYPE_CHECKING:
    from trainflow.engine.engine import Engine


class SchedulerHost:
    """The `ExecutorHost` of an engine whose database is open."""

    def __init__(self, engine: Engine, executors: ConfiguredExecutors) -> None:
        self.project, self.settings = engine.project, engine.settings
        self.clock, self.reactor = engine.clock, engine.reactor
        #: answers attempts
        self.api = engine.service
        self._executors = executors

    def has_begun(self, key: AttemptKey) -> bool:
        """See `ExecutorHost.has_begun`."""
        return self.api.has_begun(key)

    def has_reported(self, key: AttemptKey) -> bool:
        """See `ExecutorHost.has_reported`."""
        return self.api.has_reported(key)

    def exited(self, key: AttemptKey, exit: ProcessExit) -> None:
        """See `ExecutorHost.exited`."""
        self.api.exited(key, exit)

    def not_taken(self, workload: ExecuteTask, reason: str) -> None:
        """See `ExecutorHost.not_taken`."""
        self._executors.not_taken(workload, reason)

    def taken(self, executor: str) -> None:
        """See `ExecutorHost.taken`."""
        self._executors.taken(executor)
