"""Connections that change hands between the two processes of the port: the descriptor itself, with what was read of it.

Who has a connection reads its requests and answers them without the other one. What is not plain, and what a proxy
sends, stays with the process that accepts: a proxy mixes what attempts and people ask, and an attempt is not to wait
for the process that people keep busy.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

#: bytes that may have been read of what changes hands: a line between processes takes no more at once
MOST_BYTES = 64 * 1024
#: descriptors in a message
_DESCRIPTORS = 1


class ConnectionTransfer:
    """An end of the line between the two: what one gives the other takes, later if it is not there now."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line

    def give(self, connection: int, data: bytes) -> bool:
        """Give a descriptor away, and what was read of it, which is not empty. The copy here is still to be closed.
        False: the other one takes nothing now, or not so much."""
        if len(data) > MOST_BYTES:
            return False
        try:
            return socket.send_fds(self._line, [data], [connection]) == len(data)
        except OSError:
            return False

    def take_on(self, loop: asyncio.AbstractEventLoop, taken: Callable[[socket.socket, bytes], object]) -> None:
        """Have `taken` called with each connection that is given from now on."""
        loop.add_reader(self._line.fileno(), self._take, loop, taken)

    def take_no_more(self, loop: asyncio.AbstractEventLoop) -> None:
        """Leave what is given from now on to the process that is started next."""
        loop.remove_reader(self._line.fileno())

    def _take(self, loop: asyncio.AbstractEventLoop, taken: Callable[[socket.socket, bytes], object]) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._line, MOST_BYTES, _DESCRIPTORS)
        except BlockingIOError:
            return
        if not data:
            # the other process has ended, and the one that starts it again as well
            self.take_no_more(loop)
        for descriptor in descriptors:
            connection = socket.socket(fileno=descriptor)
            connection.setblocking(False)
            taken(connection, data)


def line_between() -> tuple[socket.socket, socket.socket]:
    """The two ends of a line. A message on it is whole, or not there."""
    ends = None
    # systems without the first know the second
    for kind in (socket.SOCK_SEQPACKET, socket.SOCK_DGRAM):
        with contextlib.suppress(OSError):
            ends = socket.socketpair(socket.AF_UNIX, kind)
            break
    assert ends is not None, "this system has no sockets between processes"
    for end in ends:
        end.setblocking(False)
    return ends
