"""A real HTTP server that takes notifications, or does not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from tests.support.http_servers import serving

#: what a webhook's path often is
SECRET = "T0K3N-s3cr3t"


class Receiver:
    """`messages` it has taken; it answers the next requests with `refuse`'s codes first, then 200."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/services/{SECRET}"
        self.messages: list[dict[str, Any]] = []
        self.types: list[str | None] = []
        self.refuse: list[int] = []

    @property
    def events(self) -> list[str]:
        """The events of the messages."""
        return [message["event"] for message in self.messages]


@contextmanager
def webhook() -> Iterator[Receiver]:
    """A receiver on a port of its own, in a thread."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            code = receiver.refuse.pop(0) if receiver.refuse else 200
            if code == 200:
                receiver.types.append(self.headers["Content-Type"])
                receiver.messages.append(json.loads(body))
            self.send_response(code)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            return None

    server = HTTPServer(("127.0.0.1", 0), Handler)
    receiver = Receiver(server.server_port)
    with serving(server):
        yield receiver
