"""Where an API server is, and connections to it, which are kept for the next request."""

from __future__ import annotations

import http.client
import ssl
import threading
from urllib.parse import urlsplit

from trainflow.errors import InputError
from trainflow.messages.http_protocol import PREFIX

#: connections that are kept while none asks: what was needed at once when many attempts asked is not kept for ever
_MOST_KEPT = 8


class ApiAddress:
    """The address of the execution API of a server. Fit for several threads."""

    def __init__(self, url: str, ca_file: str | None = None) -> None:
        """`ca_file`: the authorities to believe, in PEM; None: those of the system. Raises InputError for a URL that is
        none."""
        self.url = url
        parts = urlsplit(url)
        try:
            self._port = parts.port
        except ValueError as error:
            raise InputError(f"the address of the API server, '{url}', cannot be used: {error}") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"the address of the API server, '{url}', does not begin with http:// or https://")
        self._host = parts.hostname
        self._path = parts.path.rstrip("/") + PREFIX
        try:
            self._tls = ssl.create_default_context(cafile=ca_file) if parts.scheme == "https" else None
        except (OSError, ssl.SSLError) as error:
            raise InputError(f"api.tls_ca: {ca_file} cannot be used: {error}") from None
        self._kept: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()

    def path_of(self, operation: str) -> str:
        """Where an operation is posted."""
        return f"{self._path}/{operation}"

    def connection(self, answer_seconds: float) -> http.client.HTTPConnection:
        """A new connection. `answer_seconds`: how long one answer is waited for."""
        if self._tls is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=answer_seconds)
        return http.client.HTTPSConnection(self._host, self._port, timeout=answer_seconds, context=self._tls)

    def take(self) -> http.client.HTTPConnection | None:
        """A connection that was kept, which the server may have closed meanwhile; None: there is none."""
        with self._lock:
            return self._kept.pop() if self._kept else None

    def keep(self, connection: http.client.HTTPConnection) -> None:
        """Keep a connection whose last answer was read, for the next request."""
        with self._lock:
            if len(self._kept) < _MOST_KEPT:
                self._kept.append(connection)
                return
        connection.close()

    def hang_up(self) -> None:
        """Close what is kept; a later request connects again."""
        with self._lock:
            kept, self._kept = self._kept, []
        for connection in kept:
            connection.close()
