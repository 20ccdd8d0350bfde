"""How long the host of a database may be silent before its connections count as lost.

A host that loses its power, or the network to it, does not hang up: an answer would be waited for without end. So the
kernel asks the other one (TCP keepalive), which answers for as long as it lives, however long a statement takes. What
is lost is an outage like any other.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

#: a host that says nothing for `_IDLE` seconds is asked so often, with so many seconds in between: a minute altogether
_IDLE, _INTERVAL, _COUNT = 30, 10, 3
SILENT_SECONDS = _IDLE + _INTERVAL * _COUNT
#: so long a new connection may take
CONNECT_SECONDS = 10
#: the same, as libpq calls it
_LIBPQ = {
    "connect_timeout": CONNECT_SECONDS,
    "keepalives": 1,
    "keepalives_idle": _IDLE,
    "keepalives_interval": _INTERVAL,
    "keepalives_count": _COUNT,
    "tcp_user_timeout": SILENT_SECONDS * 1000,
}
#: the same, as sockets call it, where the system has it
_SOCKET = {
    "TCP_KEEPIDLE": _IDLE,
    "TCP_KEEPALIVE": _IDLE,
    "TCP_KEEPINTVL": _INTERVAL,
    "TCP_KEEPCNT": _COUNT,
    "TCP_USER_TIMEOUT": SILENT_SECONDS * 1000,
}


def postgres_options(given: Mapping[str, Any]) -> dict[str, int]:
    """Options of a connection to PostgreSQL, but for those that are `given`, in the URL."""
    return {name: value for name, value in _LIBPQ.items() if name not in given}


def watch_mysql(connection: Any, _record: Any = None) -> None:
    """Have the host of a new connection of PyMySQL's asked, which has no option for that."""
    line: socket.socket | None = getattr(connection, "_sock", None)
    if line is None or line.family not in (socket.AF_INET, socket.AF_INET6):
        return
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _SOCKET.items():
        if hasattr(socket, name):
            line.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
