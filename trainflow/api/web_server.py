"""The server of people and programs: the REST API, pages, metrics. It stands behind the one of the port."""

from __future__ import annotations

import functools
import socket
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from trainflow.api.access_middleware import AccessMiddleware
from trainflow.api.application import is_for_attempts
from trainflow.api.authentication import Access
from trainflow.api.connection_limits import allow_many_connections
from trainflow.api.connection_transfer import ConnectionTransfer
from trainflow.api.http_server import HttpServer, TakenConnections
from trainflow.api.rest.application import RestApplication
from trainflow.api.routed_connection import RoutedConnection, Routing, WebConnection
from trainflow.api.web_application import web_application
from trainflow.clock import Clock
from trainflow.metadata.database import Database
from trainflow.metadata.queries import service_queries
from trainflow.pages.lazy_application import LOGIN, OPEN_PATHS, PATHS, LazyPages
from trainflow.settings.model import Settings
from trainflow.settings.project import Project
from trainflow.workspace.workspace import Workspace

if TYPE_CHECKING:
    from trainflow.insight.metrics.metrics import Metrics


class WebServer:
    """Answers what was passed on. `database`: closed by who opened it. `idle_seconds`: ends by itself when it was asked
    nothing for so long."""

    def __init__(
        self,
        project: Project,
        settings: Settings,
        clock: Clock,
        database: Database,
        *,
        transfer: ConnectionTransfer,
        idle_seconds: float | None = None,
    ) -> None:
        self.workspace = Workspace(project, settings, database)
        self._clock = clock
        self.pages = LazyPages(self.workspace, clock)
        self._rest = RestApplication(self.workspace, clock, threads=settings.api.rest_threads)
        self.application = web_application(
            self._rest,
            installation=lambda: self.workspace.database.read(service_queries.installation),
            metrics=lambda: self._metrics.text(),
            pages=dict.fromkeys(PATHS, self.pages),
        )
        access = Access(self.workspace, clock, settings.api, self._rest.in_thread)
        gate = AccessMiddleware(self.application, access, settings.api, OPEN_PATHS, LOGIN, self.pages.refuse)
        root_path = settings.api.root_path
        routing = Routing(lambda path: not is_for_attempts(path, root_path), transfer)
        given = TakenConnections(transfer, functools.partial(RoutedConnection, routing))
        self._server = HttpServer(gate, WebConnection, idle_seconds=idle_seconds, taken=given)

    @cached_property
    def _metrics(self) -> Metrics:
        from trainflow.insight.metrics.metrics import Metrics

        return Metrics(self.workspace, self._clock)

    def run(self, listener: socket.socket, ready: Callable[[], object] = lambda: None) -> None:
        """Answer until `request_stop`, or until nothing was asked for long; `ready` is called when requests are
        taken."""
        allow_many_connections()
        try:
            self._server.answer_on(listener, ready)
        finally:
            self.pages.close()
            self._rest.close()

    def request_stop(self) -> None:
        """Stop in good order. Fit for a signal handler and for any thread."""
        # a page that is open would keep its stream for as long as one may wait
        self.pages.close()
        self._server.request_stop()
