"""The pool of a Celery worker, and what it gives back, without a broker."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from trainflow.actions import celery_worker
from trainflow.executors.handed_attempt import WorkloadEnd
from trainflow.messages.http_protocol import WorkerOrders
from trainflow.messages.workload import AttemptKey, DagSource, ExecuteTask


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


TASK = ExecuteTask(
    AttemptKey("01m8qdxcpreh5tyxzf6fd0g3ve", 0),
    *(1, "d", "r", "t", -1, DagSource("p.py"), "/srv/p", "/srv/h", "l"),
    api_url="http://127.0.0.1:8080",
    claim_secret="secret",
)
#: of an engine that is a build ahead
MESSAGE = msgspec.json.encode({**msgspec.to_builtins(TASK), "of_the_next_build": 1}).decode()


@pytest.mark.parametrize(
    ("drained", "replaced", "ends", "given_back"),
    [
        ({"default"}, False, False, True),
        (set(), True, False, True),
        (set(), False, True, True),
        (set(), False, False, False),
    ],
    ids=["queue is left alone", "package was replaced", "worker ends", "run"],
)
def test_message_of_an_attempt_that_is_not_begun_here_goes_back_as_it_came(
    monkeypatch: pytest.MonkeyPatch, drained: set[str], replaced: bool, ends: bool, given_back: bool
) -> None:
    sent: list[list[str]] = []
    ran: list[ExecuteTask] = []

    def execute(workload: ExecuteTask, _root: Path) -> WorkloadEnd:
        ran.append(workload)
        return WorkloadEnd(workload.key, not ends, "it ended", is_left=ends)

    monkeypatch.setattr(celery_worker, "code_of", lambda *_: Path("/srv/p"))
    stubs: dict[str, Any] = {
        "app": SimpleNamespace(send_task=lambda _name, args, **_how: sent.append(args)),
        "attempts": SimpleNamespace(execute=execute),
        "consumers": SimpleNamespace(drained=drained, reason="drained", busy=nullcontext),
        "heartbeats": SimpleNamespace(note_served=lambda _installation: None),
        "restart": SimpleNamespace(is_due=lambda: replaced),
    }
    messages = celery_worker._Messages(**stubs, project=Path("/srv/p"), started_in=Path("/srv"), pause=print)
    messages.execute_workload(MESSAGE)
    assert sent == ([[MESSAGE]] if given_back else [])
    assert bool(ran) == (not drained and not replaced)


def test_message_that_is_called_off_warns_of_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """No result is kept of any."""
    celery = pytest.importorskip("celery")
    control: Any = pytest.importorskip("celery.worker.control")
    caplog.set_level(logging.INFO)
    celery_worker._leave_out_of_log()
    control.revoke(SimpleNamespace(app=celery.Celery("t", set_as_current=False)), ["a.0"])
    assert [record.getMessage() for record in caplog.records] == ["Tasks flagged as revoked: a.0"]


def test_queue_is_left_and_listened_on_again_once_the_broker_hears_it() -> None:
    said: list[tuple[str, str]] = []

    class Control:
        away = True

        def cancel_consumer(self, queue: str, destination: list[str]) -> None:
            self._say("leave", queue)

        def add_consumer(self, queue: str, destination: list[str]) -> None:
            self._say("listen", queue)

        def _say(self, what: str, queue: str) -> None:
            if self.away:
                raise OSError("the broker does not answer")
            said.append((what, queue))

    control = Control()
    app: Any = SimpleNamespace(control=control)
    consumers = celery_worker._Consumers(app, "w@here")

    def told(*drained: str, away: bool) -> None:
        control.away = away
        with pytest.raises(OSError) if away else nullcontext():
            consumers.follow(WorkerOrders(1, list(drained), ""))
        # what comes meanwhile is given back, or taken
        assert consumers.drained == set(drained)

    told("gpu", away=True)
    told("gpu", away=False)
    told("gpu", away=False)
    told(away=True)
    told(away=False)
    assert said == [("leave", "gpu"), ("listen", "gpu")]
