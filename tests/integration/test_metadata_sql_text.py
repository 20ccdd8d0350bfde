"""What people ask is answered alike by each database, and by a file of SQLite that is read without SQLAlchemy."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from tests.conftest import server_of
from tests.integration.cli_home import YAML, Home
from tests.support.control_plane import START, ControlPlane, control_plane, empty_task
from trainflow.errors import DatabaseDamaged, EngineError
from trainflow.messages.execution_api import OutcomeState
from trainflow.messages.notice import XCOM_STOPPED
from trainflow.messages.workload import ParseProblem
from trainflow.metadata.queries import (
    dag_queries,
    drain_queries,
    fleet_queries,
    live_queries,
    outbox_queries,
    run_queries,
    service_list_queries,
    status_queries,
)
from trainflow.metadata.queries.drain_queries import Drain, DrainKind
from trainflow.metadata.sql_text import ReadableDatabase, SqlText
from trainflow.metadata.sqlite_reader import SqliteReader
from trainflow.settings.outbox_channels import OutboxChannel


def asked(database: ReadableDatabase) -> dict[str, Any]:
    """Every question, and its answer."""
    with database.reading() as connection:
        runs = status_queries.shown_runs(connection, ["bad", "busy", "new", "none"])
        return {
            "dags": status_queries.dags(connection),
            "of a file": status_queries.dags(connection, path="pipelines/busy.py"),
            "of an id": status_queries.dags(connection, dag_id="busy"),
            "runs": runs,
            "runs of none": status_queries.shown_runs(connection, []),
            "tasks": status_queries.tasks_of(connection, [run.id for run in runs]),
            "tasks of none": status_queries.tasks_of(connection, []),
            "failures": status_queries.last_failures(connection),
            "undelivered by DAG": status_queries.undelivered_by_dag(connection),
            "undelivered": [status_queries.undelivered(connection, channel) for channel in OutboxChannel],
            "handed over": status_queries.handed_over(connection),
            "scheduled": status_queries.is_any_scheduled(connection),
            "idle": live_queries.idle_runs(connection),
            "problems": status_queries.problems(connection),
            "first failure": [status_queries.first_failure(connection, run.id) for run in runs],
            "last success": status_queries.last_success(connection, "bad", 9),
            "living": service_list_queries.not_stopped(connection),
            "everyone": service_list_queries.everyone(connection),
            "drains": drain_queries.listing(connection).all(),
        }


def fill(plane: ControlPlane) -> None:
    """Runs that ended well and badly, that run, wait, stand; a file that is broken; deliveries, one of them refused."""
    for dag_id in ("bad", "busy", "new"):
        plane.add_dag(dag_id, empty_task("a"), empty_task("b", "a"))
    for outcome in (OutcomeState.SUCCESS, OutcomeState.FAILED):
        plane.add_run("bad", f"r-{outcome}")
        while workloads := plane.tick():
            for workload in workloads:
                plane.play(workload, outcome)
        plane.clock.advance(timedelta(hours=1, microseconds=7))
    plane.add_run("busy", "r0")
    (workload,) = plane.tick()
    plane.claim(workload)
    plane.add_run("busy", "r1")
    plane.add_run("new", "r0")
    plane.add_dag("stands", empty_task("a"))
    stands = plane.add_run("stands", "r0")
    plane.tick()
    with plane.database.transaction() as connection:
        run = next(run for run in status_queries.shown_runs(connection, ["bad"]) if run.state == "failed")
        connection.execute(
            text("INSERT INTO xcom VALUES (:run, 'a', -1, :key, :value, :now)"),
            {"run": run.id, "key": XCOM_STOPPED, "value": '{"key": "k"}', "now": "2026-01-01 00:00:00.000000"},
        )
        connection.execute(
            text("UPDATE task_instance SET state = 'scheduled' WHERE task_id = 'b' AND dag_run_id = :run"),
            {"run": run.id + 1},
        )
        connection.execute(text("UPDATE task_instance SET state = NULL WHERE dag_run_id = :run"), {"run": stands})
        dag_queries.store_problem(connection, "pipelines/x.py", ParseProblem("no: ☹", "trace", 3, 9), START)
        outbox_queries.add(
            connection, (OutboxChannel.MLFLOW,), "run_finished", run_queries.by_id(connection, run.id), START
        )
        for number in range(1, 4):
            payload = {"number": number}
            outbox_queries.add_payload(
                connection, channel=OutboxChannel.MLFLOW, key=f"k{number}", kind="x", payload=payload, now=START
            )
        outbox_queries.failed(connection, 1, reason="away", delay=timedelta(seconds=9), now=START)
        outbox_queries.given_up(connection, 4, "refused", START)
        fleet_queries.drain(connection, Drain(DrainKind.DAG, "new", START, "it's late"))
        fleet_queries.drain(connection, Drain(DrainKind.QUEUE, "q", START, None))


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[ControlPlane]:
    with control_plane(tmp_path / "sqlite") as made:
        fill(made)
        yield made


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_server_answers_as_sqlite_does(
    kind: str, plane: ControlPlane, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    server = server_of(request, kind)
    assert server is not None
    with control_plane(tmp_path / kind, database_url=server.clean_database()) as other:
        fill(other)
        assert _comparable(asked(other.database)) == _comparable(asked(plane.database))


def _comparable(found: dict[str, Any]) -> dict[str, Any]:
    """Without what a home gives by chance: names of attempts, of processes."""
    tasks = {run: [task._replace(attempt_id="") for task in tasks] for run, tasks in found["tasks"].items()}
    services = [each._replace(pid=0, process_started=0.0) for each in found["everyone"]]
    assert found["living"] == found["everyone"] != []
    return {**found, "tasks": tasks, "everyone": services, "living": services}


def test_file_read_without_sqlalchemy_answers_as_database_does(plane: ControlPlane) -> None:
    reader = SqliteReader.of(plane.project.home.database)
    assert reader is not None
    found = asked(reader)
    assert found == asked(plane.database)
    assert [name for name in found if not found[name]] == ["runs of none", "tasks of none"]
    # every statement, of SQLAlchemy and of text
    with reader.reading() as connection:
        assert dag_queries.get(connection, "busy").path == found["of an id"][0].path  # type: ignore[arg-type]


def test_reader_leaves_what_is_not_of_this_version_to_database(plane: ControlPlane, tmp_path: Path) -> None:
    file = plane.project.home.database
    with plane.database.transaction() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    assert SqliteReader.of(file) is None
    (tmp_path / "empty.db").touch()
    assert SqliteReader.of(tmp_path / "empty.db") is None
    (tmp_path / "text.db").write_text("no database at all" * 100)
    assert SqliteReader.of(tmp_path / "text.db") is None


def test_reader_of_damaged_file_says_so(plane: ControlPlane) -> None:
    file = plane.project.home.database
    reader = SqliteReader.of(file)
    assert reader is not None
    unknown = pytest.raises(EngineError, match=r"the metadata database .* cannot be read: no such table")
    with unknown, reader.reading() as connection:
        SqlText("SELECT a FROM missing", Drain).rows(connection)
    plane.close()
    pages = bytearray(file.read_bytes())
    pages[4096:] = b"\xff" * (len(pages) - 4096)
    file.write_bytes(pages)
    with pytest.raises(DatabaseDamaged, match="is damaged"), reader.reading() as connection:
        status_queries.dags(connection)


def test_reading_commands_load_neither_sqlalchemy_nor_operators(inside: Callable[..., Home]) -> None:
    """They are asked often, and importing these takes longer than all the rest."""
    home = inside(Home, {"pipelines/days.yaml": YAML})
    home.read()
    home.start_run()
    home.database.close()
    heavy = "{'sqlalchemy', 'pydantic', 'asyncio', 'trainflow.authoring', 'trainflow.execution'} & set(sys.modules)"
    for command in (["status"], ["status", "--json"], ["why"], ["why", "days"]):
        code = f"import sys; from trainflow.cli.main import run; print(run({command!r})); print('loaded', {heavy})"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.stdout.endswith("0\nloaded set()\n"), done.stdout + done.stderr
