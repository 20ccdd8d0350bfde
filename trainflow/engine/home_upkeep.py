"""What an engine does for its home from time to time: leftovers are swept, logs kept within limits and sent away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainflow.clock import Clock
from trainflow.engine import home_cleanup
from trainflow.executors.reactor import Reactor
from trainflow.metadata.database import Database
from trainflow.settings.model import Settings
from trainflow.settings.project import Project

if TYPE_CHECKING:
    from trainflow.engine.log_uploads import LogUploads


class HomeUpkeep:
    """Looks after a home, by the timers of its engine."""

    def __init__(
        self, project: Project, settings: Settings, database: Database, reactor: Reactor, clock: Clock
    ) -> None:
        self._project = project
        self._settings = settings
        self._database = database
        self._reactor = reactor
        self._clock = clock
        self._log_uploads: LogUploads | None = None

    def begin(self) -> None:
        """Look after it from now on."""
        logs, project = self._settings.logs, self._project
        if logs.url is not None:
            from trainflow.engine.log_uploads import LogUploads

            self._log_uploads = LogUploads(project.home, project.root, logs, self._database, self._clock)
            self._log_uploads.begin()
        self._sweep_leftovers()
        self._limit_logs()

    def _sweep_leftovers(self) -> None:
        home_cleanup.sweep_home(self._project.home, self._database, self._clock.now())
        self._reactor.call_later(home_cleanup.OLD.total_seconds(), self._sweep_leftovers)

    def _limit_logs(self) -> None:
        home_cleanup.limit_logs(self._project.home, self._database, self._settings.logging)
        self._reactor.call_later(self._settings.engine.heartbeat_seconds, self._limit_logs)

    def close(self) -> None:
        """Send what is left of the logs."""
        if self._log_uploads is not None:
            self._log_uploads.close()
