"""What is decided about a run, as values in and values out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from trainflow.metadata.queries.task_queries import TaskStateRow
from trainflow.scheduler.run_decision import RunDecision, decide
from trainflow.serialization.document import DagDocument, TaskDocument
from trainflow.states import DagRunState, TaskInstanceState, TriggerRule

T = TaskInstanceState


def task(task_id: str, *upstream: str, **more: Any) -> TaskDocument:
    return TaskDocument(task_id=task_id, operator="EmptyOperator", upstream=list(upstream), **more)


def dag(*tasks: TaskDocument, **more: Any) -> DagDocument:
    return DagDocument(dag_id="d", tasks=list(tasks), **more)


def decided(
    document: DagDocument,
    states: Mapping[str, TaskInstanceState | None],
    *,
    past: Mapping[str, TaskInstanceState | None] | None = None,
    timed_out: bool = False,
    past_has_no_place: bool = False,
) -> RunDecision:
    instances = [TaskStateRow(number, name, -1, state, None) for number, (name, state) in enumerate(states.items())]
    return decide(document, instances, timed_out=timed_out, past=past, past_has_no_place=past_has_no_place)


def moved(decision: RunDecision, states: Mapping[str, TaskInstanceState | None]) -> dict[str, TaskInstanceState]:
    names = list(states)
    result = {}
    for step in decision.steps:
        for number in step.ids:
            # a step says what it leaves, and each task instance moves once
            assert states[names[number]] == step.leaving
            assert names[number] not in result
            result[names[number]] = step.to
    return result


def after(document: DagDocument, states: Mapping[str, TaskInstanceState | None], **more: Any) -> Any:
    decision = decided(document, states, **more)
    return moved(decision, states), decision.ends


DIAMOND = dag(task("a"), task("b", "a"), task("c", "a"), task("d", "b", "c"))


def test_roots_are_scheduled_first() -> None:
    assert after(DIAMOND, dict.fromkeys("abcd")) == ({"a": T.SCHEDULED}, None)


def test_followers_are_scheduled_together() -> None:
    states = {"a": T.SUCCESS, "b": None, "c": None, "d": None}
    assert after(DIAMOND, states) == ({"b": T.SCHEDULED, "c": T.SCHEDULED}, None)


def test_failures_cascade_to_end_in_one_pass() -> None:
    states = {"a": T.FAILED, "b": None, "c": None, "d": None}
    expected = dict.fromkeys("bcd", T.UPSTREAM_FAILED)
    assert after(DIAMOND, states) == (expected, DagRunState.FAILED)


def test_skips_cascade_and_run_succeeds() -> None:
    states = {"a": T.SKIPPED, "b": None, "c": None, "d": None}
    assert after(DIAMOND, states) == (dict.fromkeys("bcd", T.SKIPPED), DagRunState.SUCCESS)


def test_join_may_go_on_over_skips() -> None:
    document = dag(task("a"), task("b", "a"), task("c", "a", "b", trigger_rule=TriggerRule.NONE_FAILED))
    states = {"a": T.SKIPPED, "b": None, "c": None}
    assert after(document, states) == ({"b": T.SKIPPED, "c": T.SCHEDULED}, None)


@pytest.mark.parametrize("state", [T.SCHEDULED, T.QUEUED, T.RUNNING, T.DEFERRED, T.UP_FOR_RETRY, T.UP_FOR_RESCHEDULE])
def test_goes_on_while_anything_is_under_way(state: TaskInstanceState) -> None:
    """A deferred wait or a retry that is due tomorrow is no deadlock."""
    states = {"a": T.SUCCESS, "b": state, "c": T.SUCCESS, "d": None}
    assert after(DIAMOND, states) == ({}, None)


def test_run_state_follows_leaves() -> None:
    document = dag(task("a"), task("b", "a", trigger_rule=TriggerRule.ALL_DONE))
    assert decided(document, {"a": T.FAILED, "b": T.SUCCESS}).ends is DagRunState.SUCCESS
    assert decided(document, {"a": T.SUCCESS, "b": T.FAILED}).ends is DagRunState.FAILED
    assert decided(document, {"a": T.SUCCESS, "b": T.UPSTREAM_FAILED}).ends is DagRunState.FAILED
    assert decided(document, {"a": T.SUCCESS, "b": T.SKIPPED}).ends is DagRunState.SUCCESS


def test_run_without_tasks_is_success() -> None:
    assert decided(dag(), {}).ends is DagRunState.SUCCESS


def test_run_never_schedulable_is_deadlocked() -> None:
    """No DAG that was read is a circle; a run must not stay for ever all the same."""
    decision = decided(dag(task("a", "b"), task("b", "a")), {"a": None, "b": None})
    assert decision.ends is DagRunState.FAILED
    assert decision.note == "all tasks deadlocked: nothing is running and nothing can be scheduled"


class TestSetupAndTeardown:
    document = dag(
        task("up", is_setup=True),
        task("work", "up"),
        task("down", "up", "work", is_teardown=True, trigger_rule=TriggerRule.ALL_DONE_SETUP_SUCCESS),
    )

    def test_teardown_runs_after_failed_work(self) -> None:
        states = {"up": T.SUCCESS, "work": T.FAILED, "down": None}
        assert after(self.document, states) == ({"down": T.SCHEDULED}, None)

    def test_work_decides_not_teardown(self) -> None:
        assert decided(self.document, {"up": T.SUCCESS, "work": T.FAILED, "down": T.SUCCESS}).ends is DagRunState.FAILED
        assert (
            decided(self.document, {"up": T.SUCCESS, "work": T.SUCCESS, "down": T.FAILED}).ends is DagRunState.SUCCESS
        )

    def test_teardown_after_failed_setup_is_skipped(self) -> None:
        states = {"up": T.FAILED, "work": None, "down": None}
        expected = {"work": T.UPSTREAM_FAILED, "down": T.UPSTREAM_FAILED}
        assert after(self.document, states) == (expected, DagRunState.FAILED)


class TestFailFast:
    document = dag(
        task("bad"),
        task("after", "bad"),
        task("long"),
        task("other"),
        task("down", "long", is_teardown=True, trigger_rule=TriggerRule.ALL_DONE),
        fail_fast=True,
    )

    @pytest.mark.parametrize("state", [None, T.SCHEDULED, T.UP_FOR_RETRY, T.UP_FOR_RESCHEDULE, T.DEFERRED])
    def test_fail_fast_starts_nothing_new(self, state: TaskInstanceState | None) -> None:
        states = {"bad": T.FAILED, "after": None, "long": T.SUCCESS, "other": state, "down": T.RUNNING}
        assert after(self.document, states) == ({"after": T.SKIPPED, "other": T.SKIPPED}, None)

    @pytest.mark.parametrize("state", [T.QUEUED, T.RUNNING])
    def test_fail_fast_fails_running_tasks_with_reason(self, state: TaskInstanceState) -> None:
        states = {"bad": T.FAILED, "after": T.SKIPPED, "long": state, "other": T.SUCCESS, "down": None}
        (step,) = decided(self.document, states | {"down": T.RUNNING}).steps
        assert (step.leaving, step.to, step.ends_attempts) == (state, T.FAILED, True)
        assert step.problem == "fail_fast: another task of the run failed"
        assert after(self.document, states) == ({"long": T.FAILED, "down": T.SCHEDULED}, None)

    def test_commit_comes_to_its_end(self) -> None:
        document = dag(task("bad"), task("commit", shielded=True), fail_fast=True)
        assert after(document, {"bad": T.FAILED, "commit": T.RUNNING}) == ({}, None)
        assert after(document, {"bad": T.FAILED, "commit": None}) == ({"commit": T.SKIPPED}, DagRunState.FAILED)

    def test_teardowns_do(self) -> None:
        states = {"bad": T.FAILED, "after": T.SKIPPED, "long": T.SUCCESS, "other": T.SKIPPED, "down": None}
        assert after(self.document, states) == ({"down": T.SCHEDULED}, None)

    def test_run_failed_although_its_leaves_were_skipped(self) -> None:
        states = {"bad": T.FAILED, "after": T.SKIPPED, "long": T.SUCCESS, "other": T.SKIPPED, "down": T.SUCCESS}
        assert decided(self.document, states).ends is DagRunState.FAILED

    def test_fail_fast_without_failure_changes_nothing(self) -> None:
        states = {"bad": T.UP_FOR_RETRY, "after": None, "long": T.RUNNING, "other": T.SCHEDULED, "down": None}
        assert after(self.document, states) == ({}, None)


class TestCommit:
    """Airflow asks the leaves only. A run that trains has not succeeded while its commit has not."""

    document = dag(task("train"), task("commit", "train", role="commit"), task("next", "commit"))

    @pytest.mark.parametrize(
        ("state", "ends"),
        [
            (T.SUCCESS, DagRunState.SUCCESS),
            (T.SKIPPED, DagRunState.SUCCESS),
            (T.FAILED, DagRunState.FAILED),
            (T.UPSTREAM_FAILED, DagRunState.FAILED),
        ],
    )
    def test_cleared_alone_it_decides_with_leaves(self, state: TaskInstanceState, ends: DagRunState) -> None:
        assert after(self.document, {"train": T.SUCCESS, "commit": state, "next": T.SUCCESS}) == ({}, ends)

    def test_elsewhere_leaves_decide(self) -> None:
        document = dag(task("middle"), task("leaf", "middle"))
        assert after(document, {"middle": T.FAILED, "leaf": T.SUCCESS}) == ({}, DagRunState.SUCCESS)


class TestTimeout:
    document = dag(*DIAMOND.tasks, dagrun_timeout_seconds=60.0)

    def test_timeout_before_its_time_does_nothing(self) -> None:
        states = {"a": T.RUNNING, "b": None, "c": None, "d": None}
        assert decided(self.document, states).ends is None

    def test_timeout_after_own_end_does_nothing(self) -> None:
        decision = decided(self.document, dict.fromkeys("abcd", T.SUCCESS), timed_out=True)
        assert (decision.steps, decision.ends) == ((), DagRunState.SUCCESS)

    def test_ends_everything(self) -> None:
        states = {"a": T.SUCCESS, "b": T.RUNNING, "c": T.DEFERRED, "d": None}
        decision = decided(self.document, states, timed_out=True)
        assert moved(decision, states) == {"b": T.FAILED, "c": T.SKIPPED, "d": T.SKIPPED}
        assert decision.ends is DagRunState.FAILED
        assert decision.note == "dagrun_timeout: the run took longer than 60 s"


class TestPast:
    """depends_on_past looks at the run before, by its number: no run of ours has to have a logical date."""

    document = dag(task("a", depends_on_past=True), task("b", "a"))

    def test_past_of_first_run_is_empty(self) -> None:
        assert after(self.document, {"a": None, "b": None}, past=None) == ({"a": T.SCHEDULED}, None)

    @pytest.mark.parametrize("state", [T.SUCCESS, T.SKIPPED])
    def test_goes_on_after_success(self, state: TaskInstanceState) -> None:
        assert after(self.document, {"a": None, "b": None}, past={"a": state}) == ({"a": T.SCHEDULED}, None)

    @pytest.mark.parametrize("state", [None, T.RUNNING, T.FAILED, T.UPSTREAM_FAILED, T.UP_FOR_RETRY, T.DEFERRED])
    def test_holds_otherwise_and_is_no_deadlock(self, state: TaskInstanceState | None) -> None:
        assert after(self.document, {"a": None, "b": None}, past={"a": state}) == ({}, None)

    def test_task_that_is_new_has_no_past(self) -> None:
        assert after(self.document, {"a": None, "b": None}, past={"b": T.FAILED}) == ({"a": T.SCHEDULED}, None)

    def test_past_holds_only_task_that_asks(self) -> None:
        states = {"a": T.SUCCESS, "b": None}
        assert after(self.document, states, past={"a": T.SUCCESS, "b": T.FAILED}) == ({"b": T.SCHEDULED}, None)


def test_task_that_left_dag_is_removed() -> None:
    states = {"a": T.SUCCESS, "gone": None}
    assert after(dag(task("a")), states) == ({"gone": T.REMOVED}, DagRunState.SUCCESS)


def test_task_that_left_while_it_runs_is_waited_for() -> None:
    assert after(dag(task("a")), {"a": T.SUCCESS, "gone": T.RUNNING}) == ({}, None)


TAILED = dag(
    task("train", role="train"),
    task("commit", "train", role="commit"),
    task("next", "commit"),
    task("export", "commit", role="after_commit"),
    task("publish", "export"),
)
DONE = {"train": T.SUCCESS, "commit": T.SUCCESS, "next": T.SUCCESS, "export": T.RUNNING, "publish": None}


@pytest.mark.parametrize(
    ("changed", "released"),
    [
        ({}, True),
        ({"export": T.SUCCESS, "publish": T.UP_FOR_RETRY}, True),
        ({"export": T.QUEUED}, True),
        ({"next": T.SKIPPED}, True),
        ({"next": T.FAILED}, True),
        ({"next": T.RUNNING}, False),
        ({"next": None}, False),
        ({"commit": T.SKIPPED, "next": T.SKIPPED}, False),
        ({"commit": T.RUNNING, "next": None, "export": None}, False),
        # it is over, which says more
        ({"export": T.SUCCESS, "publish": T.SUCCESS}, False),
        ({"export": T.FAILED, "publish": T.UPSTREAM_FAILED}, False),
    ],
)
def test_next_run_need_not_wait_for_what_comes_after_commit(
    changed: dict[str, TaskInstanceState | None], released: bool
) -> None:
    assert decided(TAILED, DONE | changed).released is released


def test_run_without_such_tasks_is_never_released() -> None:
    plain = dag(task("commit", role="commit"), task("export", "commit"))

    assert decided(plain, {"commit": T.SUCCESS, "export": T.RUNNING}).released is False


@pytest.mark.parametrize(
    ("states", "past", "no_place", "yields"),
    [
        # waits for a cleared run, and nothing of it is at work
        ({"a": None, "b": None}, {"a": None, "b": None}, True, True),
        ({"a": T.SUCCESS, "b": None}, {"a": T.SUCCESS, "b": None}, True, True),
        ({"a": None, "b": None}, {"a": T.FAILED, "b": T.UPSTREAM_FAILED}, True, True),
        # there is a place for the other one
        ({"a": None, "b": None}, {"a": None, "b": None}, False, False),
        # something of it is at work, or will be
        ({"a": T.RUNNING, "b": None}, {"a": None, "b": None}, True, False),
        ({"a": T.QUEUED, "b": None}, {"a": None, "b": None}, True, False),
        ({"a": T.DEFERRED, "b": None}, {"a": None, "b": None}, True, False),
        ({"a": T.UP_FOR_RETRY, "b": None}, {"a": None, "b": None}, True, False),
        ({"a": None, "b": None}, {"a": T.SUCCESS, "b": None}, True, False),
        # what it waits for is its own
        ({"a": None, "b": None}, {"a": T.SKIPPED, "b": T.SUCCESS}, True, False),
        ({"a": None, "b": None}, {"a": T.REMOVED, "b": T.SUCCESS}, True, False),
        # it is over
        ({"a": T.SUCCESS, "b": T.SUCCESS}, {"a": None, "b": None}, True, False),
        ({"a": None, "b": None}, None, True, False),
    ],
)
def test_depends_on_past_run_yields_place_to_cleared_run(
    states: dict[str, Any], past: dict[str, Any] | None, no_place: bool, yields: bool
) -> None:
    document = dag(task("a", depends_on_past=True), task("b", "a", depends_on_past=True))
    decision = decided(document, states, past=past, past_has_no_place=no_place)
    assert decision.yields is yields
    assert not (decision.yields and decision.ends)


def test_depends_on_past_task_removed_from_previous_run_is_free() -> None:
    document = dag(task("a", depends_on_past=True))
    assert after(document, {"a": None}, past={"a": T.REMOVED}) == ({"a": T.SCHEDULED}, None)
