"""Connections to MySQL and MariaDB: how transactions begin, how large a statement may be, whether the server has hung
up.

A session is made for what writes: it begins with its first statement, and asks the server nothing before that. One that
only reads says so with one statement more.

How long a database and its clients may be silent before the other side counts them as lost.

A host that loses its power, or the network to it, does not hang up: an answer would be waited for without end. So the
kernel asks the other one (TCP keepalive), which answers for as long as it lives, however long a statement takes. What
is lost is an outage like any other.

A client that stands still inside a transaction (stopped, swapped out, cut off) holds its locks, and all others would
wait for it: the server ends a transaction that is idle for as long as a part of the control plane may be silent. It is
done again when its client goes on, and then it sees what others have done meanwhile.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Engine, event

from trainflow.errors import EngineError

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


#: of how large a statement may be, what the protocol needs
_PACKET_MARGIN = 1024
#: where a connection of the driver's keeps how large that is
_PACKET_LIMIT = "trainflow_packet_limit"
#: the error of a row that is there already
_DUPLICATE = 1062
#: a consistent view for reading, in the next transaction
READS = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"


def prepare(engine: Engine, idle_seconds: float) -> None:
    """Prepare each new connection. `idle_seconds`: how long a transaction may stand still."""
    event.listen(engine, "connect", watch_mysql)

    @event.listens_for(engine, "connect")
    def connect(connection: Any, _record: Any) -> None:
        limit_idle_mysql(connection, idle_seconds)
        with connection.cursor() as cursor:
            cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
            cursor.execute("SELECT @@max_allowed_packet")
            setattr(connection, _PACKET_LIMIT, int(cursor.fetchone()[0]))
        connection.rollback()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        statement = connection.get_execution_options().get("trainflow_begin")
        if statement:
            driver: Any = connection.connection.driver_connection
            try:
                with driver.cursor() as cursor:
                    cursor.execute(statement)
            except Exception as error:  # SQLAlchemy has no part in it, and so makes no error of its own of it
                raise EngineError(f"cannot begin a transaction: {error}") from error


def refuse_too_large(driver: Any, cursor: Any, statement: str, values: list[Any]) -> None:
    """Raise ValueError for what the server would not take: it says nothing and hangs up, as one that is away does."""
    limit: int = getattr(driver, _PACKET_LIMIT)
    # a character is four bytes at most, and is escaped with one more
    most = sum([len(value) for value in values if isinstance(value, str | bytes)]) * 5 + len(statement) * 4
    if most < limit - _PACKET_MARGIN:
        return
    size = len(cursor.mogrify(statement, tuple(values)).encode("utf-8", "surrogateescape"))
    if size >= limit - _PACKET_MARGIN:
        raise ValueError(
            f"{size} bytes are more than the metadata database takes at once ({limit}: max_allowed_packet of the "
            "server)"
        )


def hide_values(error: Exception) -> None:
    """Have an error of the driver's quote no value."""
    if error.args[:1] == (_DUPLICATE,):
        error.args = (_DUPLICATE, f"Duplicate entry for key{str(error.args[-1]).rpartition(' for key')[-1]}")


def is_lost(driver: Any) -> bool:
    """Whether the server has hung up since the last transaction, as far as it is known here. Asks nothing."""
    line = getattr(driver, "_sock", None)
    if line is None:
        return True
    poll = select.poll()
    poll.register(line, select.POLLIN)
    # it says nothing unasked but why it hangs up
    return bool(poll.poll(0))
