"""Runs: made once, found again by the task that made them, numbered, named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, insert, select
from sqlalchemy.exc import IntegrityError

from tests.support.control_plane import START, ControlPlane, control_plane, empty_task
from trainflow.clock import ManualClock
from trainflow.errors import (
    DagNotFound,
    DagRunAlreadyExists,
    DagRunNotFound,
    FailException,
    InputError,
    SkipException,
)
from trainflow.messages.execution_api import TriggeredRun
from trainflow.metadata import run_creation
from trainflow.metadata.queries import dag_queries, run_queries
from trainflow.metadata.queries.run_queries import RUN
from trainflow.metadata.run_creation import Parent


@pytest.fixture
def plane(tmp_path: Path, database_url: str | None) -> Iterator[ControlPlane]:
    with control_plane(tmp_path, database_url=database_url) as plane:
        plane.add_dag("d", empty_task("a"))
        plane.add_dag("next", empty_task("a"))
        yield plane


class TestCreation:
    def test_numbers_count_within_dag(self, plane: ControlPlane) -> None:
        ids = [plane.add_run("d", "r1"), plane.add_run("d", "r2"), plane.add_run("next", "r1")]
        assert [plane.run(run).number for run in ids] == [1, 2, 1]
        assert [plane.run(run).root_id for run in ids] == ids

    def test_id_is_taken_once(self, plane: ControlPlane) -> None:
        plane.add_run("d", "r1")
        with pytest.raises(DagRunAlreadyExists) as caught:
            plane.add_run("d", "r1")
        assert (caught.value.dag_id, caught.value.run_id) == ("d", "r1")

    def test_unknown_dag_is_named_with_its_neighbour(self, plane: ControlPlane) -> None:
        with pytest.raises(DagNotFound, match=r"'nxt'; did you mean 'next'\?"):
            plane.add_run("nxt")

    @pytest.mark.parametrize("run_id", ["", "a b", "../x", "ü", "x" * 251])
    def test_ids_that_cannot_be_names(self, plane: ControlPlane, run_id: str) -> None:
        with pytest.raises(InputError):
            plane.add_run("d", run_id)

    def test_unknown_run(self, plane: ControlPlane) -> None:
        with plane.database.reading() as connection, pytest.raises(DagRunNotFound):
            run_queries.get(connection, "d", "nothing")


class TestTrigger:
    """Asked twice by the same task instance it is one run; the run of another one is not ours."""

    @pytest.fixture
    def parent(self, plane: ControlPlane) -> Parent:
        run = plane.add_run("d", "parent")
        return Parent(run, run, "a", -1)

    def trigger(
        self, plane: ControlPlane, parent: Parent, run_id: str = "child", dag_id: str = "next", **more: bool
    ) -> int:
        with plane.database.transaction() as connection:
            run_creation.trigger(connection, TriggeredRun(dag_id, run_id, **more), parent, plane.clock.now())
            return int(run_queries.get(connection, dag_id, run_id).id)

    def runs(self, plane: ControlPlane) -> int:
        with plane.database.reading() as connection:
            return connection.execute(select(func.count()).select_from(RUN)).scalar_one()

    def test_trigger_twice_makes_one_run(self, plane: ControlPlane, parent: Parent) -> None:
        child = self.trigger(plane, parent)
        assert self.trigger(plane, parent) == child
        row = plane.run(child)
        assert (row.parent_id, row.root_id, row.run_type) == (parent.dag_run_id, parent.root_id, "operator_triggered")
        assert self.runs(plane) == 2

    def test_even_after_it_has_ended(self, plane: ControlPlane, parent: Parent) -> None:
        child = self.trigger(plane, parent)
        plane.scheduler.sweep()
        for workload in plane.tick():
            plane.play(workload)
        plane.tick()
        assert plane.run(child).state == "success"
        assert self.trigger(plane, parent) == child
        assert plane.run(child).state == "success"

    @pytest.mark.parametrize("dag_id", ["next", "d"])
    def test_second_successor_is_refused(self, plane: ControlPlane, parent: Parent, dag_id: str) -> None:
        self.trigger(plane, parent)
        with pytest.raises(DagRunAlreadyExists, match="has triggered run 'child' of 'next' already"):
            self.trigger(plane, parent, "another", dag_id)
        assert self.runs(plane) == 2

    def test_database_refuses_it_too(self, plane: ControlPlane, parent: Parent) -> None:
        child = plane.run(self.trigger(plane, parent))
        values = {**child._mapping, "run_id": "another", "number": 99}
        del values["id"]
        with pytest.raises(IntegrityError, match="parent_id"), plane.database.transaction() as connection:
            connection.execute(insert(RUN).values(values))

    def test_tasks_of_one_run_have_successor_each(self, plane: ControlPlane, parent: Parent) -> None:
        children = {self.trigger(plane, parent, "one"), self.trigger(plane, parent._replace(task_id="b"), "two")}
        assert len(children) == 2

    def test_trigger_of_foreign_run_is_refused(self, plane: ControlPlane, parent: Parent) -> None:
        plane.add_run("next", "child")
        with pytest.raises(DagRunAlreadyExists, match="not triggered by this task"):
            self.trigger(plane, parent)
        with pytest.raises(SkipException):
            self.trigger(plane, parent, skip_when_already_exists=True)

    def test_mine_is_no_reason_to_skip(self, plane: ControlPlane, parent: Parent) -> None:
        child = self.trigger(plane, parent, skip_when_already_exists=True)
        assert self.trigger(plane, parent, skip_when_already_exists=True) == child

    def test_reset_of_foreign_run(self, plane: ControlPlane, parent: Parent) -> None:
        foreign = plane.add_run("next", "child")
        for workload in plane.tick():
            plane.play(workload)
        plane.tick()
        assert self.trigger(plane, parent, reset_dag_run=True) == foreign
        assert plane.run(foreign).state == "queued"
        assert plane.run(foreign).clear_number == 1

    def test_trigger_with_reset_leaves_own_running_run(self, plane: ControlPlane, parent: Parent) -> None:
        child = self.trigger(plane, parent, reset_dag_run=True)
        plane.scheduler.sweep()
        plane.tick()
        self.trigger(plane, parent, reset_dag_run=True)
        assert (plane.run(child).state, plane.run(child).clear_number) == ("running", 0)

    def test_paused_dag(self, plane: ControlPlane, parent: Parent) -> None:
        with plane.database.transaction() as connection:
            dag_queries.pause(connection, "next", True)
        with pytest.raises(FailException, match="unpause"):
            self.trigger(plane, parent, fail_when_dag_is_paused=True)
        child = self.trigger(plane, parent)
        plane.scheduler.sweep()
        assert [workload.dag_id for workload in plane.tick()] == ["d"]
        assert plane.run(child).state == "queued"

    def test_unknown_dag(self, plane: ControlPlane, parent: Parent) -> None:
        with pytest.raises(DagNotFound):
            self.trigger(plane, parent, dag_id="nowhere")


def test_clock_is_only_clock(plane: ControlPlane) -> None:
    run = plane.add_run("d")
    plane.tick()
    assert isinstance(plane.clock, ManualClock)
    assert plane.run(run).started_at == START
