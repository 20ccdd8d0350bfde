"""One connection of the control plane: frames in and out without ever blocking the reactor."""

from __future__ import annotations

import socket
from collections.abc import Callable

from trainflow.errors import ProtocolError
from trainflow.executors.reactor import Reactor
from trainflow.messages.frames import FrameReader, pack


class Peer:
    """A non-blocking socket that speaks frames."""

    def __init__(
        self,
        reactor: Reactor,
        connection: socket.socket,
        *,
        on_message: Callable[[bytes], None],
        on_close: Callable[[], None],
    ) -> None:
        connection.setblocking(False)
        self._reactor = reactor
        self._connection = connection
        self._frames = FrameReader()
        self._pending = bytearray()
        self._on_message = on_message
        self._on_close = on_close
        self.closed = False
        reactor.watch(connection, self._readable)

    def send(self, payload: bytes) -> None:
        """Send one frame; what the kernel does not take now goes out later. Nothing happens when it is closed."""
        if self.closed:
            return
        self._pending += pack(payload)
        self._flush()

    def send_with_descriptor(self, payload: bytes, descriptor: int) -> None:
        """Send one (small) frame with an open file descriptor. Nothing happens when it is closed, or found to be."""
        if self.closed:
            return
        frame = pack(payload)
        if self._pending:
            raise ProtocolError("cannot pass a descriptor behind unsent bytes")
        try:
            sent = socket.send_fds(self._connection, [frame], [descriptor])
        except BlockingIOError:
            raise ProtocolError("cannot pass a descriptor behind bytes that were not read") from None
        except OSError:
            self.close()
            return
        self._pending += frame[sent:]
        self._flush()

    def _flush(self) -> None:
        try:
            while self._pending:
                sent = self._connection.send(self._pending)
                del self._pending[:sent]
        except BlockingIOError:
            self._reactor.watch(self._connection, self._readable, self._flush)
            return
        except OSError:
            self.close()
            return
        self._reactor.watch(self._connection, self._readable)

    def _readable(self) -> None:
        try:
            data = self._connection.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        try:
            for message in self._frames.feed(data):
                self._on_message(message)
                if self.closed:
                    return
        except ProtocolError:
            self.close()

    def hang_up(self) -> None:
        """Close without saying so: the owner knows."""
        self._on_close = lambda: None
        self.close()

    def close(self) -> None:
        """Close, and say so once."""
        if self.closed:
            return
        self.closed = True
        self._reactor.unwatch(self._connection)
        self._connection.close()
        self._on_close()
