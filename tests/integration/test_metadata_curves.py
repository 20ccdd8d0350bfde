"""What an attempt reported stays when it is killed: on the page, in REST, for MLflow; and takes no room without end."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from tests.support.api import running_api
from tests.support.control_plane import ControlPlane, control_plane, empty_task
from trainflow.engine.mlflow_dispatcher import delivery_of
from trainflow.messages.execution_api import MetricCurves, OutcomeState, Progress, Refused, XComItem
from trainflow.messages.workload import ExecuteTask
from trainflow.metadata.models import AttemptCurvesTable, AttemptTable, OutboxTable
from trainflow.metadata.queries import curve_queries, run_queries
from trainflow.metadata.queries.dag_queries import Versions
from trainflow.serialization.document import ChainDocument
from trainflow.settings.model import Settings
from trainflow.tracking.deliveries import ProgressPoint, RunFinished

CURVES = AttemptCurvesTable.table
CHAIN = ChainDocument(pipeline="m", stage="main", branch="main", store="checkpoints")
LOSS: MetricCurves = {"loss": [(1.0, 0.5, 1000), (2.0, 0.25, 2000)]}
LATER: MetricCurves = {"loss": [*LOSS["loss"], (3.0, None, 3000)]}


def said(work: ExecuteTask, curves: MetricCurves, done: float = 1.0) -> Progress:
    return Progress(work.key, done, curves=curves)


def kept(plane: ControlPlane) -> dict[str, Any]:
    with plane.database.reading() as connection:
        return {row.attempt_id: row.curves for row in connection.execute(select(CURVES))}


def as_stored(curves: MetricCurves) -> dict[str, list[list[float | None]]]:
    return {name: [list(point) for point in points] for name, points in curves.items()}


def test_curve_of_killed_attempt_stays_as_it_was_told_last(plane: ControlPlane, work: ExecuteTask) -> None:
    plane.claim(work)
    for curves in (LOSS, LATER, {}):
        plane.service.handle(said(work, curves))
    plane.exit(work)
    assert kept(plane) == {work.key.attempt_id: as_stored(LATER)}
    # what it says when it is not waited for any more changes nothing
    assert isinstance(plane.service.handle(said(work, LOSS)), Refused)
    assert kept(plane) == {work.key.attempt_id: as_stored(LATER)}


@pytest.mark.parametrize("state", [OutcomeState.SUCCESS, OutcomeState.FAILED, OutcomeState.PREEMPTED])
def test_curves_come_with_the_outcome_too(plane: ControlPlane, work: ExecuteTask, state: OutcomeState) -> None:
    plane.claim(work)
    plane.service.handle(said(work, LOSS))
    plane.report(work, state, curves=LATER)
    assert kept(plane) == {work.key.attempt_id: as_stored(LATER)}


def test_short_attempt_that_never_told_any_has_those_of_its_outcome(plane: ControlPlane, work: ExecuteTask) -> None:
    plane.play(work, curves=LOSS)
    assert kept(plane) == {work.key.attempt_id: as_stored(LOSS)}


def test_attempts_of_a_task_keep_so_many_curves(plane: ControlPlane, run: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curve_queries, "_OLDEST_KEPT", curve_queries._OF_TASK.order_by(CURVES.c.attempt_id.desc())
                        .limit(1).offset(2))  # fmt: skip
    attempts = []
    for _ in range(5):
        (work,) = plane.tick()
        attempts.append(work.key.attempt_id)
        plane.claim(work)
        plane.service.handle(said(work, LOSS))
        plane.report(work, OutcomeState.PREEMPTED)
        plane.clock.advance(timedelta(minutes=5))
    assert sorted(kept(plane)) == sorted(attempts[-2:])


def add_curves(plane: ControlPlane, run: int, attempt: ExecuteTask, numbers: range) -> None:
    """Curves of earlier runs of the DAG, as if there had been so many."""
    with plane.database.transaction() as connection:
        (row,) = connection.execute(select(AttemptTable.table)).mappings().all()
        for number in numbers:
            name = f"0old{number:06}"
            connection.execute(insert(AttemptTable.table).values({**row, "attempt_id": name}))
            values = {"attempt_id": name, "dag_id": "d", "run_number": number, "dag_run_id": 10_000 + number}
            connection.execute(insert(CURVES).values(**values, curves=LOSS))
        connection.execute(update(run_queries.RUN).where(run_queries.RUN.c.id == run).values(number=2_000))


def test_runs_keep_so_many_curves_and_more_while_mlflow_waits(
    plane: ControlPlane, run: int, work: ExecuteTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curve_queries, "KEPT_RUNS", 3)
    monkeypatch.setattr(curve_queries, "MOST_RUNS", 6)
    monkeypatch.setattr(curve_queries, "_OLDEST_KEPT", curve_queries._OLDEST_KEPT.offset(100))
    add_curves(plane, run, work, range(1_990, 2_000))
    with plane.database.transaction() as connection:
        for number, channel in ((1_993, "mlflow"), (1_995, "mlflow"), (1_996, "openlineage")):
            connection.execute(
                insert(OutboxTable.table).values(
                    key=str(number), kind="run_finished", channel=channel, dag_run_id=10_000 + number,
                    created_at=plane.clock.now(), next_attempt_at=plane.clock.now(),
                )
            )  # fmt: skip
    plane.claim(work)
    plane.service.handle(said(work, LOSS))
    with plane.database.reading() as connection:
        left = sorted(connection.execute(select(CURVES.c.run_number)).scalars())
    assert left == [1_995, 1_998, 1_999, 2_000]


def test_killed_training_is_on_its_page_in_rest_and_goes_to_mlflow(tmp_path: Path) -> None:
    with control_plane(tmp_path) as plane:
        plane.add_dag("m", empty_task("train", role="train"), chain=CHAIN)
        run = plane.add_run("m")
        (first,) = plane.tick()
        plane.claim(first)
        plane.service.handle(said(first, LATER))
        plane.exit(first)
        plane.clock.advance(timedelta(seconds=1))  # ids of attempts sort by time
        (second,) = plane.tick()
        plane.play(second, curves=LOSS)
        plane.tick()

        with running_api(plane) as api:
            page = api.ask("GET", "/dags/m/runs/r1", Accept="text/html").body.decode()
            task = api.ask(
                "GET", f"/dags/m/runs/r1/tasks/train?attempt={first.key.attempt_id}", Accept="text/html"
            ).body.decode()
            tries = api.ask("GET", "/api/v1/dags/m/dagRuns/r1/taskInstances/train/tries").body
        with plane.database.reading() as connection:
            (row,) = [
                each
                for each in connection.execute(select(OutboxTable.table).where(OutboxTable.table.c.channel == "mlflow"))
                if each.kind == "run_finished"
            ]
            finished = delivery_of(connection, row, Versions(), plane.project, Settings(), plane.clock.now())
        assert plane.run(run).state == "success"

    assert "train #1, lost" in page
    assert "train #2, success" in page
    assert page.count('<path class="line line-') == 2
    assert "train #1, lost: loss was no number at 3" in page
    assert "train #1, lost" in task
    assert "train #2, success" not in task
    assert [each["curves"] for each in tries["task_instances"]] == [as_stored(LATER), as_stored(LOSS)]
    assert isinstance(finished, RunFinished)
    assert finished.progress == {"loss": [ProgressPoint(*point) for point in LOSS["loss"]]}
    assert [each.progress for each in finished.attempts] == [
        {"loss": [ProgressPoint(*point) for point in LATER["loss"]]},
        {},
    ]


def test_worker_of_an_earlier_version_hands_its_curves_over_as_an_xcom(tmp_path: Path) -> None:
    with control_plane(tmp_path) as plane:
        plane.add_dag("m", empty_task("train", role="train"), chain=CHAIN)
        plane.add_run("m")
        (work,) = plane.tick()
        plane.play(work, xcoms=[XComItem("progress", b'{"loss": [[1.0, 0.5, 1000]]}')])  # type: ignore[arg-type]
        plane.tick()
        with plane.database.reading() as connection:
            rows = connection.execute(select(OutboxTable.table).where(OutboxTable.table.c.kind == "run_finished"))
            finished = delivery_of(connection, rows.first(), Versions(), plane.project, Settings(), plane.clock.now())
    assert isinstance(finished, RunFinished)
    assert finished.progress == {"loss": [ProgressPoint(1.0, 0.5, 1000)]}
