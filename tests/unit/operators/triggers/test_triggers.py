"""Triggers, in an event loop of their own, without waiting for real time."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from tests.unit.operators.triggers.firing import MOMENT, Services, fire
from trainflow.authoring.trigger import describe_trigger, make_trigger
from trainflow.clock import ManualClock
from trainflow.errors import InputError
from trainflow.operators.triggers.dag_state import DagStateTrigger
from trainflow.operators.triggers.partition import _listings
from trainflow.operators.triggers.time import DateTimeTrigger, TimeDeltaTrigger


def test_moment_is_waited_for(clock: ManualClock) -> None:
    moment = MOMENT + timedelta(hours=3, seconds=1)
    assert fire(DateTimeTrigger(moment, clock)) == moment.isoformat()
    assert clock.now() == moment


def test_moment_that_is_past_fires_at_once(clock: ManualClock) -> None:
    fire(DateTimeTrigger(MOMENT - timedelta(days=1), clock))
    assert clock.now() == MOMENT


def test_delta_keeps_its_moment_when_it_moves_to_another_process(clock: ManualClock) -> None:
    path, kwargs = describe_trigger(TimeDeltaTrigger(timedelta(minutes=5), clock=clock))
    clock.advance(timedelta(minutes=4))
    again = make_trigger(path, kwargs)
    assert isinstance(again, TimeDeltaTrigger)
    assert again.moment == MOMENT + timedelta(minutes=5)


def test_delta_may_be_seconds(clock: ManualClock) -> None:
    assert TimeDeltaTrigger(90, clock=clock).moment == MOMENT + timedelta(seconds=90)
    with pytest.raises(InputError):
        TimeDeltaTrigger()
    with pytest.raises(ValueError, match="naive"):
        DateTimeTrigger(datetime(2026, 1, 1))


def test_run_that_is_over_fires_before_any_sleep(clock: ManualClock) -> None:
    trigger = DagStateTrigger("d", ["success", "failed"], ["r"], poll_interval=5)
    assert fire(trigger, Services({"r": ["success"]})) == {"r": "success"}
    assert clock.now() == MOMENT


def test_runs_are_waited_for_until_all_are_over(clock: ManualClock) -> None:
    services = Services({"a": ["running", "success"], "b": ["queued", "running", "failed"]})
    trigger = DagStateTrigger("d", ["success", "failed"], ["a", "b"], poll_interval=5)
    assert fire(trigger, services) == {"a": "success", "b": "failed"}
    assert clock.now() == MOMENT + timedelta(seconds=10)


def test_run_that_is_deleted_ends_wait(clock: ManualClock) -> None:
    assert fire(DagStateTrigger("d", ["success"], ["r"]), Services({"r": ["running", None]})) == {"r": None}


def test_dag_state_trigger_travels(clock: ManualClock) -> None:
    described = describe_trigger(DagStateTrigger("d", ["success"], ["r"], poll_interval=2.5))
    assert describe_trigger(make_trigger(*described)) == described


@pytest.fixture(autouse=True)
def _fresh_listings() -> None:
    _listings.cache_clear()
