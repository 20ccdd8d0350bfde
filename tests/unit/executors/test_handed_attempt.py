"""What is asked for an attempt is asked one after the other, in threads that attempts share."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

import pytest

from trainflow.executors.handed_attempt import HandedAttempt, WorkloadEnd
from trainflow.messages.workload import AttemptKey, DagSource, ExecuteTask, ProcessExit


def attempt(threads: ThreadPoolExecutor) -> HandedAttempt:
    source = DagSource("p.py")
    workload = ExecuteTask(AttemptKey("a1"), 0, "d", "r", "t", -1, source, "/", "/", "/dev/null")
    nothing: Any = None
    return HandedAttempt(workload, nothing, threads)


def test_work_of_one_attempt_is_done_in_order_and_never_at_the_same_time() -> None:
    done: list[int] = []
    under_way = threading.Semaphore(1)

    def work(number: int) -> Callable[[], None]:
        def do() -> None:
            assert under_way.acquire(blocking=False)
            done.append(number)
            under_way.release()

        return do

    with ThreadPoolExecutor(4) as threads:
        one = attempt(threads)
        for number in range(200):
            one.in_order(work(number))
    assert done == list(range(200))


def test_attempt_that_waits_for_an_answer_keeps_no_other_waiting() -> None:
    answered, done = threading.Event(), threading.Event()
    with ThreadPoolExecutor(2) as threads:
        attempt(threads).in_order(answered.wait)
        attempt(threads).in_order(done.set)
        assert done.wait(10)
        answered.set()


def test_work_that_fails_is_said_and_the_next_is_done(caplog: pytest.LogCaptureFixture) -> None:
    done = threading.Event()

    def fail() -> None:
        raise ValueError("broken")

    with ThreadPoolExecutor(1) as threads:
        one = attempt(threads)
        one.in_order(fail)
        one.in_order(done.set)
    assert done.is_set()
    assert "attempt a1: something could not be handed on" in caplog.text


@pytest.mark.parametrize("fails", ["say", "close"])
def test_attempt_whose_session_fails_at_its_end_has_ended_all_the_same(
    monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """Its worker waits for that."""
    told: list[WorkloadEnd] = []
    with ThreadPoolExecutor(1) as threads:
        one = attempt(threads)
        session = mock.Mock(**{fails: mock.Mock(side_effect=RuntimeError("broken"))})
        monkeypatch.setattr(one, "_session", session)
        monkeypatch.setattr(one, "_claimed", True)
        one.in_order(lambda: one.finish(ProcessExit(code=0), told.append))
    (ended,) = told
    assert ended.key == AttemptKey("a1")
    assert ended.done == (fails == "close")
