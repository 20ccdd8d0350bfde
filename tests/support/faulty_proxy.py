"""A proxy between a worker and an API server that does to HTTP messages what a network does: by seed, it cuts them,
doubles them, holds them back until later ones have passed, answers in the place of a server that is away, and sends old
ones again."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from collections import Counter

from trainflow.testing.processes import DEADLINE_SECONDS

_AWAY = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 4\r\nContent-Type: text/html\r\n\r\n<p/>"
_BUSY = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n"
#: of so many messages one is disturbed in some way
_KINDS = ("lost", "unheard", "cut", "doubled", "late", "again", "away", "busy")


class FaultyProxy:
    """Listens on a port of its own; `disturbs` False: hands everything on as it is."""

    def __init__(self, upstream: int, seed: int, *, disturbs: bool = True, share: float = 0.5) -> None:
        self._upstream = upstream
        self._random = random.Random(seed)
        self._disturbs = disturbs
        self._share = share
        self._lock = threading.Lock()
        self._seen: list[bytes] = []
        self._late: list[bytes] = []
        #: how often each disturbance happened
        self.done: Counter[str] = Counter()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads: list[threading.Thread] = []
        self._begin(self._accept)

    def _begin(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._begin(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError, EOFError):
            while True:
                # one at a time, in the order of its choices: the same seed is the same history
                request = _message(connection)
                with self._lock:
                    answer = self._dealt_with(request)
                connection.sendall(answer)
                if len(answer) < _length(answer):
                    return

    def _dealt_with(self, request: bytes) -> bytes:
        """The bytes that the worker gets; after what is not whole the connection breaks."""
        self._release()
        self._seen.append(request)
        if not self._disturbs or self._random.random() > self._share:
            return self._asked(request)
        kind = self._random.choice(_KINDS)
        self.done[kind] += 1
        match kind:
            case "lost":
                return b""
            case "unheard":
                self._asked(request)
                return b""
            case "cut":
                answer = self._asked(request)
                return answer[: self._random.randrange(1, len(answer))]
            case "doubled":
                self._asked(request)
                return self._asked(request)
            case "late":
                self._late.append(request)
                return b""
            case "again":
                self._asked(self._random.choice(self._seen))
                return self._asked(request)
            case "away":
                return _AWAY
        return _BUSY

    def _release(self) -> None:
        """Let pass what was held back, some of it, in any order."""
        for request in [each for each in self._late if self._random.random() < 0.3]:
            self._late.remove(request)
            self._asked(request)

    def _asked(self, request: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self._upstream), timeout=DEADLINE_SECONDS) as connection:
            connection.sendall(request)
            return _message(connection)

    def close(self) -> None:
        """Send what is still held back, and listen no more."""
        with self._lock:
            for request in self._late:
                self._asked(request)
            self._late.clear()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def _message(connection: socket.socket) -> bytes:
    """One request or answer, whole. Raises EOFError where the peer hangs up."""
    data = b""
    while len(data) < _length(data):
        received = connection.recv(1 << 16)
        if not received:
            raise EOFError
        data += received
    return data


def _length(data: bytes) -> int:
    """The bytes of the message that begins with these; one more than there are, where its head is not whole."""
    head, end, _ = data.partition(b"\r\n\r\n")
    if not end:
        return len(data) + 1
    fields = [line.partition(b":") for line in head.split(b"\r\n")[1:]]
    body = next((int(value) for name, _, value in fields if name.lower() == b"content-length"), 0)
    return len(head) + len(end) + body


class Partition:
    """A proxy that can be cut, for all or for one: then what is sent is lost, and nothing comes back."""

    def __init__(self, upstream: int) -> None:
        self._upstream = upstream
        #: what is in the messages that are lost; None: nothing is lost
        self._lost: bytes | None = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, attempt_id: str = "") -> None:
        """Let nothing of this attempt through, or nothing at all; what is open breaks."""
        # of another one the id may stand in what it says
        self._lost = f'"key":{{"attempt_id":"{attempt_id}"'.encode() if attempt_id else b""
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def heal(self) -> None:
        """Let everything through again."""
        self._lost = None

    def close(self) -> None:
        """Listen no more."""
        self.cut()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._open.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError, EOFError):
            while True:
                request = _message(connection)
                if self._loses(request):
                    return
                with socket.create_connection(("127.0.0.1", self._upstream), timeout=DEADLINE_SECONDS) as upstream:
                    upstream.sendall(request)
                    answer = _message(upstream)
                if self._loses(request):
                    return
                connection.sendall(answer)

    def _loses(self, request: bytes) -> bool:
        return self._lost is not None and self._lost in request
