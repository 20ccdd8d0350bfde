"""A proxy in front of a local server, that counts the requests to it and their bytes, and answers late if it is told
to: a store in the same data centre answers after some 20 ms."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO


class CountingProxy:
    """HTTP/1.1 to one server. `counts`: requests by method and status."""

    def __init__(self, host: str, port: int) -> None:
        self._server = host, port
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = int(self._listener.getsockname()[1])
        self.delay_seconds = 0.0
        self.clear()
        threading.Thread(target=self._accept, daemon=True).start()

    def clear(self) -> None:
        """Count from nothing."""
        self.counts: Counter[tuple[str, str]] = Counter()
        self.bytes = 0

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError, EOFError), client, socket.create_connection(self._server) as server:
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            asked, answered = client.makefile("rb"), server.makefile("rb")
            while True:
                head = _head(asked)
                method = head.split(b" ", 1)[0].decode()
                sent = _body(asked, head, has_one=b"content-length" in head.lower() or b"chunked" in head.lower())
                time.sleep(self.delay_seconds)
                server.sendall(head + sent)
                answer = _head(answered)
                status = answer.split(b" ", 2)[1].decode()
                received = _body(answered, answer, has_one=method != "HEAD" and status not in ("204", "304"))
                client.sendall(answer + received)
                self.counts[method, status] += 1
                self.bytes += len(sent) + len(received)


def _head(file: IO[bytes]) -> bytes:
    lines = [file.readline()]
    while lines[-1] not in (b"\r\n", b""):
        lines.append(file.readline())
    if lines[-1] == b"":
        raise EOFError
    return b"".join(lines)


def _body(file: IO[bytes], head: bytes, *, has_one: bool) -> bytes:
    if not has_one:
        return b""
    headers = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:] if b":" in line)
    if b"chunked" in headers.get(b"transfer-encoding", b""):
        return b"".join(_chunks(file))
    length = headers.get(b"content-length")
    return b"" if length is None else file.read(int(length)) or b""


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while True:
        size = file.readline()
        yield size
        yield file.read(int(size, 16) + 2) or b""
        if int(size, 16) == 0:
            return


@contextmanager
def proxied(endpoint: str) -> Iterator[CountingProxy]:
    """A proxy in front of `http://host:port`."""
    host, _, port = endpoint.removeprefix("http://").partition(":")
    proxy = CountingProxy(host, int(port))
    try:
        yield proxy
    finally:
        proxy.close()
