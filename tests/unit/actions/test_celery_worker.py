"""The pool of a Celery worker, without a broker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from trainflow.actions import celery_worker


class Loop:
    """What wakes Celery's loop."""

    def __init__(self) -> None:
        self.woken = 0

    def call_soon(self, _what: Callable[[], object]) -> None:
        self.woken += 1


def test_pool_wakes_loop_when_slot_is_free_again() -> None:
    asynchronous: Any = pytest.importorskip("kombu.asynchronous")
    before, loop, done = asynchronous.get_event_loop(), Loop(), []
    asynchronous.set_event_loop(loop)
    try:
        pool = celery_worker._waking_pool()(limit=1)

        def work() -> None:
            done.append(loop.woken)

        applied = [pool.on_apply(work, (), {}, callback=lambda _result: done.append(loop.woken)) for _ in range(2)]
        for each in applied:
            each.wait()
        pool.executor.shutdown()
    finally:
        asynchronous.set_event_loop(before)
    # each time after the message was counted as done
    assert done == [0, 0, 1, 1]
    assert loop.woken == 2
