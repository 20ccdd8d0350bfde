"""Attempts on other hosts over a network that loses, cuts, doubles, delays and reorders their messages, and a server
that is away now and then: what comes of them is what comes of them undisturbed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from sqlalchemy import select

from tests.support.api import RunningApi, running_api
from tests.support.control_plane import ControlPlane, control_plane, empty_task
from tests.support.faulty_proxy import FaultyProxy
from trainflow.execution.http_api_client import ApiUnreachable, HttpApiClient
from trainflow.execution.remote_attempt import LogTail
from trainflow.messages.execution_api import (
    AttemptFailure,
    Done,
    GetXCom,
    Heartbeat,
    Outcome,
    OutcomeState,
    Progress,
    Refused,
    RowsSaved,
    Start,
    Started,
    TriggeredRun,
    TriggerRun,
    XComItem,
    XComValues,
)
from trainflow.messages.workload import ExecuteTask
from trainflow.metadata.models import AttemptTable, DagRunTable, TaskInstanceTable, XComTable
from trainflow.serialization.document import RetryDocument

SEEDS = range(12)


class Result(NamedTuple):
    """What is left of a history in the database and in the logs, but for ids."""

    runs: Any
    tasks: Any
    xcoms: Any
    attempts: Any
    logs: list[str]


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningApi]:
    monkeypatch.setattr("trainflow.api.heartbeats.GATHER_SECONDS", 0.0)
    with control_plane(tmp_path / "home") as plane, running_api(plane) as api:
        plane.add_dag("d", empty_task("a", retry=RetryDocument(retries=1)), empty_task("b", "a"), empty_task("c", "b"))
        plane.add_dag("next", empty_task("x"))
        plane.add_run("d")
        yield api


class Worker:
    """Plays attempts on the other side of a proxy."""

    def __init__(self, api: RunningApi, proxy: FaultyProxy, folder: Path) -> None:
        self._api = api
        self._proxy = proxy
        self._folder = folder
        self._tries: Counter[str] = Counter()

    def client(self, work: ExecuteTask) -> HttpApiClient:
        """The line of a process of its own."""
        url, secret = f"http://127.0.0.1:{self._proxy.port}", self._api.secrets[work.key.attempt_id]
        clock = self._api.plane.clock
        return HttpApiClient(url, secret, clock=clock, sleep=lambda _seconds: None, answer_seconds=20)

    def play(self, work: ExecuteTask) -> None:
        """One attempt, from its claim to its outcome. The first try of `a` fails."""
        self._tries[work.task_id] += 1
        self._api.issue(work)
        client = self.client(work)
        assert isinstance(client.handle(Start(work.key, 7, 1.0, "there")), Started)
        for rows in (10, 20, 30):
            assert client.handle(Progress(work.key, float(rows), 30.0)) == Done()
            assert client.handle(RowsSaved(work.key, rows)) == Done()
            assert client.ask(Heartbeat(work.key)) == Done()
        self._log(client, work)
        if work.task_id == "b":
            values = client.handle(GetXCom(work.key, "d", "r1", ["a"], "return_value"))
            assert isinstance(values, XComValues)
            assert values.values == {"a": msgspec.Raw(b'{"of":"a"}')}
            assert client.handle(TriggerRun(work.key, TriggeredRun("next", "n1"))) == Done()
        assert client.handle(self._outcome(work)) == Done()
        client.close()

    def _log(self, client: HttpApiClient, work: ExecuteTask) -> None:
        path = self._folder / f"{work.task_id}{self._tries[work.task_id]}.log"
        tail = LogTail(client, work.key, path)
        for line in range(4):
            with path.open("a") as file:
                file.write(f"{work.task_id}: line {line}\n")
            while True:
                try:
                    while tail.send():
                        pass
                    break
                except ApiUnreachable:
                    continue

    def _outcome(self, work: ExecuteTask) -> Outcome:
        if work.task_id == "a" and self._tries["a"] == 1:
            return Outcome(work.key, OutcomeState.FAILED, problem=AttemptFailure("it failed"), saved_rows=30)
        value = XComItem("return_value", msgspec.Raw(msgspec.json.encode({"of": work.task_id})))
        runs = [TriggeredRun("next", "n2")] if work.task_id == "c" else []
        return Outcome(work.key, OutcomeState.SUCCESS, xcoms=[value], triggered_runs=runs, saved_rows=30)


def history(api: RunningApi, proxy: FaultyProxy, folder: Path) -> Result:
    """Run everything that is to be run to its end."""
    worker, plane = Worker(api, proxy, folder), api.plane
    folder.mkdir()
    for _ in range(20):
        works = plane.tick()
        for work in works:
            worker.play(work)
        plane.clock.advance(timedelta(hours=1))
        plane.scheduler.sweep()
    proxy.close()
    return result(plane)


def result(plane: ControlPlane) -> Result:
    run, task, xcom, attempt = (each.table for each in (DagRunTable, TaskInstanceTable, XComTable, AttemptTable))
    of_tasks = ("task_id", "state", "failures", "lost", "saved_rows", "credited_rows", "problem", "note")
    with plane.database.reading() as connection:

        def rows(*columns: Any) -> list[Any]:
            return sorted((tuple(row) for row in connection.execute(select(*columns))), key=repr)

        names = sorted(connection.execute(select(attempt.c.queued_at, attempt.c.log_name)))
        return Result(
            rows(*(run.c[name] for name in ("dag_id", "run_id", "state", "number"))),
            rows(*(task.c[name] for name in of_tasks)),
            rows(*(xcom.c[name] for name in ("dag_run_id", "task_id", "key", "value"))),
            rows(*(attempt.c[name] for name in ("task_instance_id", "try_number", "outcome", "problem"))),
            [(plane.project.home.logs / name).read_text() for _, name in names],
        )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Result:
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainflow.api.heartbeats.GATHER_SECONDS", 0.0)
        with control_plane(folder / "home") as plane, running_api(plane) as api:
            retry = RetryDocument(retries=1)
            plane.add_dag("d", empty_task("a", retry=retry), empty_task("b", "a"), empty_task("c", "b"))
            plane.add_dag("next", empty_task("x"))
            plane.add_run("d")
            return history(api, FaultyProxy(api.port, 0, disturbs=False), folder / "work")


@pytest.mark.parametrize("seed", SEEDS)
def test_history_over_faulty_network_ends_as_undisturbed(
    api: RunningApi, undisturbed: Result, tmp_path: Path, seed: int
) -> None:
    proxy = FaultyProxy(api.port, seed)
    assert history(api, proxy, tmp_path / "work") == undisturbed
    assert sum(proxy.done.values()) > 20, proxy.done


def test_two_copies_of_a_workload_over_faulty_network_one_of_them_runs(api: RunningApi) -> None:
    (work,) = api.plane.tick()
    api.issue(work)
    for seed in SEEDS:
        proxy = FaultyProxy(api.port, seed)
        worker = Worker(api, proxy, Path())
        clients = [worker.client(work) for _ in range(3)]
        replies = [
            client.handle(Start(work.key, 100 * seed + number, 1.0, "there")) for number, client in enumerate(clients)
        ]
        for client in clients:
            client.close()
        proxy.close()
        assert sum(isinstance(reply, Started) for reply in replies) == (1 if seed == SEEDS[0] else 0)
        assert all(isinstance(reply, Started | Refused) for reply in replies)
