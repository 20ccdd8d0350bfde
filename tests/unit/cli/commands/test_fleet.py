from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.control_plane import empty_task
from trainflow.cli.commands.fleet import _print
from trainflow.insight.fleet import Fleet, FleetExecutor, FleetPart, FleetWorker

KEYS = {"parts", "workers", "executors", "queues", "oldest_waiting", "drained"}


def test_fleet_has_documented_keys(plane, cli):
    plane.add_dag("d", empty_task("a", queue="gpu"))
    plane.add_run("d")
    plane.tick()
    found = cli("fleet", "--json").json
    assert set(found) == KEYS
    (queue,) = found["queues"]
    assert (queue["queue"], queue["executor"], queue["queued"]) == ("gpu", "local", 1)
    assert found["oldest_waiting"]["task_id"] == "a"


def test_drain_and_undrain_are_shown(plane, cli):
    plane.add_dag("d", empty_task("a"))
    assert cli("fleet", "drain", "dag", "d", "--note", "new disk", "--json").json["changed"] is True
    assert cli("fleet", "drain", "dag", "d", "--json").json["changed"] is False
    assert [each["name"] for each in cli("fleet", "--json").json["drained"]] == ["d"]
    assert "'d' is drained" in cli("fleet").out
    assert cli("fleet", "undrain", "dag", "d", "--json").json["drained"] is False
    assert cli("fleet", "--json").json["drained"] == []


def test_what_cannot_be_drained_is_refused(plane, cli):
    said = cli("fleet", "drain", "dags", "d")
    assert (said.code, "did you mean 'dag'" in said.err) == (2, True)
    assert cli("fleet", "undrain", "queue", "gpu").code == 2


NOW = datetime(2026, 1, 1, tzinfo=UTC)


def part(kind: str, slots: int | None, in_use: int | None) -> FleetPart:
    return FleetPart(kind=kind, version="1", slots=slots, in_use=in_use, **about())


def about() -> dict[str, Any]:
    seen = NOW - timedelta(seconds=2)
    return {"hostname": "h", "pid": 7, "started_at": seen, "heartbeat_at": seen, "drained": None}


def test_slots_are_those_of_schedulers_and_executors_that_have_them(capsys: pytest.CaptureFixture[str]) -> None:
    worker = FleetWorker(name="w", version="1", executor="gpu", queues=["q"], slots=4, in_use=3, **about())
    executors = [
        FleetExecutor(name="local", type="local", slots=2, queued=0, running=1, problem=None),
        FleetExecutor(name="gpu", type="celery", slots=64, queued=5, running=3, problem="no broker"),
    ]
    parts = [part("engine", 2, 1), part("scheduler", None, None), part("triggerer", None, None)]
    _print(Fleet(parts=parts, workers=[worker], executors=executors, queues=[], oldest_waiting=None, drained=[]), NOW)
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "PART       HOST  PID  VERSION  SLOTS   SEEN",
        "engine     h     7    1        1 of 2  2.0s ago",
        "scheduler  h     7    1        -       2.0s ago",
        "triggerer  h     7    1                2.0s ago",
        "WORKER  HOST  PID  VERSION  EXECUTOR  QUEUES  SLOTS   SEEN",
        "w       h     7    1        gpu       q       3 of 4  2.0s ago",
        "EXECUTOR  TYPE    SLOTS",
        "gpu       celery  8 of 64",
        "executor 'gpu' takes nothing: no broker",
    ]
