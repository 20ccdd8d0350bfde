"""Who is told is written in the transaction that makes it true."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from tests.support.control_plane import ControlPlane, control_plane
from trainflow.messages.execution_api import AttemptFailure, Outcome, OutcomeState
from trainflow.messages.notice import Event, Notice
from trainflow.messages.workload import ExecuteTask
from trainflow.metadata.queries.notification_queries import NOTIFICATION
from trainflow.serialization.document import ChainDocument, TaskDocument

CHAIN = ChainDocument("flights", "main", "main", "checkpoints")
PROMOTED = Notice(event=Event.PROMOTED, key="champion 3", sentence="it is good", pipeline="flights")


@pytest.fixture
def plane(tmp_path: Path, database_url: str | None) -> Iterator[ControlPlane]:
    with control_plane(tmp_path, database_url=database_url) as plane:
        yield plane


def notices(plane: ControlPlane) -> list[dict[str, object]]:
    with plane.database.reading() as connection:
        return [row.notice for row in connection.execute(select(NOTIFICATION).order_by(NOTIFICATION.c.id))]


def one_attempt(plane: ControlPlane, run_id: str, dag_id: str = "d") -> ExecuteTask:
    plane.add_run(dag_id, run_id)
    (workload,) = [each for _ in range(3) for each in plane.tick()]
    plane.claim(workload)
    return workload


def test_notice_comes_with_outcome_of_its_attempt(plane: ControlPlane) -> None:
    plane.add_dag("d", TaskDocument("only", "PythonOperator"))
    workload = one_attempt(plane, "r1")

    for _ in range(2):  # the second time its reply was lost
        plane.service.handle(Outcome(workload.key, OutcomeState.SUCCESS, notices=[PROMOTED]))

    assert [(each["event"], each["key"]) for each in notices(plane)] == [("promoted", "champion 3")]
    assert [change.told for change in plane.changes] == [True]


def test_stale_attempt_tells_nothing(plane: ControlPlane) -> None:
    plane.add_dag("d", TaskDocument("only", "PythonOperator"))
    workload = one_attempt(plane, "r1")
    plane.service.handle(Outcome(workload.key, OutcomeState.SUCCESS))

    plane.service.handle(Outcome(workload.key, OutcomeState.SUCCESS, notices=[PROMOTED]))

    assert notices(plane) == []


def fail(plane: ControlPlane, run_id: str, dag_id: str = "d") -> None:
    workload = one_attempt(plane, run_id, dag_id)
    problem = AttemptFailure("no such column", retryable=False)
    plane.service.handle(Outcome(workload.key, OutcomeState.FAILED, problem=problem))
    plane.tick()


def test_chain_that_fails_is_told_once_until_run_succeeds(plane: ControlPlane) -> None:
    plane.add_dag("d", TaskDocument("train", "TrainOperator", role="train"), chain=CHAIN)
    came: list[str] = []
    plane.scheduler.on_notice = lambda: came.append("notice")
    for run_id in ("r1", "r2"):
        fail(plane, run_id)
    assert [each["run_id"] for each in notices(plane)] == ["r1"]
    assert notices(plane)[0]["sentence"] == "d: the chain stopped in run 1: task 'train': no such column"
    assert came

    workload = one_attempt(plane, "r3")
    plane.service.handle(Outcome(workload.key, OutcomeState.SUCCESS))
    plane.tick()
    fail(plane, "r4")

    assert [each["run_id"] for each in notices(plane)] == ["r1", "r4"]


def test_dag_that_is_no_chain_is_ignored(plane: ControlPlane) -> None:
    plane.add_dag("d", TaskDocument("only", "PythonOperator"))
    fail(plane, "r1")

    assert notices(plane) == []
