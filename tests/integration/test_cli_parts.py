"""The parts of the control plane as processes of their own, and files read by commands."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection

from tests.support.live_project import LiveProject
from trainflow.metadata.database import Database
from trainflow.metadata.queries import dag_queries, run_queries
from trainflow.settings.model import Settings
from trainflow.testing.processes import wait_for

PIPELINE = """
from trainflow import DAG
from trainflow.authoring.param import Param
from trainflow.operators import BashOperator, EmptyOperator

with DAG("small", params={"rows": Param(1, type="integer")}):
    EmptyOperator(task_id="only")

with DAG("long"):
    BashOperator(task_id="sleeps", bash_command="echo began; exec sleep 600")
"""
ONE = """
from trainflow import DAG
from trainflow.operators import EmptyOperator

with DAG("one"):
    EmptyOperator(task_id="only")
"""


@pytest.fixture
def project(tmp_path: Path) -> LiveProject:
    project = LiveProject(tmp_path / "project")
    project.write("pipelines/some.py", PIPELINE)
    return project


def rows(project: LiveProject, *arguments: str) -> list[dict[str, object]]:
    ended = project.run(*arguments, "--json")
    assert ended.code == 0, ended.output
    found: list[dict[str, object]] = json.loads(ended.output)
    return found


def wait_for_dags(project: LiveProject, *dag_ids: str) -> None:
    def read() -> bool:
        with project_database(project) as connection:
            return set(dag_ids) <= {row.dag_id for row in dag_queries.everything(connection)}

    wait_for(read, lambda: f"{dag_ids} to be read: {project.engine_log()}")


def wait_for_run(project: LiveProject, dag_id: str, run_id: str, state: str) -> None:
    def there() -> bool:
        with project_database(project) as connection:
            return run_queries.get(connection, dag_id, run_id).state == state

    wait_for(there, lambda: f"run {run_id} of {dag_id} to be {state}: {project.engine_log()}")


@contextmanager
def project_database(project: LiveProject) -> Iterator[Connection]:
    """What is in the database now; the schema is there as soon as a part says that it is alive."""
    database = Database.of(project.home, Settings())
    try:
        with database.reading() as connection:
            yield connection
    finally:
        database.close()


@pytest.mark.slow
class TestStandalone:
    def test_reads_runs_cancels_and_stops(self, project: LiveProject) -> None:
        engine = project.begin("standalone")
        engine.wait_for_output("is alive")
        wait_for_dags(project, "small", "long")
        assert project.run("runs", "trigger", "small", "--run-id", "r").code == 0
        wait_for_run(project, "small", "r", "success")
        assert project.run("runs", "trigger", "long", "--run-id", "r").code == 0
        wait_for_run(project, "long", "r", "running")
        assert project.run("db", "reset", "--yes").code == 1
        second = project.run("standalone")
        assert (second.code, f"pid {engine.pid}" in second.output) == (1, True)
        assert project.run("runs", "cancel", "long", "r").code == 0
        wait_for_run(project, "long", "r", "failed")
        stopped = project.run("stop", "--now")
        assert (stopped.code, "has stopped" in stopped.output) == (0, True)
        assert engine.wait().code == 0
        assert "no engine is alive" in project.run("stop").output

    def test_parts_apart(self, project: LiveProject) -> None:
        parts = [project.begin(name) for name in ("scheduler", "triggerer", "dag-processor")]
        for part in parts:
            part.wait_for_output("is alive")
        wait_for_dags(project, "small")
        assert project.run("runs", "trigger", "small", "--run-id", "r").code == 0
        wait_for_run(project, "small", "r", "success")
        for part in parts:
            part.signal(signal.SIGTERM)
        assert [part.wait().code for part in parts] == [0, 0, 0]


class TestFiles:
    def test_file_is_described_and_nothing_kept(self, project: LiveProject) -> None:
        ended = project.run("dags", "test", "pipelines/some.py", "--json")
        assert ended.code == 0
        facts = json.loads(ended.output)
        assert facts["problem"] is None
        assert [document["dag_id"] for document in facts["dags"]] == ["small", "long"]
        assert not project.home.database.exists()

    def test_broken_one_says_where(self, project: LiveProject) -> None:
        project.write("pipelines/broken.yaml", "pipeline: broken\ntrian: {}\n")
        ended = project.run("dags", "test", "broken")
        assert ended.code == 2
        assert "pipelines/broken.yaml:2" in ended.output
        told = json.loads(project.run("dags", "test", "broken", "--json").output)
        assert told["dags"] == []
        assert "trian" in told["problem"]

    def test_run_of_what_file_says_now(self, project: LiveProject) -> None:
        file = project.write("pipelines/one.py", ONE)
        assert project.run("runs", "trigger", "pipelines/one.py", "--run-id", "first").code == 0
        file.write_text(ONE + "    EmptyOperator(task_id='more')\n")
        assert project.run("runs", "trigger", "pipelines/one.py", "--run-id", "second").code == 0
        shown = [project.run("runs", "show", "one", run, "--json").output for run in ("first", "second")]
        assert [json.loads(one)["version"] for one in shown] == [1, 2]

    def test_file_of_two_dags_asks_which(self, project: LiveProject) -> None:
        ended = project.run("runs", "trigger", "pipelines/some.py")
        assert (ended.code, "name one of long, small" in ended.output) == (2, True)
        assert project.run("runs", "trigger", "small").code == 0
        assert [row["dag_id"] for row in rows(project, "runs", "list")] == ["small"]
