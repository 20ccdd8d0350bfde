"""What is read of many DAGs at once: as much as of one."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import event

from tests.support.control_plane import ControlPlane, control_plane, empty_task
from trainflow.insight.snapshot import DagSnapshot, EngineSnapshot, dag_snapshots
from trainflow.messages.execution_api import OutcomeState
from trainflow.serialization.document import RetryDocument

Heard = list[tuple[str, object]]


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[ControlPlane]:
    with control_plane(tmp_path) as made:
        yield made


def end_runs(plane: ControlPlane, dag_id: str, *outcomes: OutcomeState) -> None:
    """Runs of a DAG of one task that end so, one after the other."""
    plane.add_dag(dag_id, empty_task("a"))
    for number, outcome in enumerate(outcomes):
        plane.add_run(dag_id, f"r{number}")
        (workload,) = plane.tick()
        plane.play(workload, outcome)
        plane.tick()


def read(plane: ControlPlane, heard: Heard | None = None, dag_id: str | None = None) -> list[DagSnapshot]:
    """The DAGs; what the database was asked is added to `heard`."""

    def hear(_connection: object, _cursor: object, statement: str, parameters: object, *_: object) -> None:
        if heard is not None:
            heard.append((statement, parameters))

    engine = plane.database.engine
    event.listen(engine, "before_cursor_execute", hear)
    try:
        with plane.database.reading() as connection:
            return dag_snapshots(connection, plane.settings, EngineSnapshot(), plane.clock.now(), dag_id=dag_id)
    finally:
        event.remove(engine, "before_cursor_execute", hear)


def test_snapshots_of_many_dags_take_as_many_statements_as_of_one(plane: ControlPlane) -> None:
    end_runs(plane, "d0", OutcomeState.FAILED, OutcomeState.SUCCESS)
    of_one: Heard = []
    read(plane, of_one)
    for number in range(1, 6):
        end_runs(plane, f"d{number}", OutcomeState.SUCCESS, OutcomeState.FAILED)
    for number in range(6):
        plane.add_run(f"d{number}", "queued")
    of_many: Heard = []
    assert len(read(plane, of_many)) == 6
    assert 0 < len(of_many) == len(of_one)


def test_snapshot_of_each_dag_has_its_own_runs_and_failure(plane: ControlPlane) -> None:
    end_runs(plane, "bad", OutcomeState.SUCCESS, OutcomeState.FAILED)
    end_runs(plane, "good", OutcomeState.FAILED, OutcomeState.SUCCESS)
    plane.add_dag("busy", empty_task("a"), empty_task("b", "a"))
    plane.add_run("busy", "r0")
    (workload,) = plane.tick()
    plane.claim(workload)
    plane.add_run("busy", "r1")
    plane.add_dag("new", empty_task("a"))
    found = {each.dag_id: each for each in read(plane)}
    assert {name: each.last and each.last.run_id for name, each in found.items()} == {
        "bad": "r1",
        "good": "r1",
        "busy": None,
        "new": None,
    }
    failures = {name: each.last_failure and each.last_failure.run_id for name, each in found.items()}
    assert failures == {"bad": "r1", "good": "r0", "busy": None, "new": None}
    (running,) = found["busy"].running
    assert [(task.task_id, task.state) for task in running.tasks] == [("a", "running"), ("b", None)]
    assert [each.dag_id for each in read(plane, dag_id="good")] == ["good"]


def test_failure_whose_task_ended_well_later_is_none(plane: ControlPlane) -> None:
    plane.add_dag("d", empty_task("a", retry=RetryDocument(retries=1)))
    plane.add_run("d")
    (workload,) = plane.tick()
    plane.play(workload, OutcomeState.FAILED)
    (found,) = read(plane)
    assert found.last_failure is not None
    plane.clock.advance(timedelta(hours=1))
    plane.scheduler.sweep()
    (workload,) = plane.tick()
    plane.play(workload)
    (found,) = read(plane)
    assert found.last_failure is None
