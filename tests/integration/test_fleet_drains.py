"""What is drained takes nothing new and finishes what it has; workers are rows, written by the API server."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from sqlalchemy import Connection, update

from tests.support.api import RunningApi, running_api
from tests.support.control_plane import ControlPlane, control_plane, empty_task
from trainflow.actions import fleet as actions
from trainflow.actions.fleet import DrainKind
from trainflow.errors import InputError
from trainflow.execution import worker_heartbeats
from trainflow.execution.http_api_client import ApiAddress
from trainflow.execution.worker_heartbeats import WorkerHeartbeats
from trainflow.insight.fleet import Fleet
from trainflow.insight.fleet import fleet as insight
from trainflow.insight.snapshot import EngineSnapshot, dag_snapshots
from trainflow.insight.why import explain
from trainflow.messages.http_protocol import (
    PREFIX,
    PROTOCOL,
    PROTOCOL_HEADER,
    WORKER_OPERATION,
    WorkerHeartbeat,
    WorkerOrders,
)
from trainflow.metadata.models import ServiceTable
from trainflow.metadata.queries import service_queries
from trainflow.metadata.queries.service_list_queries import ExecutorState
from trainflow.metadata.queries.worker_queries import note_worker
from trainflow.settings.model import ApiSettings, Settings, WorkerSettings
from trainflow.testing.processes import wait_for
from trainflow.workspace.workspace import Workspace

HERE = socket.gethostname()
SECRET, OTHER = "0123456789abcdef", "fedcba9876543210"


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[ControlPlane]:
    with control_plane(
        tmp_path, settings=Settings(executors={"local": {}, "away": {"type": "celery", "broker": "x"}})
    ) as plane:
        plane.scheduler.task_queue.is_remote = lambda name: name == "away"
        yield plane


def workspace(plane: ControlPlane) -> Workspace:
    return Workspace(plane.project, plane.settings, plane.database)


def drain(plane: ControlPlane, kind: DrainKind, name: str, note: str | None = None) -> None:
    actions.drain(workspace(plane), kind, name, plane.clock.now(), note=note)
    plane.scheduler.sweep()


def undrain(plane: ControlPlane, kind: DrainKind, name: str) -> None:
    actions.undrain(workspace(plane), kind, name)
    plane.scheduler.sweep()


def seen(plane: ControlPlane) -> Fleet:
    return insight(workspace(plane), plane.clock.now())


def test_drained_queue_takes_nothing_until_it_is_let_go_on(plane: ControlPlane) -> None:
    plane.add_dag("d", empty_task("small"), empty_task("large", queue="gpu"))
    drain(plane, DrainKind.QUEUE, "gpu", "new drivers")
    run = plane.add_run("d")
    (small,) = plane.tick()
    assert small.task_id == "small"
    plane.claim(small)
    why = "queue 'gpu' is drained (new drivers): 'trainflow fleet undrain queue gpu' lets it go on"
    assert list(plane.scheduler.task_queue.refused.values()) == [why]
    oldest = seen(plane).oldest_waiting
    assert oldest is not None
    assert (oldest.task_id, oldest.why) == ("large", why)
    undrain(plane, DrainKind.QUEUE, "gpu")
    assert [work.task_id for work in plane.tick()] == ["large"]
    assert plane.task(run, "large").lost == 0


def test_drained_dag_finishes_what_runs_and_begins_nothing(plane: ControlPlane) -> None:
    plane.add_dag("d", empty_task("a"), empty_task("b", "a"))
    plane.add_dag("other", empty_task("a"))
    first = plane.add_run("d", "r1")
    (running,) = plane.tick()
    plane.claim(running)
    drain(plane, DrainKind.DAG, "d")
    second = plane.add_run("d", "r2")
    plane.add_run("other")
    assert [work.dag_id for work in plane.tick()] == ["other"]
    plane.report(running)
    assert plane.tick() == []
    assert plane.states(first) == {"a": "success", "b": "scheduled"}
    assert plane.run(second).state == "queued"
    undrain(plane, DrainKind.DAG, "d")
    assert {(work.run_id, work.task_id) for work in plane.tick()} == {("r1", "b"), ("r2", "a")}


def test_drained_dag_that_is_first_in_line_keeps_no_other_waiting(plane: ControlPlane) -> None:
    plane.add_dag("d", *(empty_task(f"t{number}", priority_weight=9) for number in range(60)), max_active_tasks=100)
    plane.add_dag("other", empty_task("a"))
    plane.add_run("d")
    # the run has begun, and none of its tasks
    plane.scheduler.task_queue.problems = lambda: {"local": "not yet"}
    plane.tick()
    plane.scheduler.task_queue.problems = dict
    drain(plane, DrainKind.DAG, "d")
    plane.add_run("other")
    assert [work.dag_id for work in plane.tick()] == ["other"]


def test_drained_host_runs_nothing_of_its_own(plane: ControlPlane) -> None:
    plane.add_dag("d", empty_task("here"), empty_task("there", executor="away"))
    say(plane, name="w")
    plane.database.write(
        lambda connection: connection.exec_driver_sql(f"UPDATE service SET hostname = '{HERE}'") and None
    )
    drain(plane, DrainKind.WORKER, HERE)
    plane.add_run("d")
    assert [work.task_id for work in plane.tick()] == ["there"]
    undrain(plane, DrainKind.WORKER, HERE)
    assert [work.task_id for work in plane.tick()] == ["here"]


@pytest.mark.parametrize(("kind", "name"), [(DrainKind.DAG, "dd"), (DrainKind.WORKER, "nowhere")])
def test_drain_of_what_is_not_known_is_refused(plane: ControlPlane, kind: DrainKind, name: str) -> None:
    plane.add_dag("d", empty_task("a"))
    with pytest.raises(InputError, match=f"called '{name}'"):
        drain(plane, kind, name)
    with pytest.raises(InputError, match="is not drained"):
        undrain(plane, kind, name)


def heartbeat(**more: Any) -> WorkerHeartbeat:
    """What a worker says."""
    facts: dict[str, Any] = {"name": "w", "hostname": "there", "pid": 7, "process_started": 1.0, "version": "0.1.0"}
    return WorkerHeartbeat(**{**facts, "executor": "away", "queues": ["default", "gpu"], "slots": 4, **more})


def say(plane: ControlPlane, **more: Any) -> WorkerOrders:
    from trainflow.metadata.queries.worker_queries import note_worker

    return plane.database.write(lambda connection: note_worker(connection, heartbeat(**more), plane.clock.now()))


def test_worker_is_one_row_as_long_as_it_lives(plane: ControlPlane) -> None:
    first = say(plane)
    again = say(plane, service_id=first.service_id, in_use=3)
    assert again.service_id == first.service_id
    (worker,) = seen(plane).workers
    assert (worker.name, worker.executor, worker.queues, worker.slots, worker.in_use) == (
        *("w", "away", ["default", "gpu"], 4, 3),
    )
    say(plane, service_id=first.service_id, ends=True)
    assert seen(plane).workers == []
    # one that is not remembered any more is new
    assert say(plane, service_id=99).service_id != 99


def test_worker_cannot_write_row_of_part_of_control_plane(plane: ControlPlane) -> None:
    assert say(plane, service_id=plane.service_id).service_id != plane.service_id


def test_worker_that_is_silent_is_not_shown(plane: ControlPlane) -> None:
    say(plane)
    plane.clock.advance(timedelta(minutes=10))
    assert seen(plane).workers == []


@pytest.mark.parametrize(("kind", "name", "queues"), [("worker", "w", ["default", "gpu"]), ("queue", "gpu", ["gpu"])])
def test_worker_is_told_what_is_drained(plane: ControlPlane, kind: str, name: str, queues: list[str]) -> None:
    assert say(plane).drained_queues == []
    drain(plane, DrainKind(kind), name, "new drivers")
    told = say(plane)
    assert told.drained_queues == queues
    assert f"{kind} '{name}' is drained (new drivers)" in told.reason
    (drained,) = seen(plane).drained
    assert (drained.kind, drained.name, drained.note) == (kind, name, "new drivers")


def why_of(plane: ControlPlane, dag_id: str = "d") -> str:
    """What `trainflow why` says."""
    engine = EngineSnapshot(True, 1, "here", plane.clock.now(), True)
    with plane.database.reading() as connection:
        (snapshot,) = dag_snapshots(connection, plane.settings, engine, plane.clock.now(), dag_id=dag_id)
    return explain(snapshot, None, plane.clock.now()).sentence


def test_task_whose_workers_are_all_drained_says_so(plane: ControlPlane) -> None:
    plane.add_dag("d", empty_task("large", queue="gpu", executor="away"))
    first, second = say(plane), say(plane, name="v", hostname="yonder")
    run = plane.add_run("d")
    plane.tick()
    assert plane.states(run) == {"large": "queued"}
    plane.clock.advance(timedelta(seconds=20))
    say(plane, service_id=first.service_id)
    say(plane, name="v", hostname="yonder", service_id=second.service_id)
    drain(plane, DrainKind.WORKER, "w", "new drivers")
    # the other one may take it
    assert "is a worker listening on queue 'gpu'?" in why_of(plane)
    drain(plane, DrainKind.WORKER, "yonder")
    told = (
        "no worker takes anything from queue 'gpu': worker 'w' is drained (new drivers): 'trainflow fleet undrain "
        "worker w' lets it go on; worker 'yonder' is drained: 'trainflow fleet undrain worker yonder' lets it go on"
    )
    assert why_of(plane) == f"d: run 1: task 'large' has to wait: {told}"
    oldest = seen(plane).oldest_waiting
    assert oldest is not None
    assert oldest.why == told
    undrain(plane, DrainKind.WORKER, "yonder")
    assert "is a worker listening on queue 'gpu'?" in why_of(plane)


def test_task_of_engines_that_are_all_drained_says_so(plane: ControlPlane) -> None:
    plane.add_dag("d", empty_task("a"))

    def live_here(connection: Connection) -> None:
        service_queries.note_executors(connection, plane.service_id, [ExecutorState("local", "local", 4)])
        process = {"hostname": HERE, "pid": os.getpid(), "process_started": 0.0}
        connection.execute(update(ServiceTable.table).values(process))

    plane.database.write(live_here)
    drain(plane, DrainKind.WORKER, HERE)
    plane.add_run("d")
    assert plane.tick() == []
    assert f"executor 'local' takes nothing: worker '{HERE}' is drained: 'trainflow fleet undrain" in why_of(plane)


@pytest.mark.parametrize(("kind", "name", "shown"), [("queue", "gpu", "queue 'gpu'"), ("dag", "d", "DAG 'd'")])
def test_why_says_of_drained_queue_and_dag_how_they_go_on(
    plane: ControlPlane, kind: str, name: str, shown: str
) -> None:
    plane.add_dag("d", empty_task("large", queue="gpu"))
    drain(plane, DrainKind(kind), name, "new drivers")
    plane.add_run("d")
    assert plane.tick() == []
    assert f"{shown} is drained (new drivers): 'trainflow fleet undrain {kind} {name}' lets it go on" in why_of(plane)


def post(api: RunningApi, body: bytes, token: str | None = None, protocol: int = PROTOCOL) -> tuple[int, Any]:
    given = {PROTOCOL_HEADER: str(protocol)} | ({} if token is None else {"Authorization": f"Bearer {token}"})
    answer = api.ask("POST", f"{PREFIX}/{WORKER_OPERATION}", body, **given)
    return answer.status, answer.body


@pytest.mark.parametrize(
    ("token", "status"), [(None, 401), ("wrong", 401), ("tftoken_" + "a" * 43, 401), (SECRET, 200), (OTHER, 200)]
)
def test_worker_shows_its_token(plane: ControlPlane, token: str | None, status: int) -> None:
    settings = Settings(api=ApiSettings(token=OTHER), workers=WorkerSettings(token=SECRET))
    with running_api(plane, settings) as api:
        assert post(api, msgspec.json.encode(heartbeat()), token)[0] == status
    assert len(seen(plane).workers) == (1 if status == 200 else 0)


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"[1]", msgspec.json.encode(heartbeat()).replace(b'"slots":4', b'"slots":-1'), b"x" * 100_000],
    ids=["nothing", "no facts", "a list", "negative", "too large"],
)
def test_worker_that_is_not_understood_changes_nothing(plane: ControlPlane, body: bytes) -> None:
    with running_api(plane) as api:
        assert post(api, body)[0] in (400, 413)
        assert post(api, msgspec.json.encode(heartbeat()), protocol=99)[0] == 400
    assert seen(plane).workers == []


def test_worker_says_that_it_lives_and_hears_what_is_drained(plane: ControlPlane) -> None:
    heard: list[WorkerOrders] = []
    with running_api(plane) as api:
        presence = WorkerHeartbeats(
            ApiAddress(api.url), None, describe=heartbeat, on_orders=heard.append, heartbeat_seconds=0.01
        )
        presence.begin()
        wait_for(lambda: seen(plane).workers, "the worker to be there")
        drain(plane, DrainKind.WORKER, "w")
        wait_for(lambda: heard, "the worker to hear it")
        undrain(plane, DrainKind.WORKER, "w")
        wait_for(lambda: len(heard) == 2, "the worker to hear it")
        presence.end()
    assert [orders.drained_queues for orders in heard] == [["default", "gpu"], []]
    assert seen(plane).workers == []


def test_worker_whose_token_is_refused_says_so_once(plane: ControlPlane, caplog: pytest.LogCaptureFixture) -> None:
    with running_api(plane, Settings(workers=WorkerSettings(token=SECRET))) as api:
        presence = WorkerHeartbeats(
            ApiAddress(api.url), "wrong", describe=heartbeat, on_orders=print, heartbeat_seconds=0.01
        )
        presence.begin()
        wait_for(lambda: "show workers.token" in caplog.text, "the complaint")
        presence.end()
    assert caplog.text.count("does not take that this worker lives") == 1
    assert "wrong" not in caplog.text


def test_worker_ahead_of_its_api_server_takes_nothing_until_that_is_upgraded(
    plane: ControlPlane, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers are to be upgraded last; those that are not yet have what is in the queues."""
    heard: list[WorkerOrders] = []
    with running_api(plane) as api, monkeypatch.context() as ahead:
        ahead.setattr(worker_heartbeats, "PROTOCOL", PROTOCOL + 1)
        presence = WorkerHeartbeats(
            ApiAddress(api.url), None, describe=heartbeat, on_orders=heard.append, heartbeat_seconds=0.01
        )
        presence.begin()
        wait_for(lambda: heard, "the worker to leave its queues alone")
        ahead.undo()
        wait_for(lambda: len(heard) == 2, "the worker to listen again")
        presence.end()
    assert [orders.drained_queues for orders in heard] == [["default", "gpu"], []]
    assert "upgrade the API server (and the scheduler) before the workers" in heard[0].reason


def test_worker_of_another_installation_says_so_and_follows_no_drain(
    plane: ControlPlane, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[WorkerOrders] = []
    drain(plane, DrainKind.QUEUE, "gpu")
    with running_api(plane) as api:
        presence = WorkerHeartbeats(
            ApiAddress(api.url), None, describe=heartbeat, on_orders=heard.append, heartbeat_seconds=0.01
        )
        presence.note_served("another")
        presence.begin()
        wait_for(lambda: "that of another installation" in caplog.text, "the complaint")
        assert heard == []
        presence.note_served(plane.database.read(service_queries.installation))
        wait_for(lambda: heard, "the worker to hear it")
        presence.end()
    assert caplog.text.count("does not take that this worker lives") == 1


def test_worker_that_another_database_knew_takes_no_row_of_this_one(plane: ControlPlane) -> None:
    def say(said: WorkerHeartbeat) -> int:
        return plane.database.write(lambda connection: note_worker(connection, said, plane.clock.now())).service_id

    first = say(heartbeat())
    own = plane.database.read(service_queries.installation)
    assert say(replace(heartbeat(), service_id=first, installation=own)) == first
    assert say(replace(heartbeat(), service_id=first, installation="another")) != first
