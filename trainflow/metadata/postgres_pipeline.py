"""A connection to PostgreSQL that sends what is not looked at together with what comes next (libpq's pipeline mode).

A statement is handed to the driver at once, and its answer is read when it is looked at: until then more may follow. So
a transaction takes as many round trips as there are answers that decide what it does next, and one for its commit,
which takes along what was written last. What is sent for the second time is prepared.

Between a statement and the reading of its answer the server may have failed it: the error is raised where the next
answer is read, the commit at the latest, and is that of the first statement that failed. Nothing of what was sent after
it has happened.
"""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from itertools import count
from typing import Any

import psycopg
from psycopg import pq
from psycopg.adapt import Transformer
from psycopg.errors import error_from_result

#: statements that a connection keeps prepared on the server
_MOST_PREPARED = 500
#: a prepared statement is not there any more, or another one has its name: a pooler stands between us and the server
_POOLED = frozenset({"26000", "42P05"})
#: what a connection has prepared is of no use any more, for that reason or because the tables have changed since
LOST_PREPARED = _POOLED | {"0A000"}


class Preparing:
    """Whether statements are prepared, for all connections of a database."""

    def __init__(self) -> None:
        self.on = True


class PendingAnswer:
    """What the server says to a statement, once it is asked for."""

    __slots__ = ("_pipeline", "prepares", "result")

    def __init__(self, pipeline: StatementPipeline, prepares: str | None = None) -> None:
        self._pipeline = pipeline
        #: the statement that is prepared by it
        self.prepares = prepares
        self.result: Any = None

    def rows(self) -> list[tuple[Any, ...]]:
        """The rows it found. Raises psycopg.Error."""
        result, load = self._received(), self._pipeline.load
        load.set_pgresult(result)
        rows: list[tuple[Any, ...]] = load.load_rows(0, result.ntuples, tuple)
        return rows

    def count(self) -> int:
        """How many rows it changed. Raises psycopg.Error."""
        return self._received().command_tuples or 0

    def _received(self) -> Any:
        if self.result is None:
            self._pipeline.receive()
        if self.result is None:
            raise psycopg.InterfaceError("the statement was not executed: one before it has failed")
        return self.result


class StatementPipeline:
    """What is sent over a connection and not answered yet."""

    def __init__(self, connection: psycopg.Connection[Any], preparing: Preparing) -> None:
        self._connection = connection
        self._pgconn = connection.pgconn
        self._preparing = preparing
        #: in order; None: the end of a batch
        self._unanswered: deque[PendingAnswer | None] = deque()
        #: something was sent since the last batch was ended
        self._batch_is_open = False
        #: the BEGIN that goes with the next statement; whether that has been sent, and only reads
        self._begin: str | None = None
        self.begun = False
        self._reads = False
        #: savepoints that are open
        self._savepoints = 0
        self._prepared: dict[str, bytes] = {}
        self._seen: set[str] = set()
        self._numbers = count()
        self._poll = select.poll()
        self._poll.register(self._pgconn.socket, select.POLLIN)
        #: makes Python's values of rows
        self.load = Transformer(connection)
        # while the server takes nothing more, libpq reads what it says
        self._pgconn.nonblocking = 0

    # -- transactions ----------------------------------------------------------------------------------------------

    @property
    def is_in_use(self) -> bool:
        """Whether the transaction, if there is one, was begun here: the driver does not know of it."""
        return self.begun or self._pgconn.pipeline_status != pq.PipelineStatus.OFF

    def begin(self, statement: str) -> None:
        """Begin a transaction with the next statement."""
        self._begin = statement
        self._reads = statement.endswith("READ ONLY")

    def commit(self) -> None:
        """Commit; what only read does not wait for the answer. Raises psycopg.Error, also when the server has rolled
        back instead."""
        self._begin = None
        if not self.begun:
            return
        committed = self.send("COMMIT", ())
        if self._reads:
            self.begun = False
            self._end_batch()
            return
        self.receive()
        self.begun = False
        if committed.result.command_status != b"COMMIT":
            raise psycopg.errors.InFailedSqlTransaction("the transaction was rolled back: a statement of it has failed")

    def rollback(self) -> None:
        """Take everything back. A connection that is lost has done so."""
        self._begin = None
        if not self.begun:
            return
        self.begun = False
        with suppress(psycopg.Error):
            self.receive()
        if self._pgconn.status == pq.ConnStatus.OK:
            self.send("ROLLBACK", ())
            self.receive()

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """What is done inside happens whole or not at all, and what failed inside fails there."""
        self._savepoints += 1
        name = f"trainflow_{self._savepoints}"
        try:
            self.send(f"SAVEPOINT {name}", ())
            try:
                yield
                self.receive()
            except BaseException:
                with suppress(psycopg.Error):
                    self.receive()
                if not self._connection.closed:
                    self.send(f"ROLLBACK TO SAVEPOINT {name}", ())
                    self.send(f"RELEASE SAVEPOINT {name}", ())
                raise
            self.send(f"RELEASE SAVEPOINT {name}", ())
        finally:
            self._savepoints -= 1

    def settle(self) -> None:
        """Have everything answered, so that cursors can be used."""
        if self._begin is not None:
            self._send_begin()
        self.receive()
        if self._pgconn.pipeline_status != pq.PipelineStatus.OFF:
            self._pgconn.exit_pipeline_mode()

    # -- statements ------------------------------------------------------------------------------------------------

    def send(self, statement: str, values: Sequence[Any]) -> PendingAnswer:
        """Send a statement. Raises psycopg.Error for values that cannot be sent, and where nothing can be."""
        encoded = [None if value is None else _encoder(type(value))(value) for value in values]
        if self._pgconn.pipeline_status == pq.PipelineStatus.OFF:
            self._pgconn.enter_pipeline_mode()
        if self._begin is not None:
            self._send_begin()
        return self._send(statement, encoded)

    def _send_begin(self) -> None:
        statement, self._begin = self._begin or "BEGIN", None
        if self._pgconn.pipeline_status == pq.PipelineStatus.OFF:
            self._pgconn.enter_pipeline_mode()
        self._send(statement, [])
        self.begun = True

    def _send(self, statement: str, values: list[bytes | None]) -> PendingAnswer:
        name = self._prepared.get(statement)
        if name is None and statement in self._seen and self._preparing.on and len(self._prepared) < _MOST_PREPARED:
            name = self._prepared[statement] = b"trainflow_%d" % next(self._numbers)
            self._pgconn.send_prepare(name, statement.encode())
            self._unanswered.append(PendingAnswer(self, statement))
        if name is not None:
            self._pgconn.send_query_prepared(name, values)
        else:
            if len(self._seen) < _MOST_PREPARED * 4:
                self._seen.add(statement)
            self._pgconn.send_query_params(statement.encode(), values)
        answer = PendingAnswer(self)
        self._unanswered.append(answer)
        self._batch_is_open = True
        return answer

    # -- answers ---------------------------------------------------------------------------------------------------

    def receive(self) -> None:
        """Wait for the answer to everything that was sent. Raises psycopg.Error, that of the first that failed."""
        if self._batch_is_open:
            self._end_batch()
        failed: Any = None
        try:
            while self._unanswered:
                result = self._receive_one(self._unanswered[0])
                answer = self._unanswered.popleft()
                if answer is None:
                    continue
                if result.status in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK):
                    answer.result = result
                    continue
                failed = failed or result
                if answer.prepares is not None:
                    del self._prepared[answer.prepares]
        except psycopg.Error:
            self._unanswered.clear()
            if failed is None:
                raise
        except BaseException:
            # Ctrl-C, while another transaction holds what this one waits for
            with suppress(psycopg.Error):
                self._pgconn.get_cancel().cancel()
            raise
        if failed is not None:
            self._raise(failed)

    def _end_batch(self) -> None:
        self._batch_is_open = False
        self._unanswered.append(None)
        self._pgconn.pipeline_sync()

    def _receive_one(self, answer: PendingAnswer | None) -> Any:
        result = self._next_result()
        if result is None or (answer is None) != (result.status == pq.ExecStatus.PIPELINE_SYNC):
            lost = self._pgconn.status != pq.ConnStatus.OK
            said = self._pgconn.get_error_message() if result is None else result.get_error_message()
            self._connection.close()
            raise psycopg.OperationalError(said if lost else f"unexpected answer of the server: {said}")
        if answer is not None:
            self._next_result()  # a statement has one result, and then none
        return result

    def _next_result(self) -> Any:
        pgconn = self._pgconn
        while pgconn.is_busy():
            # not libpq's own waiting: other threads go on meanwhile, and so do signals
            self._poll.poll()
            pgconn.consume_input()
        return pgconn.get_result()

    def _raise(self, failed: Any) -> None:
        error = error_from_result(failed)
        if error.diag.message_primary:
            # its detail quotes values
            error.args = (error.diag.message_primary,)
        if error.sqlstate in LOST_PREPARED and self._prepared:
            self._preparing.on = self._preparing.on and error.sqlstate not in _POOLED
            self._connection.close()
        if error.sqlstate is None and self._pgconn.status != pq.ConnStatus.OK:
            raise psycopg.OperationalError(str(error))
        raise error

    def is_lost(self) -> bool:
        """Whether the server has hung up since the last transaction, as far as it is known here. Asks nothing."""
        try:
            self.receive()
            while self._pgconn.status == pq.ConnStatus.OK and self._poll.poll(0):
                self._pgconn.consume_input()
        except psycopg.Error:
            return True
        return self._pgconn.status != pq.ConnStatus.OK


class PipelinedConnection(psycopg.Connection[Any]):
    """A connection of psycopg's with a pipeline of statements. What goes through its cursors waits for that."""

    statements: StatementPipeline

    @classmethod
    def connected(cls, preparing: Preparing, *args: Any, **options: Any) -> PipelinedConnection:
        """See `psycopg.connect`."""
        # its own preparing forgets everything that is prepared, also what is so here, when a table is dropped
        connection = cls.connect(*args, **{**options, "prepare_threshold": None})
        connection.statements = StatementPipeline(connection, preparing)
        return connection

    def cursor(self, *args: Any, **options: Any) -> Any:
        """See `psycopg.Connection.cursor`."""
        self.statements.settle()
        return super().cursor(*args, **options)

    def commit(self) -> None:
        """See `psycopg.Connection.commit`."""
        if self.statements.is_in_use:
            self.statements.commit()
        else:
            super().commit()

    def rollback(self) -> None:
        """See `psycopg.Connection.rollback`."""
        if self.closed:
            return
        if self.statements.is_in_use:
            self.statements.rollback()
        else:
            super().rollback()


def _encoder(kind: type) -> Callable[[Any], bytes]:
    found = _ENCODERS.get(kind)
    if found is None:
        found = next((encode for known, encode in _ENCODERS.items() if issubclass(kind, known)), None)
        if found is None:
            raise psycopg.ProgrammingError(f"cannot adapt type '{kind.__name__}'")
        _ENCODERS[kind] = found
    return found


def _text(value: str) -> bytes:
    encoded = value.encode()
    if b"\0" in encoded:
        raise psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes")
    return encoded


_ENCODERS: dict[type, Callable[[Any], bytes]] = {
    str: _text,
    bool: lambda value: b"t" if value else b"f",
    int: lambda value: b"%d" % value,
    float: lambda value: repr(value).encode(),
    datetime: lambda value: value.isoformat().encode(),
}
