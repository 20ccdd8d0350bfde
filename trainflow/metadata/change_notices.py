"""What other processes have changed, told by PostgreSQL at once (LISTEN and NOTIFY); other databases are polled.

A notice is a hint: one that is lost costs no more than the time until the next look at everything. So nothing is kept,
and a connection that breaks is made again with the next heartbeat.
"""

from __future__ import annotations

import logging
import uuid
from typing import Any

import msgspec
from sqlalchemy import func, select

from trainflow.metadata.applied_change import AppliedChange
from trainflow.metadata.database import Database
from trainflow.metadata.transaction_retries import is_own_fault

log = logging.getLogger(__name__)

_CHANNEL = "trainflow"
#: something may be queued, whichever run it is of
MAY_QUEUE = AppliedChange(0)


class _Notice(msgspec.Struct, frozen=True):
    """What is told. `sender`: the process; `change` None: look at everything."""

    sender: str
    change: AppliedChange | None = None


class ChangeNotices:
    """The line of one process to all others of its database. For one thread, but for `tell`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sender = uuid.uuid4().hex
        self._connection: Any = None
        self.descriptor = -1

    @staticmethod
    def are_told(database: Database) -> bool:
        """Whether this database tells them."""
        return database.engine.dialect.driver == "psycopg"

    @property
    def is_listening(self) -> bool:
        """Whether what others tell is heard."""
        return self._connection is not None

    def listen(self) -> bool:
        """Listen from now on; `descriptor` is readable when there is something to hear. False: it cannot be had
        now."""
        import psycopg

        arguments, options = self._database.engine.dialect.create_connect_args(self._database.url)
        try:
            connection = psycopg.connect(*arguments, **options, autocommit=True, connect_timeout=5)
            connection.execute(f"LISTEN {_CHANNEL}")
        except psycopg.Error as error:
            log.debug("changes that others make are not heard, but looked for: %s", error)
            return False
        self._connection, self.descriptor = connection, connection.fileno()
        return True

    def heard(self) -> list[AppliedChange | None] | None:
        """What others have told since the last call; None: the connection has ended, and is closed."""
        import psycopg

        pgconn = self._connection.pgconn
        try:
            pgconn.consume_input()
        except psycopg.Error as error:
            log.info("changes that others make are not heard any more, but looked for: %s", str(error).strip())
            self.close()
            return None
        found: list[AppliedChange | None] = []
        while (told := pgconn.notifies()) is not None:
            notice = _read(told.extra)
            if notice is not None and notice.sender != self._sender:
                found.append(notice.change)
        return found

    def tell(self, change: AppliedChange | None) -> None:
        """Tell all others. Fit for any thread; raises nothing: they look by themselves from time to time."""
        payload = msgspec.json.encode(_Notice(self._sender, change)).decode()
        try:
            with self._database.transaction() as connection:
                connection.execute(select(func.pg_notify(_CHANNEL, payload)))
        except Exception as error:
            own = is_own_fault(error)
            log.log(
                logging.ERROR if own else logging.DEBUG, "a change cannot be told to others: %s", error, exc_info=own
            )

    def close(self) -> None:
        """Listen no more."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _read(payload: bytes) -> _Notice | None:
    try:
        return msgspec.json.decode(payload, type=_Notice)
    except msgspec.DecodeError:
        return None
