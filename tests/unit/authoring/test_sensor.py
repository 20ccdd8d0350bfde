"""Sensors under a clock that moves only when they sleep."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from trainflow.authoring.operator import FAIL_METHOD, TRIGGER_TIMEOUT
from trainflow.authoring.sensor import BaseSensorOperator, PokeReturnValue
from trainflow.clock import ManualClock
from trainflow.errors import FailException, InputError, RescheduleException, SensorTimeout, SkipException

START = datetime(2013, 1, 1, tzinfo=UTC)


class Sensor(BaseSensorOperator):
    def __init__(self, answers, **kwargs):
        super().__init__(**kwargs)
        self.answers = iter(answers)
        self.looks = []

    def poke(self, context):
        self.looks.append((context["ti"].clock.now() - START).total_seconds())
        answer = next(self.answers, False)
        if isinstance(answer, Exception):
            raise answer
        return answer


def context(first_started_at=START, reschedule_count=0, late=0):
    clock = ManualClock(START)
    clock.advance(timedelta(seconds=late))
    ti = SimpleNamespace(
        clock=clock,
        first_started_at=first_started_at,
        reschedule_count=reschedule_count,
        sleep=lambda seconds: clock.advance(timedelta(seconds=seconds)),
    )
    return {"ti": ti}


def test_sensor_looks_until_found():
    sensor = Sensor([False, False, PokeReturnValue(True, {"x": 1})], task_id="s", poke_interval=10)
    assert sensor.execute(context()) == {"x": 1}
    assert sensor.looks == [0, 10, 20]
    assert Sensor([True], task_id="s").execute(context()) is None


def test_sensor_looks_last_at_timeout():
    sensor = Sensor([], task_id="s", poke_interval=10, timeout=timedelta(seconds=25))
    with pytest.raises(SensorTimeout, match="'s': not there after 0:00:25"):
        sensor.execute(context())
    assert sensor.looks == [0, 10, 20, 25]


def test_sensor_counts_what_came_at_last_moment():
    sensor = Sensor([False, True], task_id="s", poke_interval=10, timeout=5)
    sensor.execute(context())
    assert sensor.looks == [0, 5]


def test_timeout_counts_from_first_start():
    sensor = Sensor([], task_id="s", poke_interval=10, timeout=25)
    with pytest.raises(SensorTimeout):
        sensor.execute(context(late=20))
    assert sensor.looks == [20, 25]


def test_intervals_double_up_to_max_wait():
    options = {"task_id": "s", "poke_interval": 1, "exponential_backoff": True, "max_wait": 5}
    sensor = Sensor([False] * 5 + [True], **options)
    sensor.execute(context())
    assert sensor.looks == [0, 1, 3, 7, 12, 17]
    assert sensor.interval(10**6) == timedelta(seconds=5)


def test_reschedule_gives_slot_back():
    options = {"task_id": "s", "mode": "reschedule", "poke_interval": 1, "exponential_backoff": True}
    with pytest.raises(RescheduleException) as caught:
        Sensor([], **options).execute(context(reschedule_count=3, late=100))
    assert caught.value.reschedule_at == timedelta(seconds=8)


@pytest.mark.parametrize("end", [FailException("x"), None])
def test_soft_fail_skips_instead_of_failing(end):
    sensor = Sensor([end or False], task_id="s", timeout=0, soft_fail=True)
    with pytest.raises(SkipException, match="soft_fail"):
        sensor.execute(context())


def test_sensor_other_errors_are_raised_unchanged():
    with pytest.raises(KeyError):
        Sensor([KeyError("x")], task_id="s", soft_fail=True).execute(context())


def test_deferred_sensor_times_out_as_sensor():
    kwargs = {"error": TRIGGER_TIMEOUT}
    with pytest.raises(SensorTimeout):
        Sensor([], task_id="s").resume_execution(FAIL_METHOD, kwargs, context())
    with pytest.raises(SkipException):
        Sensor([], task_id="s", soft_fail=True).resume_execution(FAIL_METHOD, kwargs, context())


@pytest.mark.parametrize(
    "options", [{"mode": "peek"}, {"poke_interval": 0}, {"timeout": -1}, {"max_wait": 3}, {"poke_intervall": 3}]
)
def test_sensor_with_bad_argument_is_refused(options):
    with pytest.raises(InputError):
        Sensor([], task_id="s", **options)


def test_poke_must_be_written():
    with pytest.raises(TypeError, match="abstract"):
        BaseSensorOperator(task_id="s")
