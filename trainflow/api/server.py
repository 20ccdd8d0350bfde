"""The API server as a process: its socket, TLS, database and life."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from trainflow.api.application import compose
from trainflow.api.authentication import Access
from trainflow.api.connections import BoundedConnection, allow_many_connections
from trainflow.api.execution import ExecutionApplication
from trainflow.api.gate import AccessGate
from trainflow.api.presence import Presence
from trainflow.api.rest.all_endpoints import ENDPOINTS
from trainflow.api.rest.application import RestApplication
from trainflow.api.scheduler_line import SchedulerLine
from trainflow.api.workers import WorkerApplication
from trainflow.clock import Clock
from trainflow.engine.log_uploads import LogUploads
from trainflow.errors import SettingsError
from trainflow.insight.metrics.metrics import Metrics
from trainflow.messages.http_protocol import PREFIX as EXECUTION_PREFIX
from trainflow.metadata import schema
from trainflow.metadata.applied_change import AppliedChange
from trainflow.metadata.change_notices import ChangeNotices
from trainflow.metadata.database import Database
from trainflow.metadata.execution_service import ExecutionService
from trainflow.metadata.queries.dag_queries import Versions
from trainflow.pages.lazy import LOGIN, OPEN_PATHS, PATHS, LazyPages
from trainflow.settings.api_address import is_loopback
from trainflow.settings.model import ApiSettings, Settings
from trainflow.settings.project import Project
from trainflow.workspace.workspace import Workspace

log = logging.getLogger(__name__)

#: how long a request waits for a database that is away, before its worker is told to come again
_PATIENCE_SECONDS = 2.0
#: how long requests that are being answered may take when the server ends
_LAST_SECONDS = 5
#: how long a connection that says nothing is kept: longer than the pause between two heartbeats
_KEEP_ALIVE_SECONDS = 75


class ApiServer:
    """The applications on one socket, and what they stand on."""

    def __init__(
        self,
        project: Project,
        settings: Settings,
        clock: Clock,
        listener: socket.socket,
        *,
        sends_logs: bool = False,
    ) -> None:
        """`sends_logs`: no engine of this home sends the logs that attempts on other hosts hand in here."""
        self._listener = listener
        line = self._line = SchedulerLine(project.home.socket_path)
        self._database = Database.of(project.home, settings)
        self._database.patience_seconds = _PATIENCE_SECONDS
        notices = ChangeNotices(self._database) if ChangeNotices.are_told(self._database) else None

        def tell(change: AppliedChange) -> None:
            if not line.tell(change) and notices is not None:
                # no engine is in this home: any other one decides what follows
                notices.tell(change)

        service = ExecutionService(
            self._database,
            clock,
            Versions(),
            lost_attempts=settings.engine.lost_attempts,
            on_change=tell,
        )
        self._presence = Presence(self._database, clock, settings.engine)
        self._log_uploads: LogUploads | None = None
        if sends_logs and settings.logs.url is not None:
            self._log_uploads = LogUploads(project.home, project.root, settings.logs, self._database, clock)
        self._execution = ExecutionApplication(
            service, self._database, project.home, threads=settings.api.execution_threads
        )
        self._workspace = Workspace(project, settings, _own_database(project, settings))
        metrics = Metrics(self._workspace, clock)
        self._pages = LazyPages(self._workspace, clock)
        self._rest = RestApplication(
            self._workspace,
            clock,
            ENDPOINTS,
            threads=settings.api.rest_threads,
            yields_to=lambda: self._execution.is_busy,
        )
        application = compose(
            self._execution,
            self._rest,
            self._presence,
            workers=WorkerApplication(
                self._execution, self._database, clock, (settings.workers.token, settings.api.token)
            ),
            metrics=metrics.text,
            pages=dict.fromkeys(PATHS, self._pages),
        )
        access = Access(self._workspace, clock, settings.api, self._rest.in_thread)
        gate = AccessGate(application, access, settings.api, EXECUTION_PREFIX, OPEN_PATHS, LOGIN)
        self._server = _Server(_configuration(gate, settings.api, project.root))

    def run(self, ready: Callable[[], object] = lambda: None) -> None:
        """Answer until SIGINT or SIGTERM; `ready` is called when requests are taken."""
        allow_many_connections()
        try:
            schema.ensure_schema(self._database)
            self._presence.begin()
            if self._log_uploads is not None:
                self._log_uploads.begin()
            self._server.ready = ready
            asyncio.run(self._server.serve([self._listener]))
            self._presence.end()
        finally:
            self._pages.close()
            self._execution.close()
            if self._log_uploads is not None:
                self._log_uploads.close()
            self._rest.close()
            self._workspace.close()
            self._line.close()
            self._database.close()

    def request_stop(self) -> None:
        """Stop in good order. Fit for a signal handler and for any thread."""
        # a page that is open would keep its stream for as long as one may wait
        self._pages.close()
        self._server.request_stop()


def _own_database(project: Project, settings: Settings) -> Database:
    """Connections that attempts do not wait for."""
    database = Database.of(project.home, settings)
    database.patience_seconds = _PATIENCE_SECONDS
    return database


def _configuration(application: Any, api: ApiSettings, root: Path) -> uvicorn.Config:
    files: dict[str, Any] = {}
    if api.tls_cert is not None and api.tls_key is not None:
        files = {"ssl_certfile": str(root / api.tls_cert), "ssl_keyfile": str(root / api.tls_key)}
        _check_tls(**files)
    elif not is_loopback(api.host):
        log.warning("tokens travel unencrypted: set api.tls_cert and api.tls_key, or put a proxy with TLS before it")
    config = uvicorn.Config(
        application,
        loop="asyncio",
        http=BoundedConnection,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_LAST_SECONDS,
        **files,
    )
    # one line for each request that is refused is written where it is refused
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    return config


def _check_tls(ssl_certfile: str, ssl_keyfile: str) -> None:
    for key, path in (("tls_cert", ssl_certfile), ("tls_key", ssl_keyfile)):
        if not Path(path).is_file():
            raise SettingsError(f"api.{key}: there is no file {path}")
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(ssl_certfile, ssl_keyfile)
    except (ssl.SSLError, OSError) as error:
        raise SettingsError(f"api.tls_cert and api.tls_key: {ssl_certfile} and {ssl_keyfile}: {error}") from None


class _Server(uvicorn.Server):
    """Waits for the end without looking ten times a second whether it has come, and leaves signals to others."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready: Callable[[], object] = lambda: None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end = asyncio.Event()

    async def main_loop(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.ready()
        if not self.should_exit:
            await self._end.wait()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def request_stop(self) -> None:
        """End, from any thread."""
        self.should_exit = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._end.set)


@contextmanager
def stopping(server: ApiServer) -> Iterator[None]:
    """Have SIGINT and SIGTERM end a server inside."""
    with ExitStack() as stack:
        for number in (signal.SIGINT, signal.SIGTERM):
            before = signal.signal(number, lambda _number, _frame: server.request_stop())
            stack.callback(signal.signal, number, before)
        yield
