"""What goes straight to SQLite says the same as what goes through SQLAlchemy."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, bindparam, delete, event, func, insert, select, text, update
from sqlalchemy.exc import IntegrityError, MultipleResultsFound, NoResultFound, StatementError

from trainflow.metadata import schema
from trainflow.metadata.database import Database
from trainflow.metadata.models import Outbox, Service
from trainflow.metadata.straight import StraightConnection, StraightResult

SERVICE, OUTBOX = Service.table, Outbox.table
NOW = datetime(2026, 1, 1, 12, 30, 0, 5, tzinfo=UTC)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path / 'd.db'}")
    schema.ensure_schema(database)
    yield database
    database.close()


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    with database.transaction() as connection:
        connection.execute(insert(SERVICE), [_service(number) for number in range(6)])
        yield connection


def _service(number: int) -> dict[str, Any]:
    return {
        "kind": f"kind {number % 2}",
        "hostname": "here",
        "pid": number,
        "process_started": number / 3,
        "started_at": NOW,
        "heartbeat_at": NOW,
        "stopped_at": NOW if number == 1 else None,
    }


STATEMENTS = [
    (select(SERVICE), {}),
    (select(SERVICE.c.pid, SERVICE.c.stopped_at).where(SERVICE.c.pid == bindparam("pid")), {"pid": 1}),
    (select(SERVICE.c.id).where(SERVICE.c.pid.in_(bindparam("pids", expanding=True))), {"pids": [1, 2, 3]}),
    (select(SERVICE.c.id).where(SERVICE.c.pid.in_(bindparam("pids", expanding=True))), {"pids": []}),
    (select(SERVICE.c.id).where(SERVICE.c.kind == "kind 1", SERVICE.c.pid.in_([1, 3])), {}),
    (select(func.count().label("n"), func.max(SERVICE.c.heartbeat_at).label("last")), {}),
    (select(SERVICE.c.pid).order_by(SERVICE.c.pid.desc()).limit(bindparam("most")), {"most": 2}),
    (select(SERVICE.c.pid).where(SERVICE.c.started_at <= NOW).limit(1), {}),
]


@pytest.mark.parametrize("number", range(len(STATEMENTS)))
@pytest.mark.parametrize("times", [1, 3])
def test_reads_the_same(connection: Connection, number: int, times: int) -> None:
    statement, values = STATEMENTS[number]
    through = Connection.execute(connection, statement, values).all()
    for _ in range(times):
        straight = connection.execute(statement, values)
        assert isinstance(straight, StraightResult)
        assert straight.all() == through
        assert [row._asdict() for row in straight] == [row._asdict() for row in through]


def test_one_statement_serves_lists_of_any_length(connection: Connection) -> None:
    statement = select(SERVICE.c.pid).where(SERVICE.c.pid.in_(bindparam("pids", expanding=True)))
    for pids in ([1], [0, 5], [], [1, 2, 3, 4], [3, 0]):
        assert connection.execute(statement, {"pids": pids}).scalars().all() == sorted(pids)


def test_a_statement_made_of_one_that_was_executed_is_another_one(connection: Connection) -> None:
    statement = select(SERVICE.c.pid).order_by(SERVICE.c.pid)
    assert connection.execute(statement).scalars().all() == [0, 1, 2, 3, 4, 5]
    assert connection.execute(statement.where(SERVICE.c.pid > 3)).scalars().all() == [4, 5]
    assert connection.execute(statement.limit(1)).scalars().all() == [0]
    assert connection.execute(statement).scalars().all() == [0, 1, 2, 3, 4, 5]


def test_values_of_the_same_kind_of_statement_are_not_mixed_up(connection: Connection) -> None:
    statements = [select(SERVICE.c.pid).where(SERVICE.c.pid == pid) for pid in range(3)]
    for _ in range(2):
        assert [connection.execute(statement).scalar_one() for statement in statements] == [0, 1, 2]


def test_writes_the_same(connection: Connection) -> None:
    made = insert(OUTBOX).values(key="a", kind="k", created_at=NOW, next_attempt_at=NOW)
    first = connection.execute(made).inserted_primary_key[0]  # type: ignore[index]
    row = connection.execute(select(OUTBOX)).one()
    # the default of a column, and a moment with its zone
    assert (row.id, row.failures, row.created_at, row.delivered_at) == (first, 0, NOW, None)
    given = {"key": "b", "kind": "k", "created_at": NOW, "next_attempt_at": NOW}
    assert connection.execute(insert(OUTBOX), given).inserted_primary_key[0] == first + 1  # type: ignore[index]
    more = [{**given, "key": f"c{number}", "failures": number} for number in range(3)]
    connection.execute(insert(OUTBOX), more)
    found = connection.execute(select(OUTBOX.c.failures).order_by(OUTBOX.c.id)).scalars().all()
    assert found == [0, 0, 0, 1, 2]
    raised = update(OUTBOX).where(OUTBOX.c.kind == "k").values(failures=OUTBOX.c.failures + 1)
    assert connection.execute(raised).rowcount == 5
    assert connection.execute(delete(OUTBOX).where(OUTBOX.c.failures > bindparam("n")), {"n": 1}).rowcount == 2


def test_counts_rows_that_were_found(connection: Connection) -> None:
    assert connection.execute(update(SERVICE).where(SERVICE.c.pid == 99).values(kind="x")).rowcount == 0
    assert connection.execute(update(SERVICE).where(SERVICE.c.pid == 1).values(pid=1)).rowcount == 1


def test_says_how_many_rows_there_are(connection: Connection) -> None:
    everything = select(SERVICE.c.id)
    with pytest.raises(MultipleResultsFound):
        connection.execute(everything).one_or_none()
    with pytest.raises(NoResultFound):
        connection.execute(everything.where(SERVICE.c.pid == 99)).one()
    assert connection.execute(everything.where(SERVICE.c.pid == 99)).scalar() is None


def test_errors_are_sqlalchemys_and_hide_values(connection: Connection) -> None:
    given = {"key": "the secret", "kind": "k", "created_at": NOW, "next_attempt_at": NOW}
    connection.execute(insert(OUTBOX), given)
    with pytest.raises(IntegrityError) as raised:
        connection.execute(insert(OUTBOX), given)
    assert "the secret" not in str(raised.value)
    with pytest.raises(StatementError, match="naive"):
        connection.execute(insert(OUTBOX), {**given, "created_at": datetime(2026, 1, 1)})
    with pytest.raises(StatementError, match="KeyError"):
        connection.execute(select(OUTBOX.c.id).where(OUTBOX.c.key == bindparam("asked")), {})


def test_what_failed_is_taken_back_with_its_transaction(database: Database) -> None:
    with pytest.raises(IntegrityError), database.transaction() as connection:
        connection.execute(insert(SERVICE), _service(1))
        connection.execute(update(SERVICE).values(kind=None))
    with database.reading() as connection:
        assert connection.execute(select(func.count()).select_from(SERVICE)).scalar_one() == 0


def test_a_savepoint_takes_back_what_came_after_it(connection: Connection) -> None:
    with pytest.raises(ZeroDivisionError), connection.begin_nested():
        connection.execute(delete(SERVICE))
        raise ZeroDivisionError
    assert connection.execute(select(func.count()).select_from(SERVICE)).scalar_one() == 6


def test_whoever_listens_hears_every_statement(database: Database, connection: Connection) -> None:
    assert isinstance(connection, StraightConnection)
    heard: list[str] = []
    event.listen(connection, "before_cursor_execute", lambda *given: heard.append(given[2]))
    connection.execute(select(SERVICE.c.id))
    connection.execute(text("SELECT 1"))
    assert len(heard) == 2
