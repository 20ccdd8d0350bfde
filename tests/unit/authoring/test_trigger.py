"""Triggers as data, and deferral."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from trainflow.authoring.operator import FAIL_METHOD, START_OVER_METHOD, TRIGGER_TIMEOUT, BaseOperator
from trainflow.authoring.trigger import BaseTrigger, TriggerEvent, describe_trigger, make_trigger, trigger_class
from trainflow.errors import InputError, TriggerFailed, TriggerTimeout
from trainflow.task_signals import TaskDeferred

HERE = __name__


class Wait(BaseTrigger):
    def __init__(self, seconds):
        self.seconds = seconds

    def serialize(self):
        return f"{HERE}.Wait", {"seconds": self.seconds}

    async def run(self):
        state = await self.ask_dag_run("d", "r")
        doubled = await self.in_thread(lambda n: 2 * n, self.seconds)
        yield TriggerEvent({"state": state, "doubled": doubled})


class Liar(Wait):
    pass


class Broken(BaseTrigger):
    def __init__(self, described):
        self.described = described

    def serialize(self):
        return self.described


class Waiter(BaseOperator):
    def execute(self, context):
        self.defer(trigger=Wait(5), method_name="done", kwargs={"n": 1}, timeout=timedelta(minutes=1))

    def done(self, context, event, n):
        return context["run_id"], event, n


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, HERE, sys.modules.get(HERE) or __import__("types").SimpleNamespace(**globals()))


def test_trigger_comes_back_from_what_describes_it():
    class_path, kwargs = describe_trigger(Wait(5))
    again = make_trigger(class_path, kwargs)
    assert isinstance(again, Wait)
    assert again.seconds == 5


@pytest.mark.parametrize(
    ("trigger", "message"),
    [
        ("text", "no BaseTrigger"),
        (Liar(5), "names .*Wait.*another class"),
        (Broken("x"), "must give"),
        (Broken(("x", [])), "must give"),
        (Broken((f"{HERE}.Broken", {"described": object()})), "not JSON"),
        (Broken((f"{HERE}.Missing", {})), "cannot be imported"),
        (Broken(("no_such_module_anywhere.X", {})), "cannot be imported"),
        (Broken(("X", {})), "no class path"),
        (Broken((f"{HERE}.Broken", {"text": 1})), r"cannot be made from \['text'\]"),
    ],
)
def test_describe_trigger_that_could_not_come_back_is_refused(trigger, message):
    with pytest.raises(InputError, match=message):
        describe_trigger(trigger)


@pytest.mark.parametrize("path", ["os.system", "os.path", "trainflow.authoring.operator.BaseOperator", "json.dumps"])
def test_make_trigger_of_other_class_is_refused(path):
    with pytest.raises(InputError, match="no BaseTrigger"):
        trigger_class(path)


def test_arguments_that_do_not_fit():
    with pytest.raises(InputError, match=r"cannot be made from \['minutes'\]"):
        make_trigger(f"{HERE}.Wait", {"minutes": 1})


def test_trigger_uses_services_of_its_loop():
    class Services:
        async def ask_dag_run(self, dag_id, run_id):
            return f"{dag_id}/{run_id}"

        async def in_thread(self, function, *args):
            return function(*args)

    async def first(trigger):
        return await anext(aiter(trigger.run()))

    trigger = Wait(4)
    with pytest.raises(RuntimeError, match="outside of an event loop"):
        asyncio.run(first(trigger))
    trigger.services = Services()
    assert asyncio.run(first(trigger)) == TriggerEvent({"state": "d/r", "doubled": 8})
    asyncio.run(trigger.cleanup())
    asyncio.run(trigger.on_kill())


def test_defer_and_resume():
    task = Waiter(task_id="t")
    with pytest.raises(TaskDeferred) as caught:
        task.execute({})
    deferred = caught.value
    assert (deferred.method_name, deferred.kwargs, deferred.timeout_seconds) == ("done", {"n": 1}, 60.0)
    assert isinstance(deferred.trigger, Wait)
    assert task.resume_execution("done", {"n": 1, "event": "e"}, {"run_id": "r"}) == ("r", "e", 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trigger": "x", "method_name": "done"}, "no BaseTrigger"),
        ({"trigger": Wait(1), "method_name": "donne"}, "'donne', which Waiter lacks"),
        ({"trigger": Wait(1), "method_name": "done"}, "does not take context, event: missing a required argument: 'n'"),
        ({"trigger": Wait(1), "method_name": "done", "kwargs": {"x": object()}}, "not JSON"),
        ({"trigger": Wait(1), "method_name": "done", "kwargs": {"n": 1}, "timeout": -1}, "defer timeout"),
    ],
)
def test_deferral_with_mistake_fails_at_once(options, message):
    with pytest.raises(InputError, match=message):
        Waiter(task_id="t").defer(**options)


def test_wait_that_ended_without_event():
    task = Waiter(task_id="t")
    with pytest.raises(TriggerTimeout):
        task.resume_execution(FAIL_METHOD, {"error": TRIGGER_TIMEOUT}, {})
    with pytest.raises(TriggerFailed, match="boom\nline 1"):
        task.resume_execution(FAIL_METHOD, {"error": "boom", "traceback": ["line 1"]}, {})


@pytest.mark.parametrize(
    ("method", "kwargs", "why"),
    [
        (START_OVER_METHOD, {"reason": "no such trigger", "times": 1}, "no such trigger"),
        ("gone", {"event": "e"}, "'gone', which Waiter lacks"),
        ("done", {"event": "e", "count": 1}, "does not take context, count, event: missing a required argument: 'n'"),
    ],
)
def test_wait_begun_by_other_code_starts_over_and_says_so(method, kwargs, why, caplog):
    task = Waiter(task_id="t")

    with pytest.raises(TaskDeferred):
        task.resume_execution(method, kwargs, {})

    assert "the task starts over" in caplog.text
    assert why in caplog.text
