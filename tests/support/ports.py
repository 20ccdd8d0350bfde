"""Ports for servers that are told which to take."""

from __future__ import annotations

import itertools
import os
import socket

#: below those that the kernel gives to connections and to what binds port 0: there a port that was free a moment ago is
#: taken by anything
_FIRST, _END = 15_000, 30_000
_NEXT = itertools.count(os.getpid() * 101)
#: of the UDP ports of the same numbers, which nothing else uses: other workers of a test run pass by what is held
_HELD: list[socket.socket] = []


def free_port() -> int:
    """A port of this machine that is not listened on, and that no other process gets from here while this one runs.
    Raises OSError where there is none."""
    for number in itertools.islice(_NEXT, _END - _FIRST):
        port = _FIRST + number % (_END - _FIRST)
        if _hold(port) and _is_free(port):
            return port
    raise OSError(f"no port from {_FIRST} to {_END - 1} is free")


def _hold(port: int) -> bool:
    holder = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        holder.bind(("127.0.0.1", port))
    except OSError:
        holder.close()
        return False
    _HELD.append(holder)
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
