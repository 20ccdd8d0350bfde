"""What the log says of an executor that is away: once that it is, once that it takes workloads again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from trainflow.executors.configured import ConfiguredExecutors
from trainflow.executors.executor import Executor, ExecutorUnavailable
from trainflow.executors.remote import RemoteExecutor
from trainflow.messages.workload import AttemptKey, DagSource, ExecuteTask
from trainflow.settings.model import ExecutorSettings, Settings

AWAY = "executor 'fleet' takes no workloads: connection refused; its tasks stay queued"
BACK = "executor 'fleet' takes workloads again"


class _Timer:
    def __init__(self, act: Callable[[], None]) -> None:
        self.act = act
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class _Host:
    """Clock, reactor and host in one: time passes when a test says so."""

    def __init__(self) -> None:
        self.reactor = self.clock = self
        self.timers: list[_Timer] = []
        self.now = 0.0
        self.pauses: list[float] = []
        self.begun: set[AttemptKey] = set()
        self.reported: set[AttemptKey] = set()

    def monotonic(self) -> float:
        return self.now

    def call_later(self, seconds: float, act: Callable[[], None]) -> _Timer:
        self.pauses.append(seconds)
        self.timers.append(_Timer(act))
        return self.timers[-1]

    def wake(self) -> None:
        pass

    def has_begun(self, key: AttemptKey, pid: int | None = None) -> bool:
        return key in self.begun

    def has_reported(self, key: AttemptKey) -> bool:
        return key in self.reported

    def exited(self, key: AttemptKey, exit: Any) -> None:
        pass

    def fire(self) -> None:
        """Have all timers run out."""
        timers, self.timers = self.timers, []
        for timer in timers:
            if not timer.cancelled:
                timer.act()


class AtOnce(RemoteExecutor):
    """Knows at once whether it could hand over."""

    def __init__(self) -> None:
        super().__init__(redeliver_seconds=20)
        self.away = False
        self.sent: list[str] = []
        self.withdrawn: list[AttemptKey] = []

    def deliver(self, workload: ExecuteTask) -> None:
        if self.away:
            raise ExecutorUnavailable("connection refused")
        self.sent.append(workload.task_id)

    def withdraw(self, key: AttemptKey) -> None:
        self.withdrawn.append(key)

    def settle(self) -> None:
        pass


class Later(AtOnce):
    """Learns later whether it could, as one whose thread sends."""

    tells_later: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.sending: list[ExecuteTask] = []
        self.failed = False

    def deliver(self, workload: ExecuteTask) -> None:
        self.sending.append(workload)

    def settle(self) -> None:
        work, self.sending = self.sending, []
        for each in work:
            if self.away:
                self.failed = True
                self.not_delivered(each, "connection refused")
            else:
                self.sent.append(each.task_id)
                if self.failed:
                    self.failed = False
                    self.delivered_again(each)
        if self.sending:
            self.settle()


def _workload(task: str) -> ExecuteTask:
    return ExecuteTask(
        AttemptKey(task, 0), 1, "days", "run", task, -1, DagSource("p.py"), "/p", "/h", "/l", executor="fleet"
    )


@pytest.fixture(params=[AtOnce, Later])
def executor(request: pytest.FixtureRequest) -> AtOnce:
    made: AtOnce = request.param()
    return made


@pytest.fixture
def host() -> _Host:
    return _Host()


@pytest.fixture
def executors(executor: Executor, host: _Host, caplog: pytest.LogCaptureFixture) -> ConfiguredExecutors:
    caplog.set_level(logging.DEBUG, "trainflow.executors")
    settings = Settings(executor=ExecutorSettings(default="fleet"), executors={"fleet": {"type": "x"}})
    made = ConfiguredExecutors(settings, make=lambda _entry: executor)
    host.not_taken, host.taken = made.not_taken, made.taken  # type: ignore[attr-defined]
    made.start(host)  # type: ignore[arg-type]
    return made


def _said(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(each.levelname, each.getMessage()) for each in caplog.records]


def test_outage_is_told_once_and_its_end_after_a_hand_over(
    executors: ConfiguredExecutors, executor: AtOnce, host: _Host, caplog: pytest.LogCaptureFixture
) -> None:
    executor.away = True
    for task in ("a", "b", "c"):
        executors.queue_workload(_workload(task))
    executor.settle()
    for _ in range(20):
        host.fire()
        assert executors.problems == {"fleet": "connection refused"}
        executor.settle()
        assert executors.problems == {"fleet": "connection refused"}
    assert _said(caplog) == [("WARNING", AWAY)]
    executor.away = False
    host.fire()
    executor.settle()
    assert _said(caplog) == [("WARNING", AWAY), ("INFO", BACK)]
    assert (executors.problems, executor.sent) == ({}, ["a", "b", "c"])
    assert host.pauses[:3] == [1.0, 2.0, 4.0]
    assert max(host.pauses) == 30.0


def test_outage_whose_tasks_are_gone_ends_with_the_next_hand_over(
    executors: ConfiguredExecutors, executor: AtOnce, host: _Host, caplog: pytest.LogCaptureFixture
) -> None:
    executor.away = True
    executors.queue_workload(_workload("a"))
    executor.settle()
    executors.terminate(_workload("a").key)
    host.fire()
    # nothing is known of it: the scheduler may queue, and that shows how it is
    assert executors.problems == {}
    executors.queue_workload(_workload("b"))
    executor.settle()
    assert executors.problems == {"fleet": "connection refused"}
    assert _said(caplog) == [("WARNING", AWAY)]
    executor.away = False
    host.fire()
    executor.settle()
    assert _said(caplog) == [("WARNING", AWAY), ("INFO", BACK)]


def test_probe_that_is_terminated_keeps_nothing_waiting(
    executors: ConfiguredExecutors, executor: AtOnce, host: _Host
) -> None:
    executor.away = True
    for task in ("a", "b"):
        executors.queue_workload(_workload(task))
    executor.settle()
    host.fire()
    executors.terminate(_workload("a").key)
    executor.settle()
    executor.away = False
    for _ in range(3):
        host.fire()
        executor.settle()
    assert executor.sent[-1] == "b"
    assert executors.problems == {}


def test_attempt_that_no_worker_begins_is_told_once_and_sent_ever_less_often(
    executors: ConfiguredExecutors, executor: AtOnce, host: _Host, caplog: pytest.LogCaptureFixture
) -> None:
    executors.queue_workload(_workload("train"))
    sent_at = []
    for second in range(2600):
        host.now = second
        count = len(executor.sent)
        executor.settle()
        executors.sync()
        executor.settle()
        sent_at += [second] * (len(executor.sent) - count)
    assert [second for second in sent_at if second] == [20, 60, 140, 300, 620, 1260, 1900, 2540]
    assert [said for level, said in _said(caplog) if level != "DEBUG"] == [
        "task 'train' (attempt train) was handed over 20 s ago and no worker has begun it: it is handed over again; "
        "is a worker listening on queue 'default'?"
    ]


def test_redelivery_that_is_not_taken_is_an_outage(
    executors: ConfiguredExecutors, executor: AtOnce, host: _Host, caplog: pytest.LogCaptureFixture
) -> None:
    executors.queue_workload(_workload("train"))
    executor.settle()
    executor.away, host.now = True, 30.0
    executors.sync()
    executor.settle()
    assert executors.problems == {"fleet": "connection refused"}
    assert ("WARNING", AWAY) in _said(caplog)


@pytest.mark.parametrize("reported", [False, True])
def test_attempt_is_withdrawn_only_where_it_has_not_said_how_it_ended(
    executors: ConfiguredExecutors, executor: AtOnce, host: _Host, reported: bool
) -> None:
    work = _workload("train")
    executors.queue_workload(work)
    executor.settle()
    if reported:
        host.reported.add(work.key)
    executors.terminate(work.key)
    assert executor.withdrawn == ([] if reported else [work.key])
    assert executors.running() == frozenset()
