"""Statements that are sent together: what is heard of them when, and what becomes of a connection."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select, text, update
from sqlalchemy.exc import DBAPIError, InternalError

from tests.support.local_databases import LocalPostgres
from trainflow.metadata.database import Database
from trainflow.metadata.models import OutboxTable, PoolTable
from trainflow.metadata.postgres_pipeline import StatementPipeline
from trainflow.metadata.transaction_retries import is_conflict, is_outage, is_refusal

POOL, OUTBOX = PoolTable.table, OutboxTable.table
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def database(postgres: LocalPostgres) -> Iterator[Database]:
    database = Database(postgres.clean_database())
    yield database
    database.close()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many statements were waited for, each time that the server was."""
    counted: list[int] = []
    receive = StatementPipeline.receive

    def counting(self: StatementPipeline) -> None:
        if self._unanswered:
            counted.append(sum(answer is not None and answer.prepares is None for answer in self._unanswered))
        receive(self)

    monkeypatch.setattr(StatementPipeline, "receive", counting)
    return counted


def put(connection: Connection, name: str) -> Any:
    return connection.execute(insert(POOL), {"name": name, "slots": 1, "include_deferred": False})


def names(database: Database) -> set[str]:
    with database.reading() as connection:
        return set(connection.execute(select(POOL.c.name)).scalars())


def backends(database: Database) -> set[int]:
    """The server's processes of this database, but for the one that is asked."""
    with database.reading() as connection:
        found = connection.exec_driver_sql(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid != pg_backend_pid()"
        )
        return {row[0] for row in found}


def test_what_is_not_looked_at_costs_no_round_trip(database: Database, waits: list[int]) -> None:
    with database.transaction() as connection:
        assert connection.execute(select(POOL.c.name)).scalar() == "default_pool"
        for number in range(5):
            put(connection, f"p{number}")
    # the beginning goes with the first that is looked at, and the commit takes along what was written
    assert waits == [2, 6]


def test_statements_sent_before_the_first_look_share_its_round_trip(database: Database, waits: list[int]) -> None:
    with database.transaction() as connection:
        first = connection.execute(select(POOL.c.name))
        second = connection.execute(select(POOL.c.slots))
        assert (first.scalar(), second.scalar()) == ("default_pool", 128)
    assert waits == [3, 1]


def test_view_is_ended_without_waiting(database: Database, waits: list[int]) -> None:
    with database.reading() as connection:
        connection.execute(select(POOL.c.name)).all()
    assert waits == [2]
    names(database)
    assert waits == [2, 1, 2]


def test_view_writes_nothing(database: Database) -> None:
    with pytest.raises(InternalError, match="read-only"), database.reading() as connection:
        put(connection, "p").rowcount  # noqa: B018


def test_transaction_that_asks_nothing_asks_the_server_nothing(database: Database, waits: list[int]) -> None:
    with database.transaction():
        pass
    assert waits == []


def test_statement_that_failed_is_told_at_the_next_look(database: Database) -> None:
    with pytest.raises(DBAPIError, match="duplicate key") as raised, database.transaction() as connection:
        put(connection, "p")
        put(connection, "p")
        late = connection.execute(update(POOL).values(slots=3))
        late.rowcount  # noqa: B018
    assert "INSERT" in str(raised.value) or "UPDATE" in str(raised.value)
    assert names(database) == {"default_pool"}


def test_statement_that_failed_is_told_at_the_commit(database: Database) -> None:
    with pytest.raises(DBAPIError, match="duplicate key"), database.transaction() as connection:
        put(connection, "p")
        put(connection, "p")
    assert names(database) == {"default_pool"}
    with database.transaction() as connection:
        put(connection, "p")
    assert names(database) == {"default_pool", "p"}


def test_commit_of_transaction_whose_failure_was_swallowed_is_an_error(database: Database) -> None:
    with pytest.raises(DBAPIError, match="rolled back"), database.transaction() as connection:
        put(connection, "p").rowcount  # noqa: B018
        with pytest.raises(DBAPIError):
            put(connection, "p").rowcount  # noqa: B018
    assert names(database) == {"default_pool"}


def test_failure_inside_savepoint_is_told_there(database: Database) -> None:
    with database.transaction() as connection:
        put(connection, "p")
        with pytest.raises(DBAPIError, match="duplicate key"), connection.begin_nested():
            put(connection, "q")
            put(connection, "p")
        with connection.begin_nested(), connection.begin_nested():
            put(connection, "r")
    assert names(database) == {"default_pool", "p", "r"}


def test_cursors_see_what_was_sent_and_are_seen(database: Database) -> None:
    with database.transaction() as connection:
        put(connection, "p")
        assert connection.execute(text("SELECT count(*) FROM pool")).scalar() == 2
        connection.execute(text("INSERT INTO pool (name, slots, include_deferred) VALUES ('q', 1, false)"))
        assert len(connection.execute(select(POOL.c.name)).all()) == 3
    assert names(database) == {"default_pool", "p", "q"}


def test_nul_is_refused_before_it_is_sent(database: Database) -> None:
    with pytest.raises(DBAPIError, match="NUL") as raised, database.transaction() as connection:
        put(connection, "a\0b")
    assert is_refusal(raised.value)
    with pytest.raises(DBAPIError, match="cannot adapt"), database.transaction() as connection:
        connection.execute(update(POOL).values(slots=object()))


def test_many_large_values_are_sent_at_once(database: Database) -> None:
    """More than both sides keep for each other: neither waits for the other one."""
    large = "x" * 300_000
    row = {"kind": "k", "channel": "c", "created_at": NOW, "next_attempt_at": NOW, "payload": {"text": large}}
    with database.transaction() as connection:
        connection.execute(insert(OUTBOX), [{**row, "key": f"k{number}"} for number in range(40)])
        looks = [connection.execute(select(OUTBOX.c.payload)) for _ in range(3)]
        for look in looks:
            assert [value["text"] for value in look.scalars()] == [large] * 40


@pytest.mark.parametrize("kept", [True, False])
def test_connection_that_the_server_has_closed_is_not_used(database: Database, kept: bool) -> None:
    """A server that was restarted is noticed before the next transaction begins, without a word to it."""
    if not kept:
        database._owner = -1
    names(database)
    other = Database(database.url.render_as_string(hide_password=False))
    (pid,) = backends(other)
    with other.transaction() as connection:
        connection.execute(text("SELECT pg_terminate_backend(:pid, 10000)"), {"pid": pid})
    other.close()
    assert names(database) == {"default_pool"}


def test_connection_lost_in_the_middle_is_an_outage(database: Database) -> None:
    other = Database(database.url.render_as_string(hide_password=False))
    with pytest.raises(DBAPIError) as raised, database.transaction() as connection:
        put(connection, "p").rowcount  # noqa: B018
        (pid,) = backends(other)
        with other.transaction() as killer:
            killer.execute(text("SELECT pg_terminate_backend(:pid, 10000)"), {"pid": pid})
        put(connection, "q")
    assert is_outage(raised.value)
    other.close()
    assert names(database) == {"default_pool"}


def test_prepared_statements_that_a_pooler_forgets_are_prepared_no_more(database: Database) -> None:
    for _ in range(3):
        names(database)
    with pytest.raises(DBAPIError, match="does not exist") as raised, database.transaction() as connection:
        connection.execute(text("DEALLOCATE ALL"))
    assert is_conflict(raised.value)
    asked = select(POOL.c.name)
    assert database.read(lambda connection: connection.execute(asked).scalar()) == "default_pool"
    with database.transaction() as connection:
        driver: Any = connection.connection.driver_connection
        for _ in range(3):
            connection.execute(asked).all()
        assert driver.statements._prepared == {}


def test_statement_prepared_before_a_migration_is_prepared_anew(postgres: LocalPostgres) -> None:
    url = postgres.new_database()
    database, other = Database(url), Database(url)
    with database.transaction() as connection:
        connection.execute(text("CREATE TABLE pool (name text, slots int, include_deferred bool, description text)"))
    asked = select(POOL)
    for _ in range(3):
        with database.reading() as connection:
            connection.execute(asked).all()
    with other.transaction() as connection:
        connection.execute(text("ALTER TABLE pool ALTER COLUMN slots TYPE bigint"))
    other.close()
    assert database.read(lambda connection: connection.execute(asked).all()) == []
    database.close()


def test_answer_of_statement_behind_one_that_failed_is_an_error(database: Database) -> None:
    with pytest.raises(DBAPIError), database.transaction() as connection:
        failing = connection.execute(update(POOL).values(slots=None))
        behind = connection.execute(select(POOL.c.name))
        with pytest.raises(DBAPIError, match="not-null"):
            failing.rowcount  # noqa: B018
        with pytest.raises(DBAPIError, match="was not executed"):
            behind.all()


def test_dropping_a_table_forgets_no_prepared_statement(database: Database) -> None:
    for _ in range(3):
        names(database)
    with database.transaction() as connection:
        connection.execute(text("CREATE TABLE dropped (number int)"))
        connection.execute(text("DROP TABLE dropped"))
        connection.execute(text("SELECT 1"))
    assert names(database) == {"default_pool"}
