"""The warm worker as the control plane hears it, where descriptors of this process are used up."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from trainflow.clock import ManualClock
from trainflow.executors.reactor import Reactor
from trainflow.executors.spawn import SpawnedForkserver
from trainflow.executors.warm_workers import ForkserverClient
from trainflow.messages import frames
from trainflow.messages.forkserver import ChildEnded, ChildWaits, Launch
from trainflow.messages.workload import AttemptKey, DagSource, ExecuteTask, ProcessIdentity
from trainflow.observability.oom_kills import OomKills

WORKLOAD = ExecuteTask(
    AttemptKey("a"), 0, "run", "dag", "train", -1, DagSource("pipelines/a.py"), "/", "/", "/dev/null"
)
ONE, OTHER = ProcessIdentity(4711, 1.0), ProcessIdentity(4712, 2.0)


class Process:
    """Stands in for the worker's process: its line alone is heard here."""

    pid = 4710
    returncode = None

    def wait(self, timeout: float | None = None) -> int:
        return 0


class Line:
    """The worker's end of the line, and what the control plane makes of it."""

    def __init__(self, clock: ManualClock) -> None:
        self.reactor = Reactor(clock)
        ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.heard: list[Any] = []
        process: Any = Process()
        self.client = ForkserverClient(
            self.reactor,
            SpawnedForkserver(process, ours),
            OomKills(clock),
            on_message=lambda _worker, message: self.heard.append(message),
            on_death=lambda _worker: None,
        )
        self.client.launch(Launch(WORKLOAD))

    def say_that_waits(self, process: ProcessIdentity) -> socket.socket:
        """A child waits; its end of its line."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with ours:
            frame = frames.pack(msgspec.json.encode(ChildWaits(process)))
            socket.send_fds(self.theirs, [frame], [ours.fileno()])
        return theirs


@pytest.fixture
def line(clock: ManualClock) -> Iterator[Line]:
    made = Line(clock)
    yield made
    made.client.close()
    made.theirs.close()
    made.reactor.close()


@pytest.fixture
def no_descriptor_is_free() -> Iterator[Callable[[], None]]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)

    def use_up() -> None:
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, before[1]))

    yield use_up
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_child_whose_line_finds_no_descriptor_free_is_told_that_it_is_not_needed(
    line: Line, no_descriptor_is_free: Callable[[], None]
) -> None:
    child = line.say_that_waits(ONE)
    no_descriptor_is_free()
    line.reactor.turn(1.0)
    assert line.client.waiting_for(WORKLOAD) == ()
    # what it reads is the end of its line
    assert child.recv(1) == b""
    child.close()


def test_line_of_a_later_child_is_not_taken_for_that_of_one_that_was_lost(
    line: Line, no_descriptor_is_free: Callable[[], None]
) -> None:
    lost, kept = line.say_that_waits(ONE), line.say_that_waits(OTHER)
    lost_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    no_descriptor_is_free()
    line.reactor.turn(1.0)
    resource.setrlimit(resource.RLIMIT_NOFILE, lost_limit)
    line.theirs.sendall(frames.pack(msgspec.json.encode(ChildEnded(1, 0))))
    while ChildEnded(1, 0) not in line.heard:
        line.reactor.turn(1.0)
    assert line.client.waiting_for(WORKLOAD) == (OTHER,)
    lost.close()
    kept.close()
