"""What a task asks of a server: round trips and commits, which do not depend on how busy it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pymysql.connections import Connection as MySqlConnection
from sqlalchemy import select

from tests.support.control_plane import ControlPlane, control_plane, empty_task
from tests.support.local_databases import LocalMariaDB, LocalPostgres
from trainflow.messages.execution_api import Start, Started, TriggeredRun
from trainflow.metadata import attempt_credentials
from trainflow.metadata.database import Database
from trainflow.metadata.models import PoolTable
from trainflow.metadata.postgres_pipeline import StatementPipeline

POOL = PoolTable.table


@pytest.fixture
def plane(tmp_path: Path, postgres: LocalPostgres) -> Iterator[ControlPlane]:
    """The chain has run once: what is asked for once is known."""
    with control_plane(tmp_path, database_url=postgres.clean_database()) as plane:
        plane.add_dag("chain", empty_task("a"), empty_task("b", "a"), max_active_runs=1)
        plane.add_run("chain", "r0")
        for _ in range(2):
            [workload] = plane.tick()
            plane.play(workload)
        plane.tick()
        yield plane


@pytest.fixture
def waits(plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Each time that the server is waited for."""
    counted: list[None] = []
    receive = StatementPipeline.receive

    def counting(self: StatementPipeline) -> None:
        if any(answer is not None for answer in self._unanswered):
            counted.append(None)
        receive(self)

    monkeypatch.setattr(StatementPipeline, "receive", counting)
    return counted


def test_task_asks_postgresql_four_times(plane: ControlPlane, waits: list[None]) -> None:
    plane.add_run("chain", "r1")
    [first] = plane.tick()
    waits.clear()
    plane.claim(first)
    assert len(waits) == 1
    plane.report(first)
    assert len(waits) == 1 + 3
    assert [workload.task_id for workload in plane.executor.take()] == ["b"]


def test_claim_from_afar_asks_postgresql_twice(plane: ControlPlane, waits: list[None]) -> None:
    plane.add_run("chain", "r1")
    [work] = plane.tick()
    with plane.database.transaction() as connection:
        secret = attempt_credentials.issue(connection, work.key)
    waits.clear()
    assert isinstance(plane.service.claim_from_afar(Start(work.key, 1, 1.0, "there"), secret, "t" * 43), Started)
    assert len(waits) == 2


def test_end_of_run_and_start_of_next_one_ask_postgresql_eight_times(plane: ControlPlane, waits: list[None]) -> None:
    plane.add_run("chain", "r1")
    [first] = plane.tick()
    plane.play(first)
    [last] = plane.tick()
    plane.claim(last)
    waits.clear()
    plane.report(last, triggered_runs=[TriggeredRun("chain", "r2")])
    assert [workload.run_id for workload in plane.executor.take()] == ["r2"]
    assert plane.tick() == []
    assert len(waits) <= 8


def test_transaction_asks_mysql_nothing_but_what_it_is_for(
    mariadb: LocalMariaDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(mariadb.clean_database())
    names = select(POOL.c.name)
    with database.transaction() as connection:
        connection.execute(names)
    asked: list[str] = []
    execute = MySqlConnection._execute_command

    def heard(self: Any, command: int, sql: Any) -> Any:
        asked.append((sql if isinstance(sql, str) else bytes(sql).decode()).split()[0])
        return execute(self, command, sql)

    monkeypatch.setattr(MySqlConnection, "_execute_command", heard)
    with database.transaction() as connection:
        connection.execute(names)
    assert asked == ["SELECT", "COMMIT"]
    asked.clear()
    with database.reading() as connection:
        connection.execute(names)
    assert asked == ["SET", "SELECT", "COMMIT"]
    database.close()
