"""A proxy before an object store: far away, asked too much, losing replies, or without conditions."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from tests.support.http_servers import serving

SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


class StoreProxy(ThreadingHTTPServer):
    """Passes requests on to `endpoint`. What it does besides is set at any time."""

    daemon_threads = True

    def __init__(self, endpoint: str) -> None:
        self.target = urlsplit(endpoint).netloc
        #: before each answer
        self.latency_seconds = 0.0
        #: of the request with this number (from 1): whether it is refused with a wish for fewer
        self.throttles: Callable[[int], bool] = lambda number: False
        #: whether the reply to a request (method and path) is lost after it was carried out
        self.loses: Callable[[str, str], bool] = lambda method, path: False
        #: headers of requests, and words of their queries, that are not passed on
        self.drops: frozenset[str] = frozenset()
        self.asked = 0
        self._counting = threading.Lock()
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def endpoint(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_port}"

    def counted(self) -> int:
        """The number of a request."""
        with self._counting:
            self.asked += 1
            return self.asked

    def handle_error(self, request: Any, _client_address: Any) -> None:
        """Say nothing of clients that were killed."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: StoreProxy

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.server.throttles(self.server.counted()):
            self._answer(503, {"Content-Type": "application/xml"}, SLOW_DOWN)
            return
        headers = {name: value for name, value in self.headers.items() if name.lower() not in self.server.drops}
        there = http.client.HTTPConnection(self.server.target)
        try:
            there.request(self.command, self._path(), body, headers)
            found = there.getresponse()
            content = found.read()
        finally:
            there.close()
        time.sleep(self.server.latency_seconds)
        if self.server.loses(self.command, self.path):
            self.close_connection = True
            return
        self._answer(found.status, dict(found.getheaders()), content)

    def _path(self) -> str:
        path, mark, query = self.path.partition("?")
        kept = [each for each in query.split("&") if each.partition("=")[0].lower() not in self.server.drops]
        return f"{path}{mark}{'&'.join(kept)}"

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response_only(status)
        length = headers.get("Content-Length") if self.command == "HEAD" else str(len(content))
        kept = {name: value for name, value in headers.items() if name.lower() not in _OF_THE_CONNECTION}
        for name, value in {**kept, "Content-Length": length or "0"}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


_OF_THE_CONNECTION = frozenset({"connection", "transfer-encoding", "content-length", "keep-alive"})


@contextmanager
def store_proxy(endpoint: str) -> Iterator[StoreProxy]:
    """Run one before a server."""
    proxy = StoreProxy(endpoint)
    with serving(proxy):
        yield proxy
