"""The API server: one port, two processes. One accepts every connection and answers attempts; the other, which is there
only while it is asked, answers people and programs (REST, pages)."""

from __future__ import annotations

import logging
import secrets
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainflow.api.connection_limits import share_processor
from trainflow.api.connection_transfer import ConnectionTransfer, line_between
from trainflow.api.execution_server import ExecutionServer
from trainflow.api.server_processes import ProcessSpec, ServerProcesses
from trainflow.bootstrap import freeze_imports
from trainflow.clock import Clock
from trainflow.errors import SettingsError
from trainflow.executors.execution_socket import private_folder
from trainflow.metadata import schema
from trainflow.metadata.database import Database
from trainflow.settings.api_address import is_loopback
from trainflow.settings.home import Home
from trainflow.settings.model import ApiSettings, Settings
from trainflow.settings.project import Project

if TYPE_CHECKING:
    from trainflow.api.web_server import WebServer

log = logging.getLogger(__name__)

#: the web server ends when it was asked nothing for so long: what it had read is not kept in memory for ever
_IDLE_SECONDS = 600.0
#: how long a request waits for a database that is away, before who asks is told to come again
PATIENCE_SECONDS = 2.0
#: connections that wait to be taken, also while the web server is started
_WAITING = 1024


class ApiServer:
    """The two servers of a project, and the sockets that they share."""

    def __init__(
        self,
        project: Project,
        settings: Settings,
        clock: Clock,
        listener: socket.socket,
        *,
        sends_logs: bool = False,
    ) -> None:
        """`sends_logs`: no engine of this home sends the logs that attempts on other hosts hand in here. Raises
        SettingsError where its certificate cannot be used."""
        self._project = project
        self._settings = settings
        self._clock = clock
        self._sends_logs = sends_logs
        self._tls = _tls_options(settings.api, project.root)
        self.listener = listener
        self.web_listener, self._web_path = _listen_for_web(project.home)
        #: between the two: the end of the one of the port, and that of the web server
        self._line = line_between()

    @cached_property
    def execution(self) -> ExecutionServer:
        """The one of the port."""
        return ExecutionServer(
            self._project,
            self._settings,
            self._clock,
            self.database,
            web_server=self._web_path,
            transfer=ConnectionTransfer(self._line[0]),
            sends_logs=self._sends_logs,
            **self._tls,
        )

    @cached_property
    def web(self) -> WebServer:
        """The one of people and programs. Imported where it runs: nothing else here needs what it needs."""
        from trainflow.api.web_server import WebServer

        return WebServer(
            self._project,
            self._settings,
            self._clock,
            self.database,
            transfer=ConnectionTransfer(self._line[1]),
            idle_seconds=_IDLE_SECONDS,
        )

    @cached_property
    def database(self) -> Database:
        """The metadata database of both: each process opens connections of its own."""
        database = Database.of(self._project.home, self._settings)
        database.patience_seconds = PATIENCE_SECONDS
        return database

    def prepare(self) -> None:
        """Have the database be there as this version needs it, and have ready what answers attempts: what is made of it
        and of its statements before this process is forked is in memory once. It has no thread and no connection then.
        Raises what the database raises."""
        try:
            schema.ensure_schema(self.database)
            self.execution.lease.rehearse()
        finally:
            self.database.close()

    def run(
        self,
        ready: Callable[[], object] = lambda: None,
        *,
        parent: int | None = None,
        is_over: Callable[[], bool] | None = None,
    ) -> bool:
        """Answer until SIGINT or SIGTERM, until the process `parent` ends, or until `is_over`, asked every two seconds,
        says so: whether it did. `ready` is called when requests are taken. To be called by a process without
        threads."""
        try:
            self.prepare()
            freeze_imports()
            specs = (
                ProcessSpec("API server", self._run_execution),
                ProcessSpec("web server", self._run_web, (self.web_listener, self._line[1])),
            )
            return ServerProcesses(specs, parent, is_over=is_over).run(ready)
        finally:
            self.close()

    def close(self) -> None:
        """Give the sockets back, and what is open of the database."""
        self.listener.close()
        self.web_listener.close()
        self._web_path.unlink(missing_ok=True)
        for end in self._line:
            end.close()
        self.database.close()

    def _run_execution(self) -> None:
        self.web_listener.close()
        self._line[1].close()
        share_processor()
        with stopping(self.execution.request_stop), closing(self.database):
            self.execution.run(self.listener)

    def _run_web(self) -> None:
        # the port is not kept by what does not answer there
        self.listener.close()
        self._line[0].close()
        share_processor()
        with stopping(self.web.request_stop), closing(self.database):
            self.web.run(self.web_listener)


def _listen_for_web(home: Home) -> tuple[socket.socket, Path]:
    """A socket for what is passed on to the web server, and its path: for this user alone."""
    path = home.web_socket_path(secrets.token_hex(4))
    private_folder(path.parent)
    for other in path.parent.glob(home.web_socket_path("*").name):
        _remove_unless_heard(other)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(_WAITING)
    return listener, path


def _remove_unless_heard(path: Path) -> None:
    """Remove the socket of a server that was killed."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking, suppress(OSError):
        asking.setblocking(False)
        try:
            asking.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)


def _tls_options(api: ApiSettings, root: Path) -> dict[str, Any]:
    if api.tls_cert is None or api.tls_key is None:
        if not is_loopback(api.host):
            log.warning(
                "tokens travel unencrypted: set api.tls_cert and api.tls_key, or put a proxy with TLS before it"
            )
        return {}
    files = {"ssl_certfile": str(root / api.tls_cert), "ssl_keyfile": str(root / api.tls_key)}
    _check_tls(**files)
    return files


def _check_tls(ssl_certfile: str, ssl_keyfile: str) -> None:
    for key, path in (("tls_cert", ssl_certfile), ("tls_key", ssl_keyfile)):
        if not Path(path).is_file():
            raise SettingsError(f"api.{key}: there is no file {path}")
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(ssl_certfile, ssl_keyfile)
    except (ssl.SSLError, OSError) as error:
        raise SettingsError(f"api.tls_cert and api.tls_key: {ssl_certfile} and {ssl_keyfile}: {error}") from None


@contextmanager
def stopping(request_stop: Callable[[], object]) -> Iterator[None]:
    """Have SIGINT and SIGTERM end a server inside."""
    with ExitStack() as stack:
        for number in (signal.SIGINT, signal.SIGTERM):
            before = signal.signal(number, lambda _number, _frame: request_stop())
            stack.callback(signal.signal, number, before)
        yield
