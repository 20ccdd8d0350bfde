"""One connection of the control plane: frames in and out without ever blocking the reactor."""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Callable

from trainflow.errors import ProtocolError
from trainflow.executors.reactor import Reactor
from trainflow.messages.frames import FrameReader, pack


class FramedSocket:
    """A non-blocking socket that speaks frames."""

    def __init__(
        self,
        reactor: Reactor,
        connection: socket.socket,
        *,
        on_message: Callable[[bytes], None],
        on_close: Callable[[], None],
        takes_descriptors: bool = False,
    ) -> None:
        """`takes_descriptors`: keep those that come along with what is received (`descriptors`)."""
        connection.setblocking(False)
        self._takes_descriptors = takes_descriptors
        #: received and not taken by `on_message`, in order
        self.descriptors: deque[int] = deque()
        self._reactor = reactor
        self._connection = connection
        self._frames = FrameReader()
        #: bytes, and the descriptor that goes with the first of them
        self._outgoing: deque[tuple[memoryview, int | None]] = deque()
        self._on_message = on_message
        self._on_close = on_close
        self.closed = False
        reactor.watch(connection, self._readable)

    def send(self, payload: bytes) -> None:
        """Send one frame; what the kernel does not take now goes out later. Nothing happens when it is closed."""
        self._send(payload, None)

    def send_with_descriptor(self, payload: bytes, descriptor: int) -> None:
        """Send one frame with a copy of an open file descriptor. Nothing happens when it is closed."""
        if not self.closed:
            self._send(payload, os.dup(descriptor))

    def _send(self, payload: bytes, descriptor: int | None) -> None:
        if self.closed:
            return
        self._outgoing.append((memoryview(pack(payload)), descriptor))
        if len(self._outgoing) == 1:
            self._flush()

    def _flush(self) -> None:
        try:
            while self._outgoing:
                self._write(*self._outgoing[0])
        except BlockingIOError:
            self._reactor.watch(self._connection, self._readable, self._flush)
            return
        except OSError:
            # the other end reads no more; what was said to us before is still there, and its end will be seen
            self._drop_outgoing()
        self._reactor.watch(self._connection, self._readable)

    def _write(self, data: memoryview, descriptor: int | None) -> None:
        if descriptor is None:
            sent = self._connection.send(data)
        else:
            sent = socket.send_fds(self._connection, [data], [descriptor])
            os.close(descriptor)
        if sent < len(data):
            self._outgoing[0] = (data[sent:], None)
        else:
            self._outgoing.popleft()

    def _drop_outgoing(self) -> None:
        for _, descriptor in self._outgoing:
            if descriptor is not None:
                os.close(descriptor)
        self._outgoing.clear()

    def _readable(self) -> None:
        try:
            data = self._receive()
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

    def _receive(self) -> bytes:
        if not self._takes_descriptors:
            return self._connection.recv(1 << 18)
        data, descriptors, _, _ = socket.recv_fds(self._connection, 1 << 18, 16)
        self.descriptors += descriptors
        return data

    def hang_up(self) -> None:
        """Close without saying so: the owner knows."""
        self._on_close = lambda: None
        self.close()

    def close(self) -> None:
        """Close, and say so once."""
        if self.closed:
            return
        self.closed = True
        self._drop_outgoing()
        while self.descriptors:
            os.close(self.descriptors.popleft())
        self._reactor.unwatch(self._connection)
        self._connection.close()
        self._on_close()
