"""Guarded moves: legal ones only, and only from where the row is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.exc import StatementError

from tests.support.control_plane import ControlPlane, control_plane, empty_task
from trainflow.errors import EngineError, IllegalTransition, LostTransition
from trainflow.messages.workload import AttemptKey
from trainflow.metadata.database import Database
from trainflow.metadata.queries import pool_queries, run_queries, task_queries
from trainflow.settings.outbox_channels import OutboxChannel
from trainflow.states import DagRunState, TaskInstanceState

T = TaskInstanceState


@pytest.fixture
def plane(tmp_path: Path, database_url: str | None) -> Iterator[ControlPlane]:
    with control_plane(tmp_path, database_url=database_url) as plane:
        plane.add_dag("d", empty_task("a"), empty_task("b", "a"))
        yield plane


def test_move_from_elsewhere_is_lost_and_changes_nothing(plane: ControlPlane) -> None:
    run = plane.add_run("d")
    plane.tick()
    before = plane.task(run, "a")
    with plane.database.transaction() as connection, pytest.raises(LostTransition, match="not running any more"):
        task_queries.move(connection, before.id, leaving={T.RUNNING}, to=T.SUCCESS, note="x")
    assert plane.task(run, "a") == before


@pytest.mark.parametrize("key", [AttemptKey("another"), None])
def test_move_belongs_to_its_attempt(plane: ControlPlane, key: AttemptKey | None) -> None:
    run = plane.add_run("d")
    (workload,) = plane.tick()
    key = key or AttemptKey(workload.key.attempt_id, workload.key.deferral_number + 1)
    number = plane.task(run, "a").id
    with plane.database.transaction() as connection, pytest.raises(LostTransition, match=key.attempt_id):
        task_queries.move(connection, number, leaving={T.QUEUED}, to=T.RUNNING, key=key)
    assert plane.task(run, "a").state == T.QUEUED


def test_move_outside_of_tables_is_refused(plane: ControlPlane) -> None:
    run = plane.add_run("d")
    plane.tick()
    with plane.database.transaction() as connection:
        with pytest.raises(IllegalTransition, match="success to running"):
            task_queries.move(connection, plane.task(run, "a").id, leaving={T.SUCCESS}, to=T.RUNNING)
        with pytest.raises(IllegalTransition):
            task_queries.move_all(connection, [1], leaving={None, T.RUNNING}, to=None)
        with pytest.raises(IllegalTransition, match="success to running"):
            run_queries.move(connection, run, leaving={DagRunState.SUCCESS}, to=DagRunState.RUNNING)


def test_move_of_many_leaves_from_where_they_are(plane: ControlPlane) -> None:
    plane.add_dag("wide", *(empty_task(f"t{number:04d}") for number in range(1200)), max_active_tasks=5000)
    run = plane.add_run("wide")
    with plane.database.transaction() as connection:
        row = run_queries.by_id(connection, run)
        run_queries.start(connection, row, plane.versions, plane.clock.now(), channels=())
        ids = [task.id for task in task_queries.of_run(connection, run)]
        assert task_queries.move_all(connection, ids[:700], leaving={None}, to=T.SCHEDULED) == 700
        # those that are there already are not counted again
        assert task_queries.move_all(connection, ids, leaving={None}, to=T.SCHEDULED) == 500


def test_run_ends_once(plane: ControlPlane) -> None:
    run = plane.add_run("d")
    plane.tick()
    row = plane.run(run)
    now = plane.clock.now()
    with plane.database.transaction() as connection:
        run_queries.finish(
            connection, row, to=DagRunState.SUCCESS, now=now, note=None, channels=(OutboxChannel.MLFLOW,)
        )
    with plane.database.transaction() as connection, pytest.raises(LostTransition):
        run_queries.finish(
            connection, row, to=DagRunState.FAILED, now=now, note="late", channels=(OutboxChannel.MLFLOW,)
        )
    assert (plane.run(run).state, plane.run(run).note) == ("success", None)


def test_transaction_is_all_or_nothing(plane: ControlPlane) -> None:
    with pytest.raises(ZeroDivisionError), plane.database.transaction() as connection:
        pool_queries.put(connection, "gpu", 1, description="", include_deferred=False)
        raise ZeroDivisionError
    with plane.database.reading() as connection:
        assert [row.name for row in pool_queries.listing(connection)] == ["default_pool"]


def test_naive_moments_are_refused(plane: ControlPlane) -> None:
    naive = plane.clock.now().replace(tzinfo=None)
    with plane.database.reading() as connection, pytest.raises(StatementError, match="naive datetime"):
        task_queries.due(connection, naive)


def test_database_that_cannot_be_opened_says_where(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}")
    with pytest.raises(EngineError, match=str(tmp_path)), database.reading():
        pass
