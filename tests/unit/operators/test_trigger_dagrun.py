"""TriggerDagRunOperator: one successor, whatever is tried again; and waiting for it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from trainflow.authoring.arguments import NOTSET
from trainflow.errors import DagRunAlreadyExists, FailException, InputError, SkipException, TaskError
from trainflow.identifiers import triggered_run_id
from trainflow.operators import TriggerDagRunOperator
from trainflow.operators.triggers.dag_state import DagStateTrigger
from trainflow.serialization.from_dag import to_document

OURS = triggered_run_id("model", "run-1", "t")


def trigger(dag: Any, **options: Any) -> Any:
    options = {"trigger_dag_id": "other", **options}
    return dag(lambda: TriggerDagRunOperator(task_id="t", **options))


def test_fire_and_forget_goes_out_with_outcome(lab: Any, dag: Any) -> None:
    for deferrable in (False, True):
        lab.run(trigger(dag, deferrable=deferrable, conf={"a": "{{ run_id }}"}, note="n {{ run_id }}"), "t")
        [(run, now)] = lab.ti.triggered
        assert not now
        assert (run.dag_id, run.run_id, run.conf, run.note) == ("other", OURS, {"a": "run-1"}, "n run-1")
        assert run.logical_date is None
        assert run.run_after is None
    assert lab.xcoms["run-1", "t", "trigger_run_id"] == OURS
    assert lab.runs.states == {}


@pytest.mark.parametrize("when", [False, None, "", {}, "False", "{{ run_id == 'another' }}"])
def test_trigger_condition_false_triggers_nothing(lab: Any, dag: Any, when: Any) -> None:
    with pytest.raises(SkipException, match="no run of other is due"):
        lab.run(trigger(dag, when=when), "t")
    assert lab.ti.triggered == []


@pytest.mark.parametrize("when", [True, {"id": "x"}, "{{ run_id }}"])
def test_trigger_condition_true_triggers(lab: Any, dag: Any, when: Any) -> None:
    lab.run(trigger(dag, when=when), "t")
    assert len(lab.ti.triggered) == 1


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, None),
        (NOTSET, None),
        ("2026-01-01T00:00:00+02:00", datetime(2025, 12, 31, 22, tzinfo=UTC)),
        (datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)),
        ("{{ '2026-01-01T00:00:00Z' }}", datetime(2026, 1, 1, tzinfo=UTC)),
    ],
)
def test_trigger_dates_are_parsed(lab: Any, dag: Any, given: Any, expected: Any) -> None:
    lab.run(trigger(dag, logical_date=given, run_after=given, trigger_run_id="mine"), "t")
    [(run, _)] = lab.ti.triggered
    assert (run.logical_date, run.run_after, run.run_id) == (expected, expected, "mine")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"logical_date": "2026-01-01"}, "naive"),
        ({"run_after": "soon"}, "run_after='soon'"),
        ({"conf": {"x": object()}}, "conf has no form in JSON"),
    ],
)
def test_trigger_of_impossible_dag_fails_for_good(lab: Any, dag: Any, options: Any, says: str) -> None:
    with pytest.raises(FailException, match=says):
        lab.run(trigger(dag, **options), "t")


def test_conf_that_is_no_dict_is_refused_when_dag_is_made(dag: Any) -> None:
    with pytest.raises(InputError, match=r"conf: .* is not a dict"):
        trigger(dag, conf=[1])()


def test_unknown_states_are_refused_when_dag_is_made(dag: Any) -> None:
    with pytest.raises(InputError, match="the states of a run are"):
        trigger(dag, allowed_states=["done"])()


def test_wait_holds_slot_until_run_is_over(lab: Any, dag: Any) -> None:
    build = trigger(dag, wait_for_completion=True, poke_interval=timedelta(seconds=7))
    ti = lab.attempt(build().get_task("t"))
    states = iter(["running", "running", "success"])
    ti.on_sleep = lambda: lab.runs.states.update({("other", OURS): next(states)})
    before = lab.clock.now()
    lab.run(build, "t", ti=ti)
    assert ti.triggered[0][1] is True
    assert lab.clock.now() - before == timedelta(seconds=21)


def test_deferred_wait_is_on_run_id(lab: Any, dag: Any) -> None:
    build = trigger(dag, wait_for_completion=True, deferrable=True, failed_states=["failed"], poke_interval=3)
    deferred = lab.deferral(build, "t")
    assert lab.ti.notes == [f"waits for run {OURS} of other"]
    assert isinstance(deferred.trigger, DagStateTrigger)
    assert deferred.trigger.run_ids == [OURS]
    assert sorted(deferred.trigger.states) == ["failed", "success"]
    assert deferred.trigger.poll_interval == 3
    lab.run(build, "t", event={OURS: "success"})
    with pytest.raises(TaskError, match="ended as failed"):
        lab.run(build, "t", event={OURS: "failed"})
    with pytest.raises(TaskError, match="is gone"):
        lab.run(build, "t", event={OURS: None})


def test_trigger_killed_while_waiting_waits_for_same_run(lab: Any, dag: Any) -> None:
    build = trigger(dag, wait_for_completion=True, deferrable=True)
    lab.deferral(build, "t")
    lab.runs.states["other", OURS] = "running"
    assert lab.deferral(build, "t", try_number=2).trigger.run_ids == [OURS]
    assert list(lab.runs.states) == [("other", OURS)]
    assert lab.runs.resets == []


def test_try_after_failed_run_clears_it_and_waits_again(lab: Any, dag: Any) -> None:
    build = trigger(dag, wait_for_completion=True, deferrable=True)
    lab.deferral(build, "t")
    lab.runs.states["other", OURS] = "failed"
    with pytest.raises(TaskError, match="ended as failed"):
        lab.run(build, "t", event={OURS: "failed"})
    lab.deferral(build, "t", try_number=2)
    assert lab.runs.resets == [OURS]
    assert lab.runs.states["other", OURS] == "queued"


def test_reset_comes_before_wait_which_is_on_same_run_id(lab: Any, dag: Any) -> None:
    """A second parent resets the run that the first one triggered: what it waits for is the run from then on."""
    lab.runs.states["other", "fixed"] = "success"
    lab.runs.parents["other", "fixed"] = ("another", "run", "x")
    build = trigger(dag, trigger_run_id="fixed", reset_dag_run=True, wait_for_completion=True, deferrable=True)
    deferred = lab.deferral(build, "t")
    assert lab.runs.resets == ["fixed"]
    assert deferred.trigger.run_ids == ["fixed"]
    assert lab.runs.states["other", "fixed"] == "queued"


def test_trigger_of_foreign_run_is_error_or_skip(lab: Any, dag: Any) -> None:
    lab.runs.states["other", "taken"] = "success"
    lab.runs.parents["other", "taken"] = ("another", "run", "x")
    with pytest.raises(DagRunAlreadyExists):
        lab.run(trigger(dag, trigger_run_id="taken", wait_for_completion=True), "t")
    with pytest.raises(SkipException, match="exists already"):
        lab.run(trigger(dag, trigger_run_id="taken", skip_when_already_exists=True), "t")


def test_paused_dag_is_asked_about_while_task_can_still_fail(lab: Any, dag: Any) -> None:
    lab.run(trigger(dag, fail_when_dag_is_paused=True), "t")
    [(run, now)] = lab.ti.triggered
    assert (run.fail_when_dag_is_paused, now) == (True, True)


def test_run_of_our_own_is_no_reason_to_skip(lab: Any, dag: Any) -> None:
    build = trigger(dag, skip_when_already_exists=True)
    for _ in range(2):
        lab.run(build, "t")
        assert lab.ti.triggered[0][1] is True


@pytest.mark.parametrize(("given", "waits"), [("{{ params.wait }}", False), ("True", True), ("no", False)])
def test_flags_may_be_templates(lab: Any, dag: Any, given: str, waits: bool) -> None:
    build = dag(
        lambda: TriggerDagRunOperator(task_id="t", trigger_dag_id="other", wait_for_completion=given, deferrable=True),
        params={"wait": False},
    )
    if waits:
        lab.deferral(build, "t")
    else:
        lab.run(build, "t")
        assert lab.ti.triggered[0][1] is False


def test_document_is_same_each_time(dag: Any) -> None:
    assert to_document(trigger(dag)()) == to_document(trigger(dag)())
