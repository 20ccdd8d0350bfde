"""The server of the port: it accepts every connection, answers attempts, and passes on what others ask.

What people ask may take long, and as much of a processor as there is: it is answered by another process, so an
attempt's heartbeat waits for neither.
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainflow.api.application import attempts_application, is_for_attempts
from trainflow.api.connection_limits import allow_many_connections
from trainflow.api.connection_transfer import ConnectionTransfer
from trainflow.api.execution import ExecutionApplication
from trainflow.api.forwarded_headers import TrustedProxies
from trainflow.api.http_server import HttpServer, TakenConnections
from trainflow.api.routed_connection import RoutedConnection, Routing
from trainflow.api.scheduler_line import SchedulerLine
from trainflow.api.server_lease import ServerLease
from trainflow.api.worker_rows import WorkerApplication
from trainflow.clock import Clock
from trainflow.messages.http_protocol import OPERATIONS, PREFIX
from trainflow.metadata.applied_change import AppliedChange
from trainflow.metadata.change_notices import ChangeNotices
from trainflow.metadata.database import Database
from trainflow.metadata.execution_service import ExecutionService
from trainflow.metadata.queries.dag_queries import Versions
from trainflow.settings.model import Settings
from trainflow.settings.project import Project

if TYPE_CHECKING:
    from trainflow.engine.log_uploads import LogUploads


class ExecutionServer:
    """Answers attempts over HTTP. `database`: closed by who opened it. `sends_logs`: no engine of this home sends the
    logs that attempts on other hosts hand in here."""

    def __init__(
        self,
        project: Project,
        settings: Settings,
        clock: Clock,
        database: Database,
        *,
        web_server: Path,
        transfer: ConnectionTransfer,
        sends_logs: bool = False,
        **tls: Any,
    ) -> None:
        """`web_server`: the socket of that one; `transfer`: to it."""
        self._database = database
        self._line = SchedulerLine(project.home.socket_path)
        service = ExecutionService(
            self._database,
            clock,
            Versions(),
            lost_attempts=settings.engine.lost_attempts,
            on_change=self._teller(),
        )
        self.lease = ServerLease(self._database, clock, settings.engine)
        self._log_uploads: LogUploads | None = None
        if sends_logs and settings.logs.url is not None:
            from trainflow.engine.log_uploads import LogUploads  # with what opens stores

            self._log_uploads = LogUploads(project.home, project.root, settings.logs, self._database, clock)
        api = settings.api
        self._execution = ExecutionApplication(
            service,
            self._database,
            project.home,
            threads=api.execution_threads,
            log_limits=settings.logging,
            installation=lambda: self.lease.installation,
        )
        workers = WorkerApplication(self._execution, self._database, clock, (settings.workers.token, api.token))
        application = attempts_application(self._execution, workers, self.lease, api.root_path)
        paths = {
            f"{root}{PREFIX}/{each.name}".encode(): each.name for root in ("", api.root_path) for each in OPERATIONS
        }
        routing = Routing(
            lambda path: is_for_attempts(path, api.root_path),
            transfer,
            web_server,
            TrustedProxies(api.trusted_proxies).includes,
            paths,
            self._execution.answer,
        )
        connections = functools.partial(RoutedConnection, routing)
        self._server = HttpServer(application, connections, taken=TakenConnections(transfer, connections), **tls)

    def _teller(self) -> Callable[[AppliedChange], None]:
        notices = ChangeNotices(self._database) if ChangeNotices.are_told(self._database) else None

        def tell(change: AppliedChange) -> None:
            if not self._line.tell(change) and notices is not None:
                # no engine is in this home: any other one decides what follows
                notices.tell(change)

        return tell

    def run(self, listener: socket.socket, ready: Callable[[], object] = lambda: None) -> None:
        """Answer until `request_stop`; `ready` is called when requests are taken."""
        allow_many_connections()
        try:
            self.lease.begin()
            if self._log_uploads is not None:
                self._log_uploads.begin()
            self._server.answer_on(listener, ready)
            self.lease.end()
        finally:
            self._execution.close()
            if self._log_uploads is not None:
                self._log_uploads.close()
            self._line.close()

    def request_stop(self) -> None:
        """Stop in good order. Fit for a signal handler and for any thread."""
        self._server.request_stop()
