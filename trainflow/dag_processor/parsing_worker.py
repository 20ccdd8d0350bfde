"""The warm worker in which files are parsed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from trainflow.clock import Clock
from trainflow.executors.reactor import Reactor
from trainflow.executors.spawn import spawn_forkserver
from trainflow.executors.warm_workers import ForkserverClient
from trainflow.messages.forkserver import FromWorker, Stale
from trainflow.observability.oom_kills import OomKills


class ParsingWorker:
    """The local executor's where it forks, otherwise one of our own.

    Call it to get the one that serves now. Raises OSError when it has to be started and the system gives no process.
    """

    def __init__(
        self, reactor: Reactor, clock: Clock, project_root: Path, warm_process: Callable[[], ForkserverClient | None]
    ) -> None:
        self._reactor = reactor
        self._clock = clock
        self._project_root = project_root
        self._warm_process = warm_process
        self._own: ForkserverClient | None = None

    def __call__(self) -> ForkserverClient:
        if (warm := self._warm_process()) is not None:
            return warm
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
