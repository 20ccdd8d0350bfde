"""A chain whose tasks run without the engine: the same model as on one machine, whatever is killed on the way."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from tests.support.faulty_proxy import Partition
from tests.support.fleets import (
    DAYS,
    EXECUTORS,
    DatabaseKills,
    celery_worker,
    fleet,
    trains_while,
)
from tests.support.live_project import LiveProject
from tests.support.local_brokers import local_broker
from tests.support.local_databases import LocalServer, local_mariadb, local_postgres
from tests.support.ports import free_port
from tests.support.tiny_project import FILE, NAME, assert_trained_exactly_once, digest, tiny_project
from trainflow.checkpoints.ledger.entries import SupersededAttempt
from trainflow.testing.processes import wait_for

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> LiveProject:
    """A project that one machine has trained."""
    project = tiny_project(tmp_path_factory.mktemp("one") / "tiny", days=DAYS)
    assert project.start(FILE).code == 0
    project.close()
    return project


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("kind", "server"),
    # each executor, and each server; python -m tests.storm --database has the others
    [
        ("celery", local_postgres),
        ("workload", local_mariadb),
        ("kubernetes", local_mariadb),
        ("ray", local_postgres),
    ],
)
def test_chain_whose_workers_and_database_server_are_killed_is_that_of_one_machine(
    tmp_path: Path, undisturbed: LiveProject, kind: str, server: Callable[..., AbstractContextManager[LocalServer]]
) -> None:
    """The supervisor of an attempt; a worker of Celery, and the broker with what is in it; a pod."""
    with (
        server(durable=True) as database,
        EXECUTORS[kind](tmp_path) as elsewhere,
        fleet(tmp_path / "fleet", elsewhere.table, undisturbed, database_url=database.new_database()) as project,
        elsewhere.workers(project) as kills,
    ):
        trains_while(project, *kills, DatabaseKills(database, project), times=2)
        assert_trained_exactly_once(project, DAYS)
        assert digest(project) == digest(undisturbed)
        assert project.ask("audit", FILE).code == 0


@pytest.mark.exhaustive
def test_attempt_that_is_cut_off_while_another_commits_changes_nothing_and_both_are_told(
    tmp_path: Path, undisturbed: LiveProject
) -> None:
    """On another host, as far as the engine can tell: nothing but the API server connects them."""
    port = free_port()
    with (
        closing(Partition(port)) as network,
        local_broker(tmp_path / "broker") as broker,
        fleet(
            tmp_path / "fleet",
            f'{{type = "celery", slots = 4, broker = "{broker.url}"}}',
            undisturbed,
            port=port,
            reached_by=network.port,
        ) as project,
        celery_worker(project),
    ):
        project.write("hold", "")
        project.begin("standalone")
        wait_for(lambda: ready(port), project.engine_log)
        running = project.begin_start(FILE)
        wait_for(lambda: held(project) == 1, lambda: running.output + project.engine_log())
        first = training(project)["attempts"][0]["attempt_id"]
        network.cut(first)
        wait_for(lambda: held(project) == 2, lambda: running.output + project.engine_log())
        said = project.ask("why", FILE).output
        assert "is training" in said
        assert "after an attempt that ended early: its worker was not heard for 4 s" in said
        # it trains on to its end, as far from the other one as from the API server
        (project.root / "hold").unlink()
        assert running.wait().code == 0, project.engine_log()
        before = (digest(project), project.committed(NAME))
        network.heal()
        wait_for(lambda: training(project)["attempts"][0]["refused_at"], "the first attempt to be refused")

        assert (digest(project), project.committed(NAME)) == before
        assert_trained_exactly_once(project, DAYS)
        assert digest(project) == digest(undisturbed)
        # the run's history
        lost, counts = training(project)["attempts"]
        assert [(each["attempt_id"] == first, each["outcome"]) for each in (lost, counts)] == [
            (True, "lost"),
            (False, "success"),
        ]
        # and that of the ledger
        checkpoint = project.checkpoints(NAME)[0]
        assert checkpoint.id == counts["attempt_id"]
        assert checkpoint.superseded == [SupersededAttempt(first, "train", "lost", lost["hostname"])]
        assert f"after train {first} (lost) on {lost['hostname']}" in project.ask("checkpoints", "ledger", FILE).output


def ready(port: int) -> bool:
    """Whether an API server answers that there is a scheduler."""
    try:
        with urlopen(f"http://127.0.0.1:{port}/ready") as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def held(project: LiveProject) -> int:
    """How many attempts have come to where they wait for `hold` to go."""
    return sum(words[0] == "holding" for words in project.journal())


def training(project: LiveProject) -> dict[str, Any]:
    """What `trainflow tasks show` says of the training of the first run."""
    facts: dict[str, Any] = json.loads(project.ask("tasks", "show", NAME, "1", "train", "--json").output)
    return facts
