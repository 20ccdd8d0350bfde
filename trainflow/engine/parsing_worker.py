"""The warm worker in which pipeline files are parsed: the executor's where there is one, otherwise one of our own."""

from __future__ import annotations

from pathlib import Path

from trainflow.clock import Clock
from trainflow.executors.executor import Executor
from trainflow.executors.forkserver_client import ForkserverClient
from trainflow.executors.local import LocalExecutor
from trainflow.executors.oom_kills import OomKills
from trainflow.executors.reactor import Reactor
from trainflow.executors.spawn import spawn_forkserver
from trainflow.messages.forkserver import FromWorker, Stale


class ParsingWorker:
    """Call it to get the worker that serves now."""

    def __init__(self, reactor: Reactor, clock: Clock, project_root: Path, executor: Executor | None) -> None:
        self._reactor = reactor
        self._clock = clock
        self._project_root = project_root
        self._executor = executor
        self._own: ForkserverClient | None = None

    def __call__(self) -> ForkserverClient:
        if isinstance(self._executor, LocalExecutor) and self._executor.warm_process is not None:
            return self._executor.warm_process
        if self._own is None:
            spawned = spawn_forkserver(self._project_root)
            self._own = ForkserverClient(
                self._reactor, spawned, OomKills(self._clock), on_message=self._heard, on_death=self._died
            )
        return self._own

    def _heard(self, process: ForkserverClient, message: FromWorker) -> None:
        if isinstance(message, Stale):
            self._own = None
            process.close()

    def _died(self, _process: ForkserverClient) -> None:
        self._own = None

    def close(self) -> None:
        """End our own."""
        if self._own is not None:
            self._own.close()
