"""Cut a byte stream into messages: 4 bytes of length (big-endian), then that many bytes of JSON."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

from trainflow.errors import ProtocolError

MAX_FRAME_BYTES = 256 * 1024 * 1024
_HEADER = struct.Struct("!I")


def pack(payload: bytes) -> bytes:
    """The frame of one message. Raises ProtocolError when it is too large to be one."""
    if len(payload) > MAX_FRAME_BYTES:
        raise ProtocolError(f"a message of {len(payload)} bytes is larger than {MAX_FRAME_BYTES}")
    return _HEADER.pack(len(payload)) + payload


class FrameReader:
    """Collect bytes as they come, give back whole messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Add `data`; yield every message that is complete. Raises ProtocolError on an impossible length."""
        self._buffer += data
        while len(self._buffer) >= _HEADER.size:
            (length,) = _HEADER.unpack_from(self._buffer)
            if length > MAX_FRAME_BYTES:
                raise ProtocolError(f"a frame claims {length} bytes: the stream is not ours or is torn")
            end = _HEADER.size + length
            if len(self._buffer) < end:
                return
            payload = bytes(self._buffer[_HEADER.size : end])
            del self._buffer[:end]
            yield payload


def send(connection: socket.socket, payload: bytes) -> None:
    """Write one frame; blocks until it is handed to the kernel."""
    connection.sendall(pack(payload))


def receive(connection: socket.socket, *, most_bytes: int = MAX_FRAME_BYTES) -> bytes | None:
    """Read one frame; None when the peer closed between frames. Raises ProtocolError when it closed inside one, or one
    is larger than `most_bytes`."""
    header = _read_exactly(connection, _HEADER.size, may_end=True)
    if header is None:
        return None
    (length,) = _HEADER.unpack(header)
    if length > most_bytes:
        raise ProtocolError(f"a frame claims {length} bytes: the stream is not ours or is torn")
    return _read_exactly(connection, length, may_end=False)


def _read_exactly(connection: socket.socket, count: int, *, may_end: bool) -> bytes | None:
    data = bytearray()
    while len(data) < count:
        chunk = connection.recv(min(count - len(data), 1 << 20))
        if not chunk:
            if may_end and not data:
                return None
            raise ProtocolError("the peer closed the connection inside a frame")
        data += chunk
    return bytes(data)
