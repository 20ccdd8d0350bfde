"""What one process changes, another one over the same PostgreSQL hears at once."""

from __future__ import annotations

import select
from collections.abc import Iterator

import pytest

from tests.support.local_databases import LocalPostgres
from trainflow.metadata.applied_change import AppliedChange
from trainflow.metadata.change_notices import MAY_QUEUE, ChangeNotices
from trainflow.metadata.database import Database
from trainflow.testing.processes import DEADLINE_SECONDS, wait_for

CHANGE = AppliedChange(7, ended=True, later=True)


@pytest.fixture
def two(postgres: LocalPostgres) -> Iterator[tuple[ChangeNotices, ChangeNotices]]:
    url = postgres.clean_database()
    databases = [Database(url), Database(url)]
    notices = [ChangeNotices(database) for database in databases]
    yield notices[0], notices[1]
    for each in notices:
        each.close()
    for database in databases:
        database.close()


def hear(notices: ChangeNotices) -> list[AppliedChange | None] | None:
    """What comes next."""
    assert select.select([notices.descriptor], [], [], DEADLINE_SECONDS)[0]
    return notices.heard()


def test_change_is_heard_by_others_and_not_by_who_told_it(two: tuple[ChangeNotices, ChangeNotices]) -> None:
    one, other = two
    assert one.listen()
    assert other.listen()
    one.tell(CHANGE)
    one.tell(None)
    found: list[AppliedChange | None] = []
    while len(found) < 2:
        found += hear(other) or []
    assert found == [CHANGE, None]
    assert hear(one) == []
    other.tell(MAY_QUEUE)
    wait_for(lambda: MAY_QUEUE in (one.heard() or []), "the change")


def test_line_that_breaks_is_made_again(two: tuple[ChangeNotices, ChangeNotices], postgres: LocalPostgres) -> None:
    one, other = two
    assert one.listen()
    postgres.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND pid != pg_backend_pid()"
    )
    wait_for(lambda: hear(one) is None, "the end of the connection")
    assert not one.is_listening
    assert one.listen()
    other.tell(CHANGE)
    assert hear(one) == [CHANGE]


def test_what_is_no_notice_is_passed_over(two: tuple[ChangeNotices, ChangeNotices], postgres: LocalPostgres) -> None:
    one, other = two
    assert one.listen()
    with other._database.engine.connect() as connection:
        connection.exec_driver_sql("NOTIFY trainflow, 'hello'")
        connection.commit()
    other.tell(CHANGE)
    found: list[AppliedChange | None] = []
    while not found:
        found += hear(one) or []
    assert found == [CHANGE]


def test_only_postgresql_tells() -> None:
    assert not ChangeNotices.are_told(Database("sqlite://"))
