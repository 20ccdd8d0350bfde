"""Connections to MySQL and MariaDB: how transactions begin, how large a statement may be, whether the server has hung
up.

A session is made for what writes: it begins with its first statement, and asks the server nothing before that. One that
only reads says so with one statement more.
"""

from __future__ import annotations

import select
from typing import Any

from sqlalchemy import Connection, Engine, event

from trainflow.errors import EngineError
from trainflow.metadata.silent_servers import limit_idle_mysql, watch_mysql

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
