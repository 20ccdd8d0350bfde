"""Values that come along with a claim: those that the task would ask for, and only those."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.integration.execution_requests import DEFERRAL, O, pulled, xcom
from tests.support.control_plane import ControlPlane, empty_task
from trainflow.messages.execution_api import Started
from trainflow.messages.workload import ExecuteTask
from trainflow.metadata.queries.xcom_queries import MOST_HANDED, MOST_HANDED_BYTES


def handed(plane: ControlPlane, workload: ExecuteTask) -> dict[tuple[str, str], Any]:
    """Claim, and see what came along."""
    started = plane.claim(workload)
    assert isinstance(started, Started)
    return {(each.task_id, each.key): msgspec.json.decode(each.value) for each in started.xcoms}


def test_claim_brings_what_upstream_has_handed_over(plane: ControlPlane, work: ExecuteTask) -> None:
    plane.play(work, xcoms=[xcom("return_value", {"n": 1}), xcom("split", [1, 2])])
    [then] = plane.tick()
    assert handed(plane, then) == {("a", "return_value"): {"n": 1}, ("a", "split"): [1, 2]}
    assert pulled(plane, then) == {"a": {"n": 1}}


def test_claim_of_same_process_again_brings_the_same(plane: ControlPlane, work: ExecuteTask) -> None:
    plane.play(work, xcoms=[xcom("return_value", 1)])
    [then] = plane.tick()
    assert handed(plane, then) == handed(plane, then) == {("a", "return_value"): 1}


@pytest.mark.parametrize(("characters", "comes"), [(MOST_HANDED_BYTES - 2, True), (MOST_HANDED_BYTES - 1, False)])
def test_claim_leaves_large_values_to_be_asked_for(
    plane: ControlPlane, work: ExecuteTask, characters: int, comes: bool
) -> None:
    plane.play(work, xcoms=[xcom("return_value", "x" * characters)])
    [then] = plane.tick()
    assert bool(handed(plane, then)) is comes
    assert pulled(plane, then) == {"a": "x" * characters}


def test_claim_brings_a_bounded_number_of_values(plane: ControlPlane, work: ExecuteTask) -> None:
    plane.play(work, xcoms=[xcom(f"k{number}", number) for number in range(MOST_HANDED + 3)])
    [then] = plane.tick()
    assert len(handed(plane, then)) == MOST_HANDED


def test_claim_brings_nothing_of_tasks_that_may_hand_over_more(plane: ControlPlane) -> None:
    plane.add_dag("two", empty_task("waits"), empty_task("other"))
    plane.add_run("two", "r1")
    waits, other = sorted(plane.tick(), key=lambda workload: workload.task_id, reverse=True)
    plane.play(waits, O.DEFERRED, xcoms=[xcom("half", 1)], deferral=DEFERRAL)
    assert handed(plane, other) == {}


def test_claim_brings_nothing_of_other_runs(plane: ControlPlane) -> None:
    plane.add_dag("wide", empty_task("a"), empty_task("b", "a"), max_active_runs=2)
    for number in (1, 2):
        plane.add_run("wide", f"r{number}")
    for workload in plane.tick():
        plane.play(workload, xcoms=[xcom("return_value", workload.run_id)])
    for workload in plane.tick():
        assert handed(plane, workload) == {("a", "return_value"): workload.run_id}
