"""An attempt asks that an earlier task of its run, and all that follows it, runs again."""

from __future__ import annotations

import msgspec
import pytest

from tests.integration.execution_requests import O
from tests.support.control_plane import ControlPlane, empty_task
from trainflow.messages.execution_api import (
    AttemptFailure,
    Done,
    GetXCom,
    Refused,
    XComItem,
    XComValues,
)
from trainflow.messages.workload import ExecuteTask
from trainflow.metadata.queries import attempt_queries, run_queries
from trainflow.metadata.retry_policy import MOST_RESTARTS


def three_in_a_row(plane: ControlPlane) -> int:
    plane.add_dag("three", empty_task("first"), empty_task("second", "first"), empty_task("third", "second"))
    return plane.add_run("three")


def restarted(plane: ControlPlane, workload: ExecuteTask, task_id: str = "first") -> None:
    problem = AttemptFailure("the samples changed", kind="RestartException", retryable=False)
    plane.play(workload, O.RESTARTED, restart=task_id, problem=problem)


def test_restart_earlier_task_and_all_that_follows_it_run_again(plane: ControlPlane) -> None:
    run = three_in_a_row(plane)
    (first,) = plane.tick()
    plane.play(first, xcoms=[XComItem("split", msgspec.Raw(b"1"))])
    (second,) = plane.tick()
    restarted(plane, second)

    assert plane.states(run) == {"first": None, "second": None, "third": None}
    assert plane.run(run).note == "'first' ran again: the samples changed"
    assert (plane.task(run, "second").failures, plane.task(run, "second").attempt_id) == (0, None)
    with plane.database.reading() as connection:
        assert attempt_queries.outcome(connection, second.key.attempt_id) == "restarted"
    assert isinstance(plane.report(second), Done)  # told twice: the first reply was lost
    (again,) = plane.tick()
    assert (again.task_id, again.key != first.key) == ("first", True)
    plane.play(again)
    (second,) = plane.tick()
    asked = plane.service.handle(GetXCom(second.key, "three", "r1", ["first"], "split"))
    assert asked == XComValues({})


def test_restart_again_and_again_fails_for_good(plane: ControlPlane) -> None:
    run = three_in_a_row(plane)
    for _ in range(MOST_RESTARTS + 1):
        (first,) = plane.tick()
        plane.play(first)
        (second,) = plane.tick()
        restarted(plane, second)
    plane.tick()
    assert plane.states(run) == {"first": "success", "second": "failed", "third": "upstream_failed"}
    assert f"ran again {MOST_RESTARTS} times for it in this run" in plane.task(run, "second").problem


@pytest.mark.parametrize("task_id", ["third", "missing"])
def test_restart_task_that_this_one_does_not_follow_is_refused(plane: ControlPlane, task_id: str) -> None:
    run = three_in_a_row(plane)
    (first,) = plane.tick()
    restarted(plane, first, task_id)
    assert plane.states(run)["first"] == "failed"
    assert f"'first' does not follow '{task_id}'" in plane.task(run, "first").problem


def test_restart_by_stale_attempt_changes_nothing(plane: ControlPlane) -> None:
    run = three_in_a_row(plane)
    (first,) = plane.tick()
    plane.play(first)
    (second,) = plane.tick()
    plane.claim(second)
    with plane.database.transaction() as connection:
        run_queries.clear(connection, run, plane.clock.now(), {"second"})
    problem = AttemptFailure("the samples changed")
    assert isinstance(plane.report(second, O.RESTARTED, restart="first", problem=problem), Refused)
    assert plane.states(run) == {"first": "success", "second": None, "third": None}
