"""`trainflow why` in every state of a chain."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
from sqlalchemy import Connection

from tests.integration.cli_home import NOW, YAML, Home, commit, publish
from trainflow.actions.first_runs import create_run
from trainflow.checkpoints.commit.gates import Gate
from trainflow.clock import SystemClock
from trainflow.errors import ChainStopped
from trainflow.insight.chains.overview import chains_overview
from trainflow.messages.execution_api import XComItem
from trainflow.messages.workload import ParseProblem
from trainflow.metadata.models import DagRunTable
from trainflow.metadata.queries import dag_queries, pool_queries, xcom_queries
from trainflow.settings.load import load_settings
from trainflow.states import DagRunState
from trainflow.workspace.workspace import Workspace

RUN = DagRunTable.table


@pytest.fixture
def home(inside: Callable[..., Home]) -> Iterator[Home]:
    home = inside(Home, {"pipelines/days.yaml": YAML})
    home.read()
    yield home
    home.database.close()


def test_why_nothing_was_started(home: Home) -> None:
    kind, sentence = home.why()

    assert kind == "never_started"
    assert sentence.startswith("days: it was never started")
    assert home.run("why") == (0, f"{sentence}\n")


def test_why_when_engine_is_gone(home: Home) -> None:
    home.start_run()

    assert home.why()[0] == "no_engine"


@pytest.mark.usefixtures("engine_of_home")
def test_why_in_every_state_of_run(home: Home) -> None:
    run = home.start_run()
    home.task(run, "samples", "deferred", note="waits: the partition 2013-01-01T00:00Z is not there yet")
    assert home.why() == ("waiting", "days: run 1 waits: the partition 2013-01-01T00:00Z is not there yet")

    home.task(run, "samples", "success")
    soon = SystemClock().now() + timedelta(seconds=90)
    home.task(run, "train", "up_for_retry", retry_at=soon, failures=1, problem="ValueError: nan")
    kind, sentence = home.why()
    assert kind == "retrying"
    assert "(try 2 of 3) after: ValueError: nan" in sentence

    home.task(run, "train", "scheduled", retry_at=None, problem=None)
    assert home.why() == ("no_slot", "days: run 1: task 'train' has to wait: pool 'gpu' does not exist")

    with home.database.transaction() as connection:
        pool_queries.put(connection, "gpu", 0, description="", include_deferred=False)
    assert "pool 'gpu' has 0 free slots, 1 is needed" in home.why()[1]

    home.start_run("second", start=False)
    assert home.why()[1].endswith("; run 2 is queued behind it (max_active_runs 1)")

    with home.database.transaction() as connection:
        dag_queries.pause(connection, "days", True)
    assert home.why()[0] == "paused"

    home.task(run, "train", "running", started_at=SystemClock().now())
    assert home.why()[0] == "training"


def test_why_after_failure_and_after_gate(home: Home) -> None:
    run = home.start_run()
    home.task(run, "train", "failed", problem="ValueError: nan")
    home.finish(run, DagRunState.FAILED)
    assert "failed: task 'train': ValueError: nan" in home.why()[1]

    run = home.start_run("second")
    with pytest.raises(ChainStopped):
        commit(home, 1, "second", metrics={"auc": 0.1}, gates=(Gate("auc >= 0.6"),))
    home.task(run, "commit", "failed", problem="chain days is stopped")
    home.finish(run, DagRunState.FAILED)
    kind, sentence = home.why()
    assert (kind, "auc >= 0.6: it is 0.1" in sentence) == ("gate", True)
    assert home.json("status")["pipelines"][0]["stopped"] == ["auc >= 0.6: it is 0.1"]
    assert home.json("plan", "days")["stopped"] == ["auc >= 0.6: it is 0.1"]
    assert "a gate stopped it: auc >= 0.6: it is 0.1; after 'trainflow resume days':" in home.run("plan", "days")[1]


def test_why_after_it_was_caught_up(home: Home) -> None:
    commit(home, 2, "earlier")
    run = home.start_run()
    home.task(run, "samples", "skipped", note="caught up at 2013-01-03T00:00Z: nothing after it")
    home.finish(run, DagRunState.SUCCESS)
    assert home.why() == ("caught_up", "days: caught up at 2013-01-03T00:00Z: nothing after it")

    publish(home, "2013-01-03")
    kind, sentence = home.why()
    assert (kind, "1 partition is ready after the head" in sentence) == ("ended", True)


def test_why_of_file_that_is_gone_before_any_engine_noticed(home: Home) -> None:
    (home.project.root / "pipelines/days.yaml").unlink()

    kind, sentence = home.why()

    assert (kind, "pipelines/days.yaml does not define it any more" in sentence) == ("missing_file", True)
    assert "no file defines it" in home.run("status")[1]


def written_at(home: Home, name: str, moment: datetime) -> None:
    os.utime(home.project.root / "pipelines" / name, (moment.timestamp(),) * 2)


def test_why_of_broken_file(home: Home) -> None:
    written_at(home, "days.yaml", NOW)
    with home.database.transaction() as connection:
        dag_queries.store_problem(connection, "pipelines/days.yaml", ParseProblem("days.yaml:2: no"), NOW)

    assert home.why() == (
        "broken_file",
        "days: the pipeline file cannot be read, so nothing is started: days.yaml:2: no",
    )


def test_why_and_status_of_file_changed_after_problem_was_recorded_say_when(home: Home) -> None:
    """It may be mended, and only an engine reads it."""
    with home.database.transaction() as connection:
        dag_queries.store_problem(connection, "pipelines/days.yaml", ParseProblem("days.yaml:2: no"), NOW)
    written_at(home, "days.yaml", NOW + timedelta(minutes=1))

    told = f"recorded at {NOW:%H:%M} UTC, and the file has changed since: days.yaml:2: no"
    assert home.why() == ("broken_file", f"days: the pipeline file cannot be read, so nothing is started: {told}")
    assert told in home.run("status")[1]


def test_why_of_file_that_could_not_be_read_at_first_says_what_is_wrong(home: Home) -> None:
    (home.project.root / "pipelines/weeks.yaml").write_text(YAML.replace("days", "weeks"))
    written_at(home, "weeks.yaml", NOW)
    assert "its file has not been read yet" in home.run("why", "weeks")[1]
    with home.database.transaction() as connection:
        dag_queries.store_problem(connection, "pipelines/weeks.yaml", ParseProblem("weeks.yaml:2: no such key"), NOW)

    assert home.run("why", "weeks") == (
        0,
        "weeks: the pipeline file cannot be read, so nothing is started: weeks.yaml:2: no such key\n",
    )
    assert "broken file" in home.run("status", "weeks")[1]


def test_status_of_deleted_file_does_not_tell_what_was_wrong_with_it(home: Home) -> None:
    with home.database.transaction() as connection:
        dag_queries.store_problem(connection, "pipelines/days.yaml", ParseProblem("days.yaml:2: no"), NOW)
    (home.project.root / "pipelines/days.yaml").unlink()

    said = home.run("status")[1]
    assert ("no file defines it" in said, "days.yaml:2: no" in said) == (True, False)


def test_ledger_that_lost_its_end_is_told_by_why_status_and_chains(home: Home) -> None:
    commit(home, 1, "first")
    run = home.start_run()
    ended = {"state": DagRunState.SUCCESS, "ended_at": NOW}
    handed = {"pipeline": "days", "stage": "main", "branch": "main", "number": 1}
    with home.database.transaction() as connection:
        connection.execute(RUN.update().where(RUN.c.id == run).values(**ended))
        for number, item in ((1, handed), (2, handed | {"number": 3}), (3, None), (4, handed | {"number": 2})):
            key = run if number == 1 else _another_run(connection, number, ended)
            if item is not None:
                value = XComItem("return_value", msgspec.Raw(msgspec.json.encode(item)))
                xcom_queries.put(connection, key, "commit", -1, [value], NOW)

    told = "run 2 of this home committed checkpoint 3"
    assert told in home.why()[1]
    [line] = home.json("status")["pipelines"]
    assert line["lost_end"].startswith(told)
    assert "knows none after 1" in line["lost_end"]
    assert told in " ".join(home.run("status")[1].split())
    [chain] = chains_overview(Workspace(home.project, load_settings(home.project), home.database), NOW)
    assert chain.lost_end == line["lost_end"]


def _another_run(connection: Connection, number: int, ended: dict[str, Any]) -> int:
    made = create_run(connection, "days", {}, NOW)
    connection.execute(RUN.update().where(RUN.c.id == made).values(**ended))
    return made
