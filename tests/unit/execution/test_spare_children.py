"""Children that are forked ahead: who gives them their attempt, and when they are not needed any more."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack

import msgspec
import pytest

from trainflow.execution.spare_children import SpareChildren, wait_for_launch
from trainflow.messages import frames
from trainflow.messages.forkserver import ToWaiting
from trainflow.messages.workload import AttemptKey, DagSource, ExecuteTask

WORKLOAD = ExecuteTask(
    AttemptKey("a"), 0, "run", "dag", "train", -1, DagSource("pipelines/a.py"), "/", "/", "/dev/null"
)


class Child:
    """One as its parent and it see it; the process itself does nothing."""

    def __init__(self, spares: SpareChildren) -> None:
        self.process = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
        ours, self.line = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.needed = os.dup(spares.needed_end())
        spares.add(self.process.pid, ours)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.line.close()
        os.close(self.needed)


@pytest.fixture
def spares() -> Iterator[SpareChildren]:
    kept = SpareChildren()
    yield kept
    kept.drop()


@pytest.fixture
def children(spares: SpareChildren) -> Iterator[list[Child]]:
    with ExitStack() as after:
        made = [Child(spares), Child(spares)]
        for child in made:
            after.callback(child.end)
        yield made


def test_oldest_that_was_not_announced_is_given_the_attempt(spares: SpareChildren, children: list[Child]) -> None:
    assert len(spares) == 2
    assert spares.give(WORKLOAD) == children[0].process.pid
    assert wait_for_launch(children[0].line, children[0].needed) == ToWaiting(WORKLOAD)
    assert len(spares) == 1


def test_one_that_is_gone_is_passed_over(spares: SpareChildren, children: list[Child]) -> None:
    children[0].line.close()
    assert spares.give(WORKLOAD) == children[1].process.pid
    assert spares.give(WORKLOAD) is None


def test_announced_one_is_the_engines_alone(spares: SpareChildren, children: list[Child]) -> None:
    line = spares.announce(children[0].process.pid)
    assert line is not None
    assert spares.announce(children[0].process.pid) is None
    assert spares.give(WORKLOAD) == children[1].process.pid
    assert spares.give(WORKLOAD) is None
    with line:
        frames.send(line, msgspec.json.encode(ToWaiting(WORKLOAD)))
    assert wait_for_launch(children[0].line, children[0].needed) == ToWaiting(WORKLOAD)


def test_dropped_ones_that_are_announced_end_by_themselves_and_others_are_killed(
    spares: SpareChildren, children: list[Child]
) -> None:
    line = spares.announce(children[0].process.pid)
    assert line is not None
    with line:
        assert spares.drop() == [children[1].process.pid]
        assert children[1].process.wait() == -9
        assert children[0].process.poll() is None
        assert wait_for_launch(children[0].line, children[0].needed) is None
    assert len(spares) == 0


def test_attempt_that_was_given_before_the_drop_is_run(spares: SpareChildren, children: list[Child]) -> None:
    line = spares.announce(children[0].process.pid)
    assert line is not None
    with line:
        frames.send(line, msgspec.json.encode(ToWaiting(WORKLOAD)))
        spares.drop()
    assert wait_for_launch(children[0].line, children[0].needed) == ToWaiting(WORKLOAD)


def test_child_whose_engine_hangs_up_gets_nothing(spares: SpareChildren, children: list[Child]) -> None:
    line = spares.announce(children[0].process.pid)
    assert line is not None
    line.close()
    assert wait_for_launch(children[0].line, children[0].needed) is None
