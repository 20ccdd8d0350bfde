"""Services the integration tests share, started once and only when a test asks; the commands over a project."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import Connection
from sqlalchemy.dialects.mysql.base import MySQLDialect

from tests.integration import cli_days, cli_history
from tests.integration.cli_days import Days
from tests.integration.cli_history import History
from tests.integration.cli_home import Home
from tests.integration.executor_hosts import local_host
from tests.support.command_line import CommandLine
from tests.support.control_plane import ControlPlane, control_plane, empty_task
from trainflow.clock import SystemClock
from trainflow.engine.lock import engine_lock
from trainflow.execution.parse_main import parse_file
from trainflow.messages.workload import ExecuteTask, ParseFile
from trainflow.metadata import fast_path
from trainflow.metadata.database import Database
from trainflow.metadata.queries import service_queries
from trainflow.observability.processes import started_at
from trainflow.serialization.document import RetryDocument
from trainflow.settings.model import EngineSettings, Settings
from trainflow.settings.project import Project
from trainflow.testing.executor_contract import Host, lay_out
from trainflow.testing.processes import MARK, marked


def _parse_here(request: bytes, _path: Path, _seconds: float) -> bytes:
    return msgspec.json.encode(parse_file(msgspec.json.decode(request, type=ParseFile)))


@pytest.fixture
def leftover_supervisors_end(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """End what a test has started. Unreachable is not dead: a supervisor whose test took the API server away would ask
    for it for ever."""
    mark = os.urandom(8).hex()
    monkeypatch.setenv(MARK, mark)
    yield
    for left in marked(mark):
        left.kill()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """What stands in for the engine, to a local executor of the project of its contract."""
    with local_host(lay_out(tmp_path)) as host:
        yield host


@pytest.fixture
def inside(
    write_project: Callable[[dict[str, str]], Project],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., Any]:
    """`inside(Kind, {path: text})`: a project with these files, which is the current folder, and the commands over it.
    Files are parsed in this process, which takes a tenth of the time; test_workspace_file_reading does not."""

    def lay_out(kind: type[CommandLine], files: dict[str, str]) -> CommandLine:
        project = write_project(files)
        monkeypatch.chdir(project.root)
        monkeypatch.syspath_prepend(str(project.root))
        monkeypatch.setattr("trainflow.workspace.pipeline_file._ask", _parse_here)
        return kind(project, capsys)

    return lay_out


@pytest.fixture
def may_refuse() -> Callable[[Database, Callable[[], bool]], None]:
    """`may_refuse(database, whether)`: SQLite refuses to write while that is so, as on a disk that is full."""

    def make(database: Database, whether: Callable[[], bool]) -> None:
        connect = database._connect

        @contextmanager
        def refusing() -> Iterator[Connection]:
            with connect() as connection:
                driver = connection.connection.driver_connection
                assert driver is not None
                driver.execute(f"PRAGMA query_only={'ON' if whether() else 'OFF'}")
                yield connection

        database._connect = refusing  # type: ignore[method-assign]

    return make


@pytest.fixture(scope="session", autouse=True)
def _whatever_was_asked_could_be_asked_of_mysql() -> Iterator[None]:
    """MariaDB takes more than MySQL, of which no server can be run everywhere. So every statement that any of these
    tests has executed on SQLite is written for MySQL as well, and must not hold what MySQL refuses. (An error here is
    about any test before it.)"""
    asked: dict[str, Any] = {}

    class Remembered(fast_path._Plan):
        def __init__(self, compiled: Any, dialect: Any, more: bool) -> None:
            super().__init__(compiled, dialect, more)
            if dialect.name == "sqlite":
                asked.setdefault(compiled.string, compiled.statement)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fast_path, "_Plan", Remembered)
        yield
    dialect = MySQLDialect(paramstyle="format")
    for statement, made in asked.items():
        # raises where MySQL has no words for it
        written = re.sub(r"\s+", " ", str(made.compile(dialect=dialect)))
        assert "RETURNING" not in written, f"MySQL has no RETURNING: {statement}"
        limited = re.search(r"IN \(SELECT [^()]*\bLIMIT\b", written)
        assert limited is None, f"MySQL has no LIMIT in a subquery of IN: {statement}"
        found_by_query = re.match(r"(?:UPDATE|DELETE) .*\bIN \(SELECT\b", written)
        assert found_by_query is None, f"MariaDB reads all of the table that it changes: {statement}"
        updated = re.match(r"(?:UPDATE|DELETE FROM) `?(\w+)`? .*\(SELECT .*\bFROM `?\1`?\b", written)
        assert updated is None, f"MySQL does not read the table that it changes: {statement}"


@pytest.fixture
def engine_of_home(home: Home) -> Iterator[None]:
    """This process is the engine of the home."""
    with engine_lock(home.project.home):
        with home.database.transaction() as connection:
            service_queries.register(
                connection,
                kind="engine",
                hostname=socket.gethostname(),
                pid=os.getpid(),
                process_started=started_at(os.getpid()),
                now=SystemClock().now(),  # its lease is new, however long the tests before took
            )
        yield


@pytest.fixture
def plane(tmp_path: Path, database_url: str | None) -> Iterator[ControlPlane]:
    """A scheduler over each kind of database with the DAGs `d` (`b` after `a`, which has a retry) and `next`."""
    settings = Settings(engine=EngineSettings(lost_attempts=3))
    with control_plane(tmp_path, database_url=database_url, settings=settings) as plane:
        retry = RetryDocument(retries=1, delay_seconds=60.0)
        plane.add_dag("d", empty_task("a", retry=retry), empty_task("b", "a"))
        plane.add_dag("next", empty_task("a"))
        yield plane


@pytest.fixture
def run(plane: ControlPlane) -> int:
    """A queued run of `d`."""
    return plane.add_run("d")


@pytest.fixture
def work(plane: ControlPlane, run: int) -> ExecuteTask:
    """What the executor is handed for the first task of `run`."""
    (workload,) = plane.tick()
    return workload


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of localhost that is its own authority, and its key."""
    folder = tmp_path_factory.mktemp("certificate")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        + ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        + ["-keyout", str(key), "-out", str(cert)],
        check=True,
        capture_output=True,
    )
    return cert, key


@pytest.fixture
def days(inside: Callable[..., Days]) -> Days:
    return inside(Days, {"pipelines/days.yaml": cli_days.YAML})


@pytest.fixture
def trained(days: Days) -> Days:
    """Days 0 to 6 are there, without day 4; two checkpoints: [0, 3) and [3, 7) with a hole."""
    days.publish(0, 1, 2, 3, 5, 6)
    days.train(2)
    return days


@pytest.fixture
def history(inside: Callable[..., History]) -> History:
    return inside(History, {"pipelines/flights.yaml": cli_history.YAML})
