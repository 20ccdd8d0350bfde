"""The process that runs triggers: it ends in good order however its triggerer leaves."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import AsyncIterator

import msgspec
import pytest

from trainflow.authoring.trigger import BaseTrigger, TriggerEvent
from trainflow.messages.frames import receive, send
from trainflow.messages.watches import Fired, LoopAlive, Watch
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


def test_a_triggerer_that_leaves_without_listening_is_no_error() -> None:
    served = Served()
    # it says that it is alive, and nobody reads that: closing now resets the connection
    assert served.ours.recv(1, socket.MSG_PEEK)
    served.leave()
    assert served.raised == []


def test_a_trigger_that_cannot_clean_up_has_fired_and_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    served = Served()
    send(served.ours, msgspec.json.encode(Watch(1, f"{Untidy.__module__}.{Untidy.__qualname__}", {})))
    with caplog.at_level(logging.ERROR):
        said = None
        while not isinstance(said, Fired):
            frame = receive(served.ours)
            assert frame is not None
            said = msgspec.json.decode(frame, type=Fired | LoopAlive)
        served.leave()
    assert said.payload == "now"
    assert "cleanup of Untidy failed" in caplog.text
    assert "the broom is gone" in caplog.text
