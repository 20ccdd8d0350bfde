"""The fast path to each database says the same as what goes through SQLAlchemy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, bindparam, delete, event, func, insert, select, text, update
from sqlalchemy.dialects.sqlite.base import SQLiteDialect
from sqlalchemy.engine.result import SimpleResultMetaData
from sqlalchemy.exc import IntegrityError, MultipleResultsFound, NoResultFound, StatementError

from tests.conftest import server_of
from trainflow.metadata import schema
from trainflow.metadata import sqlalchemy_internals as internals
from trainflow.metadata.database import Database
from trainflow.metadata.fast_connection import FastConnection
from trainflow.metadata.fast_path import FastResult
from trainflow.metadata.models import OutboxTable, ServiceTable

SERVICE, OUTBOX = ServiceTable.table, OutboxTable.table
NOW = datetime(2026, 1, 1, 12, 30, 0, 5, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    server = server_of(request, request.param)
    database = Database(f"sqlite:///{tmp_path / 'd.db'}" if server is None else server.clean_database())
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
def test_fast_path_reads_same_values(connection: Connection, number: int, times: int) -> None:
    statement, values = STATEMENTS[number]
    through = Connection.execute(connection, statement, values).all()
    for _ in range(times):
        fast = connection.execute(statement, values)
        assert isinstance(fast, FastResult)
        assert fast.all() == through
        assert [row._asdict() for row in fast] == [row._asdict() for row in through]


def test_fast_path_statement_serves_lists_of_any_length(connection: Connection) -> None:
    statement = select(SERVICE.c.pid).where(SERVICE.c.pid.in_(bindparam("pids", expanding=True)))
    for pids in ([1], [0, 5], [], [1, 2, 3, 4], [3, 0]):
        assert connection.execute(statement, {"pids": pids}).scalars().all() == sorted(pids)


def test_statement_made_of_one_that_was_executed_is_another_one(connection: Connection) -> None:
    statement = select(SERVICE.c.pid).order_by(SERVICE.c.pid)
    assert connection.execute(statement).scalars().all() == [0, 1, 2, 3, 4, 5]
    assert connection.execute(statement.where(SERVICE.c.pid > 3)).scalars().all() == [4, 5]
    assert connection.execute(statement.limit(1)).scalars().all() == [0]
    assert connection.execute(statement).scalars().all() == [0, 1, 2, 3, 4, 5]


def test_values_of_same_kind_of_statement_are_not_mixed_up(connection: Connection) -> None:
    statements = [select(SERVICE.c.pid).where(SERVICE.c.pid == pid) for pid in range(3)]
    for _ in range(2):
        assert [connection.execute(statement).scalar_one() for statement in statements] == [0, 1, 2]


def test_fast_path_writes_same_values(connection: Connection) -> None:
    made = insert(OUTBOX).values(key="a", channel="c", kind="k", created_at=NOW, next_attempt_at=NOW)
    first = connection.execute(made).inserted_primary_key[0]  # type: ignore[index]
    row = connection.execute(select(OUTBOX)).one()
    # the default of a column, and a moment with its zone
    assert (row.id, row.failures, row.created_at, row.delivered_at) == (first, 0, NOW, None)
    given = {"key": "b", "channel": "c", "kind": "k", "created_at": NOW, "next_attempt_at": NOW}
    assert connection.execute(insert(OUTBOX), given).inserted_primary_key[0] == first + 1  # type: ignore[index]
    more = [{**given, "key": f"c{number}", "channel": "c", "failures": number} for number in range(3)]
    connection.execute(insert(OUTBOX), more)
    found = connection.execute(select(OUTBOX.c.failures).order_by(OUTBOX.c.id)).scalars().all()
    assert found == [0, 0, 0, 1, 2]
    raised = update(OUTBOX).where(OUTBOX.c.kind == "k").values(failures=OUTBOX.c.failures + 1)
    assert connection.execute(raised).rowcount == 5
    assert connection.execute(delete(OUTBOX).where(OUTBOX.c.failures > bindparam("n")), {"n": 1}).rowcount == 2


def test_counts_rows_that_were_found(connection: Connection) -> None:
    assert connection.execute(update(SERVICE).where(SERVICE.c.pid == 99).values(kind="x")).rowcount == 0
    assert connection.execute(update(SERVICE).where(SERVICE.c.pid == 1).values(pid=1)).rowcount == 1


def test_fast_path_returns_row_counts(connection: Connection) -> None:
    everything = select(SERVICE.c.id)
    with pytest.raises(MultipleResultsFound):
        connection.execute(everything).one_or_none()
    with pytest.raises(NoResultFound):
        connection.execute(everything.where(SERVICE.c.pid == 99)).one()
    assert connection.execute(everything.where(SERVICE.c.pid == 99)).scalar() is None


def test_errors_are_sqlalchemys_and_hide_values(connection: Connection) -> None:
    given = {"key": "the secret", "channel": "c", "kind": "k", "created_at": NOW, "next_attempt_at": NOW}
    connection.execute(insert(OUTBOX), given)
    with pytest.raises(IntegrityError) as raised, connection.begin_nested():
        connection.execute(insert(OUTBOX), given)
    assert "the secret" not in str(raised.value)
    with pytest.raises(StatementError, match="naive"):
        connection.execute(insert(OUTBOX), {**given, "created_at": datetime(2026, 1, 1)})
    with pytest.raises(StatementError, match="KeyError"):
        connection.execute(select(OUTBOX.c.id).where(OUTBOX.c.key == bindparam("asked")), {})


def test_fast_path_failure_is_rolled_back(database: Database) -> None:
    with pytest.raises(IntegrityError), database.transaction() as connection:
        connection.execute(insert(SERVICE), _service(1))
        connection.execute(update(SERVICE).values(kind=None))
    with database.reading() as connection:
        assert connection.execute(select(func.count()).select_from(SERVICE)).scalar_one() == 0


def test_savepoint_takes_back_what_came_after_it(connection: Connection) -> None:
    with pytest.raises(ZeroDivisionError), connection.begin_nested():
        connection.execute(delete(SERVICE))
        raise ZeroDivisionError
    assert connection.execute(select(func.count()).select_from(SERVICE)).scalar_one() == 6


def test_fast_path_listeners_hear_every_statement(database: Database, connection: Connection) -> None:
    assert isinstance(connection, FastConnection)
    heard: list[str] = []
    event.listen(connection, "before_cursor_execute", lambda *given: heard.append(given[2]))
    connection.execute(select(SERVICE.c.id))
    connection.execute(text("SELECT 1"))
    assert len(heard) == 2


def test_statement_is_never_taken_for_another_one(connection: Connection) -> None:
    """Thousands that are made, derived from each other and dropped: whichever gets the place in memory of one that is
    gone, its own WHERE is executed."""
    connection.execute(insert(SERVICE), [_service(number) for number in range(6, 40)])
    for number in range(2000):
        parent = select(SERVICE.c.pid).where(SERVICE.c.pid >= 0)
        assert len(connection.execute(parent).all()) == 40
        child = parent.where(SERVICE.c.pid == number % 40)
        # what comes next may lie where it lay
        del parent
        grandchild = child.where(SERVICE.c.pid != -1)
        assert connection.execute(grandchild).scalars().all() == [number % 40]
        if number % 2:
            assert connection.execute(child).scalars().all() == [number % 40]


def test_fast_path_plan_dies_with_its_statement(database: Database, connection: Connection) -> None:
    plans = database._plans
    assert plans is not None
    before = len(plans._bounds)
    for number in range(100):
        connection.execute(select(SERVICE.c.pid).where(SERVICE.c.pid == number))
    # the plan of their kind keeps the first of them
    assert len(plans._bounds) <= before + 1


def test_statement_given_other_names_is_bound_anew(connection: Connection) -> None:
    statement = update(SERVICE).where(SERVICE.c.pid == bindparam("which"))
    connection.execute(statement, {"which": 1, "hostname": "there"})
    connection.execute(statement, {"which": 2, "kind": "other"})
    found = connection.execute(select(SERVICE.c.pid, SERVICE.c.hostname, SERVICE.c.kind).where(SERVICE.c.pid < 3)).all()
    assert [tuple(row) for row in found] == [(0, "here", "kind 0"), (1, "there", "kind 1"), (2, "here", "other")]


def test_fast_path_private_names_answer_as_used() -> None:
    """What another version of SQLAlchemy may change."""
    dialect = SQLiteDialect(paramstyle="qmark")
    statement = select(SERVICE.c.id, SERVICE.c.started_at).where(SERVICE.c.kind == "k", SERVICE.c.pid.in_([1, 2]))
    other = select(SERVICE.c.id, SERVICE.c.started_at).where(SERVICE.c.kind == "l", SERVICE.c.pid.in_([3]))
    key, extracted, *_ = apart = internals.taken_apart(statement)
    assert key == internals.taken_apart(other)[0]
    assert [each.effective_value for each in extracted] == ["k", [1, 2]]
    compiled = internals.compiled(statement, dialect, apart, (), many=False)
    numbers = internals.numbers_of_parameters(compiled)
    assert {name: numbers[id(bind)] for bind, name in compiled.bind_names.items()} == {"kind_1": 0, "pid_1": 1}
    state = internals.expanded(compiled, {"kind_1": "k", "pid_1": [1, 2]})
    assert state.statement.endswith("IN (?, ?)")
    assert state.positiontup == ["kind_1", "pid_1_1", "pid_1_2"]
    assert state.parameter_expansion == {"pid_1": ["pid_1_1", "pid_1_2"]}
    assert [name for name, _ in internals.result_columns(compiled)] == ["id", "started_at"]
    process = internals.result_processor(SERVICE.c.started_at.type, dialect)
    assert process is not None
    assert process("2026-01-01 12:30:00.000005") == NOW
    assert internals.index_of_names(SimpleResultMetaData(["a", "b"]))["b"] == 1
    inserting = insert(SERVICE)
    made = internals.compiled(inserting, dialect, internals.taken_apart(inserting), ("pid", "started_at"), many=False)
    assert internals.bind_processors(made)["started_at"](NOW) == "2026-01-01 12:30:00.000005"


def test_private_names_of_sqlalchemy_are_used_in_one_module_only() -> None:
    package = Path(internals.__file__).parent
    private = set(
        re.findall(r"\b(?:compiled|statement|type_|metadata)\.(_[a-z]\w+)", Path(internals.__file__).read_text())
    )
    assert len(private) >= 7
    for path in package.rglob("*.py"):
        if path.name != "sqlalchemy_internals.py":
            assert not private & set(re.findall(r"\._[a-z]\w+", path.read_text().replace("self._", ""))), path
