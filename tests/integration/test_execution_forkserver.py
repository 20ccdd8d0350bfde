"""The warm process where the system gives no process for a child: it goes on, and says so of an attempt."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.integration.executor_hosts import local_host, results, started_executor
from trainflow.execution.forkserver import Forkserver
from trainflow.messages import frames
from trainflow.messages.forkserver import FromWorker, Launch, NotLaunched
from trainflow.testing.executor_contract import Host, lay_out, workload


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with local_host(lay_out(tmp_path)) as host:
        yield host


@pytest.fixture
def control() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of the line to the executor."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def forkserver(host: Host, control: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch) -> Forkserver:
    def fork() -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "fork", fork)
    return Forkserver(control[1], host.project.root)


def test_child_that_cannot_be_forked_ahead_is_not_waited_for(forkserver: Forkserver) -> None:
    forkserver._wants_spares = True
    forkserver._use_the_pause()
    # it is asked for again with the next attempt, and not at once
    assert (len(forkserver._spares), forkserver._patience()) == (0, None)


def test_attempt_that_cannot_be_forked_is_told(
    host: Host,
    forkserver: Forkserver,
    control: tuple[socket.socket, socket.socket],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attempt = workload(host, "says")
    monkeypatch.setattr(forkserver, "_load", lambda _source: None)  # this process is none of its own
    forkserver._launch(Launch(attempt, warm_up=False))
    said = frames.receive(control[0])
    assert said is not None
    told = msgspec.json.decode(said, type=FromWorker)
    assert told == NotLaunched(attempt.key, "Resource temporarily unavailable")


def test_attempt_that_was_not_launched_is_given_back_and_its_worker_serves_on(host: Host) -> None:
    with started_executor(host) as executor:
        attempt, worker = workload(host, "says"), executor.warm_process
        assert worker is not None
        silent: Any = lambda _request: None  # noqa: E731
        launch, worker.launch = worker.launch, silent  # type: ignore[method-assign]
        executor.queue_workload(attempt)
        worker.launch = launch  # type: ignore[method-assign]
        executor._heard(worker, NotLaunched(attempt.key, "there are too many processes"))
        reason = "no process can be started: there are too many processes"
        assert (host.given_back, host.exits, executor.running()) == ([(attempt.key, reason)], [], frozenset())
        # told again, or of one that is another worker's
        executor._heard(worker, NotLaunched(attempt.key, "late"))
        executor.queue_workload(workload(host, "says", 1))
        host.until(lambda: len(host.exits) == 1)
    assert len(host.given_back) == 1
    assert results(host) == {"says1": "first"}
