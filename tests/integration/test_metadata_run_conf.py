"""The conf of a run satisfies the params of its DAG, whatever asks for the run; and what people end stays ended."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.control_plane import ControlPlane, control_plane, empty_task
from trainflow.errors import LostTransition, ParamValidationError
from trainflow.messages.execution_api import Done, Failed, OutcomeState, TriggeredRun, TriggerRun
from trainflow.metadata import run_creation
from trainflow.metadata.queries import run_queries
from trainflow.metadata.queries.outbox_queries import OutboxOfChannel
from trainflow.serialization.document import ChainDocument, RetryDocument
from trainflow.settings.outbox_channels import OutboxChannel

ROWS = {"rows": {"type": "integer", "minimum": 1}}
WRONG = TriggeredRun("child", "c1", conf={"rows": 0})


@pytest.fixture
def plane(tmp_path: Path, database_url: str | None) -> Iterator[ControlPlane]:
    with control_plane(tmp_path, database_url=database_url) as plane:
        plane.add_dag("parent", empty_task("next", retry=RetryDocument(retries=3)))
        plane.add_dag("child", empty_task("x"), params=ROWS)
        yield plane


def runs(plane: ControlPlane) -> list[str]:
    with plane.database.reading() as connection:
        return [row.run_id for row in run_queries.listing(connection)]


@pytest.mark.parametrize("conf", [{}, {"rows": "many"}, {"rows": 0}])
def test_conf_of_run_by_hand_that_breaks_params_is_refused(plane: ControlPlane, conf: dict[str, object]) -> None:
    with pytest.raises(ParamValidationError, match="DAG 'child': param 'rows'"), plane.database.transaction() as c:
        run_creation.create(
            c, dag_id="child", run_id="c1", run_type="manual", triggered_by="cli", conf=conf, now=plane.clock.now()
        )
    assert runs(plane) == []


def test_outcome_of_task_fails_for_good(plane: ControlPlane) -> None:
    run = plane.add_run("parent")
    (workload,) = plane.tick()
    assert plane.play(workload, triggered_runs=[WRONG]) == Done()
    row = plane.task(run, "next")
    assert (row.state, row.failures) == ("failed", 1)
    assert row.problem == "DAG 'child': param 'rows': 0 is less than 1"
    assert runs(plane) == ["r1"]


def test_task_that_asks_while_it_runs(plane: ControlPlane) -> None:
    plane.add_run("parent")
    (workload,) = plane.tick()
    plane.claim(workload)
    reply = plane.service.handle(TriggerRun(workload.key, WRONG))
    assert isinstance(reply, Failed)
    assert (reply.error, reply.message) == ("ParamValidationError", "DAG 'child': param 'rows': 0 is less than 1")
    assert runs(plane) == ["r1"]


def test_run_id_that_cannot_be_one_is_tasks_failure(plane: ControlPlane) -> None:
    run = plane.add_run("parent")
    (workload,) = plane.tick()
    plane.play(workload, triggered_runs=[TriggeredRun("child", "a b", conf={"rows": 1})])
    assert plane.task(run, "next").state == "failed"


class TestCancel:
    def cancel(self, plane: ControlPlane, run: int) -> None:
        with plane.database.transaction() as connection:
            row = run_queries.by_id(connection, run)
            now = plane.clock.now()
            run_queries.cancel(connection, row, plane.versions, now, note="enough", channels=(OutboxChannel.MLFLOW,))

    def told(self, plane: ControlPlane) -> list[str]:
        with plane.database.reading() as connection:
            return [row.kind for row in OutboxOfChannel(OutboxChannel.MLFLOW).pending(connection, plane.clock.now())]

    def test_mirror_is_told_of_run_that_trains(self, plane: ControlPlane) -> None:
        plane.add_dag("t", empty_task("x"), chain=ChainDocument("t", "main", "main", "checkpoints"))
        run = plane.add_run("t")
        plane.tick()
        self.cancel(plane, run)
        assert self.told(plane) == ["run_started", "run_cancelled"]

    def test_cancel_of_run_never_begun_is_not_told(self, plane: ControlPlane) -> None:
        plane.add_dag("t", empty_task("x"), chain=ChainDocument("t", "main", "main", "checkpoints"))
        self.cancel(plane, plane.add_run("t"))
        assert self.told(plane) == []

    def test_cancel_of_run_that_trains_nothing_is_not_told(self, plane: ControlPlane) -> None:
        run = plane.add_run("parent")
        plane.tick()
        self.cancel(plane, run)
        assert self.told(plane) == []

    @pytest.mark.parametrize("state", [OutcomeState.SUCCESS, OutcomeState.FAILED])
    def test_cancel_leaves_ended_tasks(self, plane: ControlPlane, state: OutcomeState) -> None:
        plane.add_dag("once", empty_task("x"))
        run = plane.add_run("once")
        (workload,) = plane.tick()
        plane.play(workload, state)
        plane.tick()
        with pytest.raises(LostTransition, match="has ended"):
            self.cancel(plane, run)
        assert plane.run(run).state == state.value

    def test_cancel_ends_task_in_every_state(self, plane: ControlPlane) -> None:
        from sqlalchemy import insert

        from trainflow.metadata.queries.task_queries import TASK
        from trainflow.states import TaskInstanceState

        run = plane.add_run("parent")
        plane.tick()
        with plane.database.transaction() as connection:
            rows = [
                {"dag_run_id": run, "task_id": f"in_{state}", "state": state, "pool": "default_pool"}
                for state in [None, *TaskInstanceState]
            ]
            connection.execute(insert(TASK), rows)
        self.cancel(plane, run)
        states = plane.states(run)
        kept = {"success", "failed", "skipped", "upstream_failed", "removed"}
        held = {"queued", "running"}
        for name, state in states.items():
            before = name.removeprefix("in_")
            if name == "next" or before in held:
                assert state == "failed", name
            else:
                assert state == (before if before in kept else "skipped"), name
