"""The installed command over a database server."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from tests.support.local_databases import LocalServer
from tests.support.tiny_project import FILE, NAME, assert_trained_exactly_once, tiny_project
from trainflow.metadata.database import Database
from trainflow.metadata.queries import run_queries


@pytest.mark.exhaustive
@pytest.mark.parametrize("server", ["postgres", "mariadb"])
def test_chain_is_trained_over_server(server: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    running: LocalServer = request.getfixturevalue(server)
    url = running.new_database()
    project = tiny_project(tmp_path / "tiny", days=9, settings=f'[database]\nurl = "{url}"\n')
    planned = json.loads(project.run("plan", FILE, "--json").output)
    ended = project.start(FILE)
    assert ended.code == 0, ended.output
    # a plan shows exactly what will run
    assert [
        (datetime.fromisoformat(run["start"]), datetime.fromisoformat(run["end"])) for run in planned["runs"]
    ] == project.boundaries(NAME)
    assert project.audit(NAME).partitions == 9
    assert_trained_exactly_once(project, days=9)
    assert not project.home.database.exists()
    assert make_url(url).database in project.run("config", "list").output
    database = Database(url)
    with database.reading() as connection:
        assert run_queries.counts(connection) == {NAME: {"success": 4}}
    database.close()


def test_server_that_is_not_there_is_said(tmp_path: Path) -> None:
    url = f"postgresql+psycopg://trainer:hidden@/nothing?host={tmp_path}"
    project = tiny_project(tmp_path / "tiny", days=3, settings=f'[database]\nurl = "{url}"\n')
    ended = project.start(FILE)
    assert ended.code != 0
    assert "cannot open the metadata database" in ended.output
    assert "hidden" not in ended.output
    assert "Traceback" not in ended.output
