"""Servers of HTTP in a thread of the test: those of the standard library, and WSGI applications."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

#: how often a server looks whether it is to end
_POLL_SECONDS = 0.01


class Server(Protocol):
    """What `socketserver` and werkzeug have in common."""

    def serve_forever(self, poll_interval: float) -> None:
        """Answer until `shutdown` is called."""

    def shutdown(self) -> None:
        """End that."""

    def server_close(self) -> None:
        """Listen no more."""


@contextmanager
def serving(server: Server) -> Iterator[None]:
    """Have a server answer while the block lasts."""
    thread = threading.Thread(target=server.serve_forever, args=(_POLL_SECONDS,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def serving_application(application: Any, context: ssl.SSLContext | None = None, handler: Any = None) -> Iterator[int]:
    """The port of a server of a WSGI application. `handler`: werkzeug's class of requests, or another one."""
    from werkzeug.serving import make_server

    server = make_server("127.0.0.1", 0, application, threaded=True, ssl_context=context, request_handler=handler)
    with serving(server):
        yield server.server_port
