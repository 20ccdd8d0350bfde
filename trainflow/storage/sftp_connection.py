"""A connection to an SFTP server: one a process, made when it is first needed, and made again when it is lost.

Options are those of fsspec's file system (`username`, `password`, `key_filename`, `port`, …) and of `asyncssh.connect`.
A server is only trusted with a host key that is known: fsspec's own driver takes any.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from inspect import signature
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import asyncssh
from fsspec.asyn import get_loop, sync

from trainflow.errors import InputError
from trainflow.identifiers import did_you_mean

T = TypeVar("T")
#: a server that says nothing for three times as long is lost
_KEEPALIVE_SECONDS = 15
#: what was asked may have been done, or not
LOST = (asyncssh.ConnectionLost, asyncssh.DisconnectError, asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection)
#: options of fsspec's driver, and of `asyncssh.connect`, that take more
_USUAL = (
    "username",
    "password",
    "port",
    "key_filename",
    "client_keys",
    "passphrase",
    "known_hosts",
    "host_key_policy",
    "connect_timeout",
    "keepalive_interval",
)


class SFTPConnection:
    """The connection that a URL and options name. Raises what asyncssh raises, InputError for an unknown option."""

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self._words = {"keepalive_interval": _KEEPALIVE_SECONDS, **_of_url(url), **_of_options(options)}
        #: the same for the same server and user
        self.identity = repr(sorted(self._words.items(), key=str))
        self._process = 0
        self._connecting = asyncio.Lock()
        self._connection: Any = None
        self._client: Any = None

    def call(self, ask: Callable[[Any], Awaitable[T]], *, again: bool = True) -> T:
        """What `ask` answers of the client. Where the connection was lost it is asked again, once; where that is not to
        be, only when nothing was sent."""
        if self._process != os.getpid():  # a connection is of the process that made it
            self._process, self._client, self._connecting = os.getpid(), None, asyncio.Lock()
        found: T = sync(get_loop(), self._call, ask, again)
        return found

    def close(self) -> None:
        """End it; the next call makes another."""
        if self._client is not None and self._process == os.getpid():
            sync(get_loop(), self._close)

    async def _close(self) -> None:
        client, self._client = self._client, None
        client.exit()
        self._connection.close()
        await self._connection.wait_closed()

    async def _call(self, ask: Callable[[Any], Awaitable[T]], again: bool) -> T:
        client = await self._connected()
        try:
            return await ask(client)
        except LOST as error:
            if self._client is client:
                self._client = None
            if not again and not isinstance(error, asyncssh.SFTPNoConnection):
                raise
        return await ask(await self._connected())

    async def _connected(self) -> Any:
        async with self._connecting:
            if self._client is None:
                self._connection = await asyncssh.connect(**self._words)
                self._client = await self._connection.start_sftp_client()
        return self._client


_CONNECTIONS: dict[str, SFTPConnection] = {}


def connection_to(url: str, options: Mapping[str, Any]) -> SFTPConnection:
    """The connection of this process to a server, as this user: one for all folders."""
    new = SFTPConnection(url, options)
    return _CONNECTIONS.setdefault(new.identity, new)


def _of_url(url: str) -> dict[str, Any]:
    found = urlsplit(url)
    who = {name: unquote(value) for name in ("username", "password") if (value := getattr(found, name))}
    return {"host": found.hostname, **who, **({"port": found.port} if found.port else {})}


def _of_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of fsspec's driver as those of asyncssh. `known_hosts: null`, or a `host_key_policy` other than "reject":
    any host key is taken."""
    words = dict(options)
    keys = words.pop("key_filename", None)
    if keys is not None:
        words["client_keys"] = keys
    if words.pop("host_key_policy", "reject") != "reject":
        words["known_hosts"] = None
    known = signature(asyncssh.SSHClientConnectionOptions.prepare).parameters.keys() | {"host", "port"}
    unknown = sorted(words.keys() - known)
    if unknown:
        meant = did_you_mean(unknown[0], _USUAL, "usual are")
        raise InputError(f"an SFTP store has no storage option {unknown[0]!r}{meant}")
    return words
