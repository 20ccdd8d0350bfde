"""Ports that stay a server's own while it is away."""

from __future__ import annotations

import socket


class HeldPort:
    """A free port of this host, held until `release`: no other process is given it, and what connects is refused
    unless a server listens there. The server has to set SO_REUSEADDR, as those of the standard library do."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((host, 0))
        self.number: int = self._socket.getsockname()[1]

    def release(self) -> None:
        """Give it back."""
        self._socket.close()
