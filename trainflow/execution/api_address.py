"""Where an API server is, and connections to it."""

from __future__ import annotations

import http.client
import ssl
from urllib.parse import urlsplit

from trainflow.errors import InputError
from trainflow.messages.http_protocol import PREFIX


class ApiAddress:
    """The address of the execution API of a server."""

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

    def path_of(self, operation: str) -> str:
        """Where an operation is posted."""
        return f"{self._path}/{operation}"

    def connection(self, answer_seconds: float) -> http.client.HTTPConnection:
        """A new connection. `answer_seconds`: how long one answer is waited for."""
        if self._tls is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=answer_seconds)
        return http.client.HTTPSConnection(self._host, self._port, timeout=answer_seconds, context=self._tls)
