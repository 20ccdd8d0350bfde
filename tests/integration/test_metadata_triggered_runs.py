"""Runs that an attempt triggers come with its outcome, each once."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from tests.integration.execution_requests import O, everything, pulled, xcom
from tests.support.control_plane import ControlPlane
from trainflow.messages.execution_api import (
    Done,
    Failed,
    Outcome,
    Refused,
    TriggeredRun,
    TriggerRun,
)
from trainflow.messages.workload import ExecuteTask, ProcessExit
from trainflow.metadata.queries import attempt_queries
from trainflow.metadata.queries.run_queries import RUN


class TestTriggeredRuns:
    def children(self, plane: ControlPlane) -> list[str]:
        with plane.database.reading() as connection:
            return list(connection.execute(select(RUN.c.run_id).where(RUN.c.dag_id == "next")).scalars())

    def test_come_with_outcome(self, plane: ControlPlane, run: int, work: ExecuteTask) -> None:
        plane.play(work, triggered_runs=[TriggeredRun("next", "child")])
        assert self.children(plane) == ["child"]
        assert plane.changes[-1].triggered

    @pytest.mark.parametrize(
        ("triggered", "says"),
        [
            (TriggeredRun("nowhere", "child"), "no DAG is called 'nowhere'"),
            (TriggeredRun("next", "taken"), "not triggered by this task"),
            (TriggeredRun("next", "no name"), "cannot name a run"),
        ],
    )
    def test_refused_one_leaves_nothing_of_outcome(
        self, plane: ControlPlane, run: int, work: ExecuteTask, triggered: TriggeredRun, says: str
    ) -> None:
        plane.add_run("next", "taken")
        assert plane.play(work, xcoms=[xcom("k", 1)], triggered_runs=[triggered]) == Done()
        row = plane.task(run, "a")
        assert row.state in ("up_for_retry", "failed")
        assert says in row.problem
        assert pulled(plane, work, "k") == {}
        assert self.children(plane) == ["taken"]
        with plane.database.reading() as connection:
            (attempt,) = attempt_queries.of_task(connection, row.id)
        assert (attempt.outcome, attempt.problem) == ("failed", row.problem)

    def test_refused_and_told_twice(self, plane: ControlPlane, run: int, work: ExecuteTask) -> None:
        outcome = Outcome(work.key, O.SUCCESS, triggered_runs=[TriggeredRun("nowhere", "child")])
        plane.claim(work)
        assert plane.service.handle(outcome) == Done()
        before = everything(plane)
        assert plane.service.handle(outcome) == Done()
        assert everything(plane) == before

    def test_second_one_from_same_task_is_refused_as_whole(
        self, plane: ControlPlane, run: int, work: ExecuteTask
    ) -> None:
        plane.play(work, triggered_runs=[TriggeredRun("next", "one"), TriggeredRun("next", "two")])
        assert self.children(plane) == []
        assert "a task triggers one run" in plane.task(run, "a").problem

    def test_foreign_one_skips_where_asked(self, plane: ControlPlane, run: int, work: ExecuteTask) -> None:
        plane.add_run("next", "taken")
        plane.play(work, triggered_runs=[TriggeredRun("next", "taken", skip_when_already_exists=True)])
        assert plane.task(run, "a").state == "skipped"

    def test_retry_finds_its_run_again(self, plane: ControlPlane, run: int, work: ExecuteTask) -> None:
        """Killed between triggering and success: there is one child."""
        plane.claim(work)
        request = TriggerRun(work.key, TriggeredRun("next", "child"))
        assert plane.service.handle(request) == Done()
        assert plane.service.handle(request) == Done()
        plane.service.exited(work.key, ProcessExit(signal=9))
        plane.executor.alive.clear()
        again = next(workload for workload in plane.tick() if workload.dag_id == "d")
        plane.claim(again)
        assert plane.service.handle(TriggerRun(again.key, TriggeredRun("next", "child"))) == Done()
        assert plane.report(again, triggered_runs=[TriggeredRun("next", "child")]) == Done()
        assert self.children(plane) == ["child"]
        assert plane.task(run, "a").state == "success"

    def test_refusals_while_it_runs_are_answers(self, plane: ControlPlane, work: ExecuteTask) -> None:
        plane.claim(work)
        reply = plane.service.handle(TriggerRun(work.key, TriggeredRun("nowhere", "child")))
        assert isinstance(reply, Failed)
        assert reply.error == "DagNotFound"

    def test_trigger_by_stale_attempt_is_refused(self, plane: ControlPlane, work: ExecuteTask) -> None:
        plane.play(work)
        assert isinstance(plane.service.handle(TriggerRun(work.key, TriggeredRun("next", "child"))), Refused)
        assert self.children(plane) == []
