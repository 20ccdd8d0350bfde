"""The metadata database lost, MLflow away: training goes on, and what was to be told is told once."""

from __future__ import annotations

import random
import re
import shutil
import socket
import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from tests.support.live_project import LiveProject, Running
from tests.support.tiny_project import FILE, NAME, assert_trained_exactly_once, digest, tiny_project
from trainflow.testing.processes import ProcessKind, wait_for

pytestmark = pytest.mark.slow


# -- the metadata database -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", [pytest.param("the database", marks=pytest.mark.exhaustive), "the whole home"])
def test_metadata_database_is_lost_in_middle(tmp_path: Path, what: str) -> None:
    days = 15
    project = tiny_project(tmp_path / "lost", days=days)
    undisturbed = tiny_project(tmp_path / "undisturbed", days=days, samples_of=project)
    running = project.begin_start(FILE)
    wait_for(lambda: project.committed(NAME) >= 3, lambda: running.output)
    # an attempt of the lost database is alive, and holds, when the next engine begins anew
    project.write("hold", "")
    wait_for(lambda: any(words[0] == "holding" for words in project.journal()), lambda: running.output)
    running.kill()
    orphans = project.processes(ProcessKind.CHILD)
    before = project.audit(NAME)
    if what == "the database":
        for file in project.home.path.glob("trainflow.db*"):
            file.unlink()
    else:
        shutil.rmtree(project.home.path)
    assert project.audit(NAME).partitions == before.partitions
    assert project.ask("audit", FILE).code == 0

    (project.root / "hold").unlink()
    ended = project.start(FILE)
    assert ended.code == 0, ended.output

    assert_trained_exactly_once(project, days)
    assert project.audit(NAME).head_number == days / 3
    if what == "the database":
        assert undisturbed.start(FILE).code == 0
        assert digest(project) == digest(undisturbed)
    wait_for(lambda: not any(orphan.alive for orphan in orphans), "the orphan to see that it is not waited for")


# -- MLflow --------------------------------------------------------------------------------------------------------


@pytest.fixture
def mirrored(tmp_path: Path) -> LiveProject:
    """Six days in two splits, with MLflow."""
    return tiny_project(tmp_path / "mirrored", days=6, settings="[tracking]\ndrain_seconds = 240\n")


def mlflow_runs(project: LiveProject) -> Counter[str]:
    """How often each DagRun, and the chain itself, is in MLflow; finished or not."""
    database = sqlite3.connect(project.home.mlflow_database)
    try:
        rows = database.execute("select value from tags where key = 'trainflow.run_key'").fetchall()
    finally:
        database.close()
    return Counter(value for (value,) in rows)


def undelivered(project: LiveProject) -> int:
    database = sqlite3.connect(project.home.database)
    try:
        return int(database.execute("select count(*) from outbox where delivered_at is null").fetchone()[0])
    finally:
        database.close()


@pytest.mark.exhaustive
def test_mlflow_is_away_and_comes_back(mirrored: LiveProject) -> None:
    for uri in ("http://127.0.0.1:9", "sqlite:////proc/nowhere/mlflow.db"):
        ended = mirrored.start(FILE, environ={"TRAINFLOW__TRACKING__URI": uri})
        assert ended.code == 0, ended.output
        assert re.search(r"deliver(y|ies) waits?", ended.output)
        assert_trained_exactly_once(mirrored, days=6)
        assert undelivered(mirrored)

    ended = mirrored.start(FILE)
    assert ended.code == 0, ended.output
    assert not re.search(r"deliver(y|ies) waits?", ended.output)
    assert undelivered(mirrored) == 0
    runs = mlflow_runs(mirrored)
    assert len(runs) >= 3  # the chain and its trainings
    assert set(runs.values()) == {1}
    mirrored.wait_until_quiet()


@pytest.mark.exhaustive
def test_mlflow_that_never_answers_does_not_delay_stop(mirrored: LiveProject) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        running = mirrored.begin_start(FILE, environ={"TRAINFLOW__TRACKING__URI": uri})
        running.wait_for_output("caught up")
        assert_trained_exactly_once(mirrored, days=6)
        running.wait_for_output(r"deliver(y|ies) to MLflow")
        running.control_c()
        ended = running.wait()
    assert re.search(r"deliver(y|ies) waits?", ended.output)
    assert ended.code == 0, ended.output
    mirrored.wait_until_quiet()


@pytest.mark.exhaustive
def test_notices_after_any_kill_are_told_once(mirrored: LiveProject) -> None:
    chance = random.Random(3)

    def kill_one(running: Running, kind: ProcessKind) -> Running:
        looks = chance.randrange(60)

        def strike() -> bool:
            nonlocal looks
            victims = mirrored.processes(kind)
            looks -= bool(victims)
            return running.ended or (looks < 0 and victims[0].kill())

        wait_for(strike, lambda: f"a {kind}: {mirrored.processes()}:\n{running.output}")
        if kind is ProcessKind.COMMAND or running.ended:
            running.wait()
            return mirrored.begin_start(FILE)
        return running

    running = mirrored.begin_start(FILE)
    for kind in (ProcessKind.DELIVERER, ProcessKind.COMMAND, ProcessKind.DELIVERER, ProcessKind.COMMAND):
        running = kill_one(running, kind)
    ended = running.wait()
    if undelivered(mirrored):  # the deliverer was killed last: the next try is only due later
        ended = mirrored.start(FILE)
    assert ended.code == 0, ended.output
    assert undelivered(mirrored) == 0
    runs = mlflow_runs(mirrored)
    assert set(runs.values()) == {1}
    mirrored.wait_until_quiet()
