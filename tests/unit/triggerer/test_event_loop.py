"""The process that runs triggers: it ends in good order however its triggerer leaves."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import threading
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from trainflow.authoring.trigger import BaseTrigger, TriggerEvent
from trainflow.messages.frames import receive, send
from trainflow.messages.triggerer import Crashed, Fired, FromLoop, NotMade, Watch
from trainflow.triggerer.event_loop import EventLoop


class Untidy(BaseTrigger):
    """Fires, and cannot clean up."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        yield TriggerEvent("now")

    async def cleanup(self) -> None:
        raise RuntimeError("the broom is gone")


class Served:
    """An event loop in a thread, and our end of it."""

    def __init__(self) -> None:
        self.ours, theirs = socket.socketpair()
        self.ours.settimeout(100)
        self.raised: list[BaseException] = []
        self._loop = EventLoop(theirs, threads=1)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        try:
            asyncio.run(self._loop.serve())
        except BaseException as error:
            self.raised.append(error)

    def leave(self) -> None:
        self.ours.close()
        self._thread.join(100)
        assert not self._thread.is_alive()


def test_triggerer_that_leaves_without_listening_is_no_error() -> None:
    served = Served()
    # it says that it is alive, and that is not read: closing now resets the connection
    assert served.ours.recv(1, socket.MSG_PEEK)
    served.leave()
    assert served.raised == []


def test_event_loop_trigger_failing_cleanup_has_fired_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    served = Served()
    send(served.ours, msgspec.json.encode(Watch(1, f"{Untidy.__module__}.{Untidy.__qualname__}", "{}")))
    with caplog.at_level(logging.ERROR):
        said = None
        while not isinstance(said, Fired):
            frame = receive(served.ours)
            assert frame is not None
            said = msgspec.json.decode(frame, type=FromLoop)
        served.leave()
    assert bytes(said.payload) == b'"now"'
    assert "cleanup of Untidy failed" in caplog.text
    assert "the broom is gone" in caplog.text


class Leaves(BaseTrigger):
    """Calls what ends a process."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        sys.exit("enough")
        yield TriggerEvent()


class CancelsItself(BaseTrigger):
    """Ends as if it had been cancelled."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        raise asyncio.CancelledError
        yield TriggerEvent()


class CancelsItsTask(BaseTrigger):
    """Is cancelled, by itself."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(100)
        yield TriggerEvent()


class SaysWhatIsNoJson(BaseTrigger):
    """Its event cannot be told."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        yield TriggerEvent({"a": float("nan")})


class SaysTooDeepAThing(BaseTrigger):
    """Its event cannot be read by every reader."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        value: list[Any] = []
        for _ in range(300):
            value = [value]
        yield TriggerEvent(value)


class HalfOfAPair(BaseTrigger):
    """Its message is no text."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        raise ValueError("\ud800\x00")
        yield TriggerEvent()


def path_of(trigger: type[BaseTrigger]) -> str:
    return f"{trigger.__module__}.{trigger.__qualname__}"


def heard(served: Served, count: int) -> dict[int, Fired | Crashed | NotMade]:
    said: dict[int, Fired | Crashed | NotMade] = {}
    while len(said) < count:
        frame = receive(served.ours)
        assert frame is not None
        message = msgspec.json.decode(frame, type=FromLoop)
        if isinstance(message, Fired | Crashed | NotMade):
            said[message.trigger_id] = message
    return said


@pytest.mark.parametrize(
    ("trigger_class", "kwargs", "why"),
    [
        (path_of(Leaves), "{}", "SystemExit: enough"),
        (path_of(CancelsItself), "{}", "CancelledError"),
        (path_of(CancelsItsTask), "{}", "CancelledError"),
        (path_of(SaysWhatIsNoJson), "{}", "the payload of the event"),
        (path_of(SaysTooDeepAThing), "{}", "nested more than"),
        (path_of(HalfOfAPair), "{}", "ValueError: \\ud800"),
    ],
)
def test_event_loop_trigger_not_runnable_fails_its_task_only(trigger_class: str, kwargs: str, why: str) -> None:
    served = Served()
    for watch in (Watch(1, trigger_class, kwargs), Watch(2, path_of(Untidy), "{}")):
        send(served.ours, msgspec.json.encode(watch))
    said = heard(served, 2)
    served.leave()
    assert isinstance(said[1], Crashed)
    assert why in said[1].message
    assert isinstance(said[2], Fired)
    assert served.raised == []


class Shuts(Untidy):
    """Ends the process when it is made."""

    def __init__(self) -> None:
        sys.exit("not here")


@pytest.mark.parametrize(
    ("trigger_class", "kwargs", "why"),
    [
        (path_of(Shuts), "{}", "SystemExit: not here"),
        (path_of(Untidy), "no json", "malformed"),
        (path_of(Untidy), "7", "Expected `object`"),
        (path_of(Untidy), '{"a":' + "[" * 20_000, "recursion"),
        (path_of(Untidy), '{"unknown":1}', "cannot be made"),
        ("nowhere.at.All", "{}", "nowhere"),
        ("", "{}", "class path"),
    ],
)
def test_event_loop_trigger_that_cannot_be_made_is_named(trigger_class: str, kwargs: str, why: str) -> None:
    served = Served()
    for watch in (Watch(1, trigger_class, kwargs), Watch(2, path_of(Untidy), "{}")):
        send(served.ours, msgspec.json.encode(watch))
    said = heard(served, 2)
    served.leave()
    assert isinstance(said[1], NotMade)
    assert why in said[1].message
    assert isinstance(said[2], Fired)
    assert served.raised == []
