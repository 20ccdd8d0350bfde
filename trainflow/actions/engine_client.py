"""The engine of a home, from another process: follow a pipeline that it trains (read the database, write a run into it,
say that one is there), and end it."""

from __future__ import annotations

import os
import signal
import time
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self

from sqlalchemy import Connection

from trainflow.actions.dags import keep_in_database
from trainflow.actions.first_runs import Begin, begin
from trainflow.clock import Clock
from trainflow.engine import lock
from trainflow.engine.lock import running_engine
from trainflow.errors import EngineError
from trainflow.insight.progress import ProgressFeed, ProgressView
from trainflow.messages.workload import DagSource, ParseResult
from trainflow.metadata.queries import living_queries, service_queries
from trainflow.observability.processes import is_alive
from trainflow.settings.home import Home
from trainflow.settings.model import Settings
from trainflow.workspace.workspace import Workspace


class EngineClient:
    """A terminal that follows. While it lives, the engine stays for what it follows."""

    def __init__(self, workspace: Workspace, clock: Clock) -> None:
        self.workspace = workspace
        self.clock = clock
        self._renewed: float = self.clock.monotonic()

    def __enter__(self) -> Self:
        self._service_id = self.workspace.database.write(
            lambda connection: service_queries.register_this_process(connection, "follower", self.clock.now())
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self.workspace.database.transaction() as connection:
            service_queries.stop(connection, self._service_id, self.clock.now())

    def begin(
        self, stored: str, overrides: dict[str, str], parsed: ParseResult, how: Begin | None = None
    ) -> list[ProgressFeed]:
        """Make what was parsed of the file `stored` current, begin or find the runs, and wake the engine."""
        now = self.clock.now()
        keep_in_database(self.workspace, DagSource(stored, overrides), parsed, now)
        feeds = (how or begin)(self.workspace, stored, now)
        self.workspace.wake_engine()
        return feeds

    def look(self, feed: ProgressFeed) -> ProgressView:
        """What is new."""
        with self.workspace.database.reading() as connection:
            return feed.look(connection, self.clock.now())

    def wait(self, seconds: float) -> bool:
        """Let time pass; say from time to time that this terminal lives. False when the engine has ended."""
        time.sleep(seconds)
        if self.clock.monotonic() - self._renewed > self.workspace.settings.engine.heartbeat_seconds:
            self._renewed = self.clock.monotonic()
            with self.workspace.database.transaction() as connection:
                service_queries.renew_lease(connection, self._service_id, self.clock.now())
        return running_engine(self.workspace.project.home) is not None


def clients_follow(connection: Connection, settings: Settings, now: datetime) -> bool:
    """Whether a client that lives follows something through the engine of this database."""
    dead_after = timedelta(seconds=settings.engine.dead_after_seconds)
    rows = living_queries.shown_as_living(connection, now, dead_after, "follower")
    return any(is_alive(row.pid, row.process_started) for row in rows)


_LOOK_SECONDS = 0.05


def tell_to_stop(home: Home, *, at_once: bool = False) -> int | None:
    """Tell the engine to stop, in good order or at once; its pid, None: none is alive. Raises EngineError where it
    belongs to another user."""
    pid = lock.running_engine(home)
    if pid is None:
        return None
    if pid == 0:
        raise EngineError(f"{home.engine_lock} is held by a process that does not say its pid: try again")
    # two signals that are alike may arrive as one; asked twice, the engine stops at once
    for number in [signal.SIGTERM, signal.SIGINT] if at_once else [signal.SIGTERM]:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            break
        except PermissionError:
            raise EngineError(f"the engine (pid {pid}) belongs to another user: they have to stop it") from None
    return pid


def wait_until_stopped(home: Home, pid: int, clock: Clock, *, seconds: float | None = None) -> bool:
    """Whether the engine of that pid has ended, after `seconds` at most (None: however long it takes)."""
    deadline = None if seconds is None else clock.monotonic() + seconds
    # another engine that took over meanwhile is not the one that was to stop
    while lock.running_engine(home) in (pid, 0):
        if deadline is not None and clock.monotonic() >= deadline:
            return False
        time.sleep(_LOOK_SECONDS)
    return True
