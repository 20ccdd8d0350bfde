"""Uvicorn as this server uses it: on sockets that it is given, ended from any thread, signals left to others."""

from __future__ import annotations

import asyncio
import functools
import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from trainflow.api.connection_transfer import ConnectionTransfer
from trainflow.api.uvicorn_parts import Config, Server

#: how long requests that are being answered may take when the server ends
_LAST_SECONDS = 5
#: turns of the loop after which asyncio has made the protocol of a connection that it had accepted
_TURNS_TO_BE_MADE = 3
#: how long a connection that says nothing is kept: longer than the pause between two heartbeats
_KEEP_ALIVE_SECONDS = 75


log = logging.getLogger(__name__)


class TakenConnections(NamedTuple):
    """Connections that another process gives: `make` is called with what that one had read of each, and makes its
    protocol."""

    line: ConnectionTransfer
    make: Callable[..., Any]


class HttpServer(Server):
    """Waits for the end without looking ten times a second whether it has come. One that has an `idle_seconds` ends by
    itself when it had no connection for so long."""

    def __init__(
        self,
        application: Any,
        connections: Any,
        *,
        idle_seconds: float | None = None,
        taken: TakenConnections | None = None,
        **tls: Any,
    ) -> None:
        """`connections`: makes the protocol of each; `tls`: options of uvicorn."""
        super().__init__(_configuration(application, connections, **tls))
        self._taken = taken
        #: those that are being taken
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle_seconds = idle_seconds
        self._ready: Callable[[], object] = lambda: None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end = asyncio.Event()

    def answer_on(self, listener: socket.socket, ready: Callable[[], object]) -> None:
        """Answer until the end; `ready` is called when requests are taken."""
        self._ready = ready
        asyncio.run(self.serve([listener]))

    async def main_loop(self) -> None:
        self._loop = loop = asyncio.get_running_loop()
        if self._taken is not None:
            self._taken.line.take_on(loop, self._take)
        try:
            self._ready()
            if self.should_exit:
                return
            if self._idle_seconds is None:
                await self._end.wait()
            else:
                await self._end_or_idle(self._idle_seconds)
        finally:
            if self._taken is not None:
                self._taken.line.take_no_more(loop)

    def _take(self, connection: socket.socket, data: bytes) -> None:
        assert self._taken is not None
        options = {"config": self.config, "server_state": self.server_state, "app_state": self.lifespan.state}
        task = asyncio.ensure_future(self._begin(connection, functools.partial(self._taken.make, data, **options)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _begin(self, connection: socket.socket, make: Callable[[], Any]) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(make, connection)
        except OSError as error:
            log.info("a connection was taken that is gone: %s", error)
            connection.close()

    async def _end_or_idle(self, seconds: float) -> None:
        idle = 0
        while idle < 2:
            try:
                await asyncio.wait_for(self._end.wait(), seconds / 2)
            except TimeoutError:
                idle = 0 if self.server_state.connections else idle + 1
            else:
                return

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()
        for listener in (each for server in self.servers for each in server.sockets):
            loop.remove_reader(listener.fileno())
        # one that was just accepted becomes known: asyncio loses it when the server is closed before, and Uvicorn tells
        # those to end that are known then, and waits for the others until the last second
        for _ in range(_TURNS_TO_BE_MADE):
            await asyncio.sleep(0)
        await super().shutdown(sockets)
        # what took too long it leaves open
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def request_stop(self) -> None:
        """End, from any thread."""
        self.should_exit = True
        if self._loop is not None:
            # one that has ended meanwhile is not told
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._end.set)


def _configuration(application: Any, connections: Any, **tls: Any) -> Config:
    config = Config(
        application,
        loop="asyncio",
        http=connections,
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
        **tls,
    )
    # one line for each request that is refused is written where it is refused
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    return config
