"""How long a database and its clients may be silent before the other side counts them as lost.

A host that loses its power, or the network to it, does not hang up: an answer would be waited for without end. So the
kernel asks the other one (TCP keepalive), which answers for as long as it lives, however long a statement takes. What
is lost is an outage like any other.

A client that stands still inside a transaction (stopped, swapped out, cut off) holds its locks, and all others would
wait for it: the server ends a transaction that is idle for as long as a part of the control plane may be silent. It is
done again when its client goes on, and then it sees what others have done meanwhile.
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


_IDLE_TRANSACTION = "idle_in_transaction_session_timeout"


def postgres_options(given: Mapping[str, Any], idle_seconds: float) -> dict[str, Any]:
    """Options of a connection to PostgreSQL, but for those that are `given`, in the URL. `idle_seconds`: how long a
    transaction may stand still."""
    options: dict[str, Any] = {name: value for name, value in _LIBPQ.items() if name not in given}
    of_server = str(given.get("options", ""))
    if _IDLE_TRANSACTION not in of_server:
        options["options"] = f"{of_server} -c {_IDLE_TRANSACTION}={int(idle_seconds * 1000)}".strip()
    return options


def limit_idle_mysql(connection: Any, idle_seconds: float) -> None:
    """The same for a new connection of PyMySQL's. MySQL knows no such limit: what is idle there is disconnected,
    whether in a transaction or not, and connects again."""
    variable = "idle_transaction_timeout" if "MariaDB" in connection.get_server_info() else "wait_timeout"
    with connection.cursor() as cursor:
        cursor.execute(f"SET SESSION {variable} = {max(1, round(idle_seconds))}")


def watch_mysql(connection: Any, _record: Any = None) -> None:
    """Have the host of a new connection of PyMySQL's asked, which has no option for that."""
    line: socket.socket | None = getattr(connection, "_sock", None)
    if line is None or line.family not in (socket.AF_INET, socket.AF_INET6):
        return
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _SOCKET.items():
        if hasattr(socket, name):
            line.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
