"""Callbacks may close anything, a peer that is gone is noticed, and one that does not read holds up no other."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from trainflow.clock import ManualClock
from trainflow.executors.framed_socket import FramedSocket
from trainflow.executors.reactor import Reactor
from trainflow.messages import frames


@pytest.fixture
def reactor(clock: ManualClock) -> Iterator[Reactor]:
    reactor = Reactor(clock)
    yield reactor
    reactor.close()


class Line:
    """A peer of the reactor, and the socket at the other end."""

    def __init__(self, reactor: Reactor) -> None:
        self.reactor = reactor
        ours, self.other = socket.socketpair()
        self.heard: list[bytes] = []
        self.ends = 0
        self.peer = FramedSocket(reactor, ours, on_message=self.hear, on_close=self.end)

    def hear(self, message: bytes) -> None:
        self.heard.append(message)

    def end(self) -> None:
        self.ends += 1


@pytest.fixture
def lines(reactor: Reactor) -> Iterator[list[Line]]:
    lines = [Line(reactor) for _ in range(3)]
    yield lines
    for line in lines:
        line.peer.hang_up()
        line.other.close()


class TestTimers:
    def test_timers_fire_in_order_of_time(self, reactor: Reactor, clock: ManualClock) -> None:
        called: list[str] = []
        reactor.call_later(2, lambda: called.append("second"))
        reactor.call_later(1, lambda: called.append("first"))
        reactor.call_later(2, lambda: called.append("third"))
        reactor.turn(0)
        assert called == []
        clock.advance(timedelta(seconds=2))
        reactor.turn(0)
        reactor.turn(0)
        assert called == ["first", "second", "third"]

    def test_cancelled_ones_are_not_waited_for(self, reactor: Reactor, clock: ManualClock) -> None:
        called: list[int] = []
        timer = reactor.call_later(1, lambda: called.append(1))
        reactor.call_later(1, timer.cancel)
        timer.cancel()
        clock.advance(timedelta(seconds=1))
        reactor.turn(None)
        assert called == []

    def test_timer_may_set_next(self, reactor: Reactor, clock: ManualClock) -> None:
        called: list[float] = []

        def again() -> None:
            called.append(clock.monotonic())
            reactor.call_later(1, again)

        again()
        for _ in range(3):
            clock.advance(timedelta(seconds=1))
            reactor.turn(0)
        assert called == [0.0, 1.0, 2.0, 3.0]


def test_woken_from_another_thread(reactor: Reactor) -> None:
    thread = threading.Thread(target=reactor.wake)
    thread.start()
    reactor.turn(None)
    thread.join()
    assert reactor.woken


def test_waking_ten_thousand_times_is_waking_once(reactor: Reactor) -> None:
    for _ in range(70_000):
        reactor.wake()
    reactor.turn(None)
    reactor.woken = False
    reactor.turn(0)
    assert not reactor.woken


def test_callback_may_close_what_is_ready_beside_it(lines: list[Line]) -> None:
    """All three are ready in one turn; the one called first closes the others, and their numbers are used again."""
    opened: list[int] = []

    def close_others(line: Line) -> Any:
        def hear(message: bytes) -> None:
            line.heard.append(message)
            for other in lines:
                if other is not line:
                    other.peer.hang_up()
            opened.extend(os.dup(0) for _ in range(4))

        return hear

    for line in lines:
        line.peer._on_message = close_others(line)
        frames.send(line.other, b"x")
    for _ in range(3):
        lines[0].reactor.turn(0)
    assert sum(len(line.heard) for line in lines) == 1
    for descriptor in opened:
        os.close(descriptor)


def test_callback_may_close_its_own_peer(lines: list[Line]) -> None:
    line = lines[0]
    line.peer._on_message = lambda message: (line.heard.append(message), line.peer.close())
    line.other.sendall(frames.pack(b"one") + frames.pack(b"two"))
    line.reactor.turn(0)
    line.reactor.turn(0)
    assert (line.heard, line.ends) == ([b"one"], 1)


def test_slow_reader_gets_everything_in_end(lines: list[Line]) -> None:
    line = lines[0]
    large = bytes(range(256)) * 8_000
    line.peer.send(large)
    line.peer.send(b"after")
    received: list[bytes | None] = []

    def read() -> None:
        received.extend([frames.receive(line.other), frames.receive(line.other)])
        line.reactor.wake()

    reader = threading.Thread(target=read)
    reader.start()
    while not line.reactor.woken:
        line.reactor.turn(None)
    reader.join()
    assert received == [large, b"after"]


def test_descriptor_may_stand_behind_unsent_bytes(lines: list[Line]) -> None:
    line = lines[0]
    read, write = os.pipe()
    line.peer.send(b"x" * 2_000_000)
    line.peer.send_with_descriptor(b"here", write)
    os.close(write)
    found: list[int] = []

    def receive() -> None:
        assert frames.receive(line.other) == b"x" * 2_000_000
        data, descriptors, _, _ = socket.recv_fds(line.other, 100, 1)
        assert data == frames.pack(b"here")
        found.extend(descriptors)
        line.reactor.wake()

    thread = threading.Thread(target=receive)
    thread.start()
    while not line.reactor.woken:
        line.reactor.turn(None)
    thread.join()
    os.write(found[0], b"through")
    os.close(found[0])
    assert os.read(read, 10) == b"through"
    # the copy that travelled was the last one
    assert os.read(read, 10) == b""
    os.close(read)


def test_messages_before_end_of_peer_are_heard_although_writing_fails(lines: list[Line]) -> None:
    """A worker that says "launched" and is killed: the launch must be known when its death is."""
    line = lines[0]
    frames.send(line.other, b"launched")
    line.other.close()
    line.peer.send(b"next")
    assert (line.heard, line.ends) == ([], 0)
    line.reactor.turn(0)
    line.reactor.turn(0)
    assert (line.heard, line.ends) == ([b"launched"], 1)
    line.peer.send(b"unheard")


def test_nonsense_closes_line(lines: list[Line]) -> None:
    line = lines[0]
    line.other.sendall(b"GET / HTTP/1.1\r\n")
    line.reactor.turn(0)
    assert line.ends == 1
    assert line.peer.closed
