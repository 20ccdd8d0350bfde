"""Follow a pipeline that another process trains: read the database, write a run into it, say that one is there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

from sqlalchemy import Connection

from trainflow.actions.dags import keep_in_database
from trainflow.actions.first_runs import Begin, begin
from trainflow.clock import Clock
from trainflow.engine.lock import running_engine
from trainflow.engine.startup import ignoring_outage
from trainflow.insight.progress import ProgressFeed, ProgressView
from trainflow.messages.workload import DagSource, ParseResult
from trainflow.metadata.queries import service_list_queries, service_queries
from trainflow.observability.processes import is_alive
from trainflow.settings.model import Settings
from trainflow.workspace.workspace import Workspace

if TYPE_CHECKING:
    from trainflow.actions.start import TrainingRequest

#: between two looks for an engine that begins anew
_LOOK_SECONDS = 0.2


class EngineClient:
    """A terminal that follows. While it lives, the engine stays for what it follows."""

    def __init__(self, workspace: Workspace, clock: Clock, tell: Callable[[str], None]) -> None:
        """`tell`: see `train_as_engine`."""
        workspace.database.tell = tell
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
        self.workspace.database.patience_seconds = 0.0
        with ignoring_outage("say that this terminal follows no more"):
            self.workspace.database.write(
                lambda connection: service_queries.stop(connection, self._service_id, self.clock.now())
            )

    def begin(self, source: DagSource, parsed: ParseResult, how: Begin | None = None) -> list[ProgressFeed]:
        """Make what was parsed of the file current, begin or find the runs, and wake the engine."""
        now = self.clock.now()
        keep_in_database(self.workspace, source, parsed, now)
        feeds = (how or begin)(self.workspace, source, now)
        self.workspace.wake_engine()
        return feeds

    def look(self, feed: ProgressFeed) -> ProgressView:
        """What is new. Raises DatabaseUnavailable."""
        now = self.clock.now()
        return self.workspace.database.read(lambda connection: feed.look(connection, now))

    def wait(self, seconds: float) -> bool:
        """Let time pass; say from time to time that this terminal lives. False when the engine has ended. Raises
        DatabaseUnavailable."""
        time.sleep(seconds)
        if self.clock.monotonic() - self._renewed > self.workspace.settings.engine.heartbeat_seconds:
            self._renewed = self.clock.monotonic()
            now = self.clock.now()
            self.workspace.database.write(lambda each: service_queries.renew_lease(each, self._service_id, now))
        return running_engine(self.workspace.project.home) is not None

    def engine_comes_back(self, patience_seconds: float = 90.0) -> bool:
        """Whether there is an engine again after that long: one whose build was replaced begins anew, and is not to
        find that what followed it has taken its place."""
        until = self.clock.monotonic() + patience_seconds
        while self.clock.monotonic() < until:
            if running_engine(self.workspace.project.home) is not None:
                return True
            time.sleep(_LOOK_SECONDS)
        return False


def clients_follow(connection: Connection, settings: Settings, now: datetime) -> bool:
    """Whether a client that lives follows something through the engine of this database."""
    dead_after = timedelta(seconds=settings.engine.dead_after_seconds)
    rows = service_list_queries.shown_as_living(connection, now, dead_after, "follower")
    return any(is_alive(row.pid, row.process_started) for row in rows)


class FollowedTraining(NamedTuple):
    """A client of an engine that runs elsewhere, and what is followed."""

    client: EngineClient
    feeds: list[ProgressFeed]


@contextmanager
def train_through_engine(
    request: TrainingRequest, clock: Clock, tell: Callable[[str], None]
) -> Iterator[FollowedTraining]:
    """Have the file read, unless it was, and hand it to the engine that is alive. It stays for what is followed while
    the block lasts. `tell`: see `train_as_engine`. Raises InputError with what is wrong in the file, or that a store it
    names cannot be used."""
    from trainflow.serialization.document import decode
    from trainflow.workspace.pipeline_file import parse
    from trainflow.workspace.store_check import StoreCheck

    project, settings = request.workspace.project, request.workspace.settings
    with StoreCheck(project, settings, request.path, request.overrides) as stores:
        parsed = request.parsed or parse(project, settings, request.path, request.overrides)
        chains = [decode(each.document).chain for each in parsed.dags]
        stores.raise_if_refused([place for chain in chains if chain is not None for place in chain.places])
    with request.workspace, EngineClient(request.workspace, clock, tell) as client:
        yield FollowedTraining(client, client.begin(request.source, parsed, request.begin))
