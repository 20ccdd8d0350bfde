"""Follow a pipeline that another process trains: read the database, write a run into it, say that one is there."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self

from sqlalchemy import Connection

from trainflow.actions.start import Begin, begin
from trainflow.clock import Clock
from trainflow.engine.lock import running_engine
from trainflow.errors import InputError
from trainflow.executors.execution_socket import nudge
from trainflow.insight.progress import ProgressFeed, ProgressView
from trainflow.messages.workload import DagSource, ParseResult
from trainflow.metadata import dag_queries, service_queries
from trainflow.metadata.database import Database
from trainflow.metadata.schema import ensure_schema
from trainflow.observability.processes import is_alive
from trainflow.settings.model import Settings
from trainflow.settings.project import Project


class EngineClient:
    """A terminal that follows. While it lives, the engine stays for what it follows."""

    def __init__(self, project: Project, settings: Settings, clock: Clock) -> None:
        self.project = project
        self.settings = settings
        self.clock = clock
        self.database = Database.of(project.home, settings)
        self._renewed: float = self.clock.monotonic()

    def __enter__(self) -> Self:
        ensure_schema(self.database)
        self._service_id = self.database.write(
            lambda connection: service_queries.register_this_process(connection, "follower", self.clock.now())
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self.database.transaction() as connection:
            service_queries.stop(connection, self._service_id, self.clock.now())
        self.database.close()

    def begin(
        self, stored: str, overrides: dict[str, str], parsed: ParseResult, how: Begin | None = None
    ) -> list[ProgressFeed]:
        """Make what was parsed of the file `stored` current, begin or find the runs, and wake the engine."""
        now = self.clock.now()

        def store(connection: Connection) -> None:
            problem = dag_queries.store_result(
                connection,
                DagSource(stored, overrides),
                parsed,
                now,
                is_there=lambda other: (self.project.root / other).exists(),
            )
            if problem is not None:
                raise InputError(problem.message)

        self.database.write(store)
        feeds = (how or begin)(self.database, self.project, self.settings, stored, now)
        nudge(self.project.home.socket_path)
        return feeds

    def look(self, feed: ProgressFeed) -> ProgressView:
        """What is new."""
        with self.database.reading() as connection:
            return feed.look(connection, self.clock.now())

    def wait(self, seconds: float) -> bool:
        """Let time pass; say from time to time that this terminal lives. False when the engine has ended."""
        time.sleep(seconds)
        if self.clock.monotonic() - self._renewed > self.settings.engine.heartbeat_seconds:
            self._renewed = self.clock.monotonic()
            with self.database.transaction() as connection:
                service_queries.renew_lease(connection, self._service_id, self.clock.now())
        return running_engine(self.project.home) is not None


def clients_follow(connection: Connection, settings: Settings, now: datetime) -> bool:
    """Whether a client that lives follows something through the engine of this database."""
    dead_after = timedelta(seconds=settings.engine.dead_after_seconds)
    rows = service_queries.shown_as_living(connection, now, dead_after, "follower")
    return any(is_alive(row.pid, row.process_started) for row in rows)
