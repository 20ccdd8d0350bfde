"""The socket of a home: for this user alone, closed to what speaks nonsense, and back when an engine is."""

from __future__ import annotations

import errno
import socket
import stat
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from trainflow.api.scheduler_line import SchedulerLine
from trainflow.clock import ManualClock
from trainflow.errors import EngineError
from trainflow.executors.execution_socket import ExecutionSocket, nudge
from trainflow.executors.reactor import Reactor
from trainflow.messages import frames
from trainflow.messages.execution_api import Done, Failed, GetTrackingRun, Progress, Reply, Request
from trainflow.messages.workload import AttemptKey
from trainflow.metadata.applied_change import AppliedChange

KEY = AttemptKey("a1")


class Api:
    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.error: Exception | None = None

    def handle(self, request: Request) -> Reply:
        self.requests.append(request)
        if self.error is not None:
            raise self.error
        return Done()


class Socket:
    def __init__(self, reactor: Reactor, path: Path) -> None:
        self.reactor = reactor
        self.path = path
        self.api = Api()
        self.changes: list[AppliedChange] = []
        self.supervision = ExecutionSocket(reactor, self.api, path, on_change=self.changes.append)

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(10)
        connection.connect(str(self.path))
        return connection

    def turn(self, times: int = 3) -> None:
        for _ in range(times):
            self.reactor.turn(0)


@pytest.fixture
def home_socket(clock: ManualClock, tmp_path: Path) -> Iterator[Socket]:
    reactor = Reactor(clock)
    found = Socket(reactor, tmp_path / "private" / "s.sock")
    yield found
    found.supervision.close()
    reactor.close()


def ask(home_socket: Socket, connection: socket.socket, request: Request) -> Reply:
    frames.send(connection, msgspec.json.encode(request))
    home_socket.turn()
    answer = frames.receive(connection)
    assert answer is not None
    return msgspec.json.decode(answer, type=Reply)


def test_requests_are_answered_and_progress_is_not(home_socket: Socket) -> None:
    with home_socket.connect() as connection:
        frames.send(connection, msgspec.json.encode(Progress(KEY, 1.0)))
        assert ask(home_socket, connection, GetTrackingRun(KEY)) == Done()
        connection.setblocking(False)
        with pytest.raises(BlockingIOError):
            connection.recv(1)
    assert home_socket.api.requests == [Progress(KEY, 1.0), GetTrackingRun(KEY)]


def test_request_the_engine_cannot_serve_is_answered_with_reason(home_socket: Socket) -> None:
    home_socket.api.error = RuntimeError("disk full")
    with home_socket.connect() as connection:
        reply = ask(home_socket, connection, GetTrackingRun(KEY))
        assert isinstance(reply, Failed)
        assert (reply.error, "disk full" in reply.message) == ("EngineError", True)
        # and the line is still good
        home_socket.api.error = None
        assert ask(home_socket, connection, GetTrackingRun(KEY)) == Done()


@pytest.mark.parametrize(
    "nonsense", [frames.pack(b'{"type":"start"}'), frames.pack(b"\x80\x04"), b"GET / HTTP/1.1\r\n"]
)
def test_nonsense_ends_line_and_no_other(home_socket: Socket, nonsense: bytes) -> None:
    with home_socket.connect() as bad, home_socket.connect() as good:
        bad.sendall(nonsense)
        home_socket.turn()
        assert bad.recv(1) == b""
        assert ask(home_socket, good, GetTrackingRun(KEY)) == Done()
    home_socket.turn()
    assert home_socket.supervision._peers == set()


def test_nudge_wakes_engine(home_socket: Socket) -> None:
    nudge(home_socket.path)
    home_socket.turn(4)
    assert home_socket.reactor.woken
    assert home_socket.api.requests == []


def test_nudge_without_engine_does_nothing(tmp_path: Path) -> None:
    nudge(tmp_path / "missing.sock")


def test_folder_is_private(home_socket: Socket) -> None:
    assert stat.S_IMODE(home_socket.path.parent.stat().st_mode) == 0o700


def test_folder_that_others_can_enter_is_refused(clock: ManualClock, tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o755)
    reactor = Reactor(clock)
    with pytest.raises(EngineError, match="mode 700"):
        ExecutionSocket(reactor, Api(), folder / "s.sock")
    reactor.close()


def test_socket_of_killed_engine_is_replaced(clock: ManualClock, tmp_path: Path) -> None:
    path = tmp_path / "private" / "s.sock"
    reactor = Reactor(clock)
    first = ExecutionSocket(reactor, Api(), path)
    second = ExecutionSocket(reactor, Api(), path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(str(path))
        frames.send(connection, msgspec.json.encode(GetTrackingRun(KEY)))
        for _ in range(3):
            reactor.turn(0)
        assert frames.receive(connection) is not None
    second.close()
    first.close()
    reactor.close()


@pytest.mark.parametrize("with_its_folder", [False, True])
def test_socket_that_was_removed_is_made_anew(
    home_socket: Socket, clock: ManualClock, caplog: pytest.LogCaptureFixture, with_its_folder: bool
) -> None:
    before = home_socket.connect()
    assert ask(home_socket, before, GetTrackingRun(KEY)) == Done()
    home_socket.path.unlink()
    if with_its_folder:
        home_socket.path.parent.rmdir()
    clock.advance(timedelta(seconds=2))
    home_socket.turn()
    with home_socket.connect() as connection:
        assert ask(home_socket, connection, GetTrackingRun(KEY)) == Done()
    with before:
        assert ask(home_socket, before, GetTrackingRun(KEY)) == Done()
    assert caplog.text.count("was removed") == 1


def test_socket_that_cannot_be_made_anew_is_told_once_and_tried_again(
    home_socket: Socket, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    folder = home_socket.path.parent
    home_socket.path.unlink()
    folder.chmod(0o755)
    for _ in range(3):
        clock.advance(timedelta(seconds=2))
        home_socket.turn()
    assert caplog.text.count("cannot be made anew") == 1
    folder.chmod(0o700)
    clock.advance(timedelta(seconds=2))
    home_socket.turn()
    with home_socket.connect() as connection:
        assert ask(home_socket, connection, GetTrackingRun(KEY)) == Done()


def test_connections_without_descriptors_are_served_when_some_are_free(
    home_socket: Socket, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real, tries = socket.socket.accept, []

    def accept(self: socket.socket) -> Any:
        tries.append(1)
        if len(tries) == 1:
            raise OSError(errno.EMFILE, "Too many open files")
        return real(self)

    monkeypatch.setattr(socket.socket, "accept", accept)
    with home_socket.connect() as connection:
        frames.send(connection, msgspec.json.encode(GetTrackingRun(KEY)))
        home_socket.turn(5)
        assert len(tries) == 1  # not asked again and again, at full load
        assert "ulimit -n" in caplog.text
        clock.advance(timedelta(seconds=2))
        home_socket.turn(5)
        assert frames.receive(connection) is not None


def test_message_nested_too_deeply_costs_its_sender_line(home_socket: Socket) -> None:
    with home_socket.connect() as connection:
        frames.send(connection, b'{"type":"outcome","key":' + b"[" * 100_000)
        home_socket.turn(20)
        assert connection.recv(1) == b""
    with home_socket.connect() as connection:
        frames.send(connection, msgspec.json.encode(GetTrackingRun(KEY)))
        home_socket.turn(5)
        assert frames.receive(connection) is not None


def test_change_by_an_api_server_is_told_exactly(home_socket: Socket) -> None:
    line = SchedulerLine(home_socket.path)
    changes = [AppliedChange(7, ended=True), AppliedChange(8, deferred=True, told=True)]
    for change in changes:
        line.tell(change)
    home_socket.turn()
    line.close()
    assert home_socket.changes == changes
    assert home_socket.reactor.woken is False


def test_line_of_api_server_finds_the_next_engine(clock: ManualClock, tmp_path: Path) -> None:
    path = tmp_path / "private" / "s.sock"
    line = SchedulerLine(path)
    # no engine is there: nothing is told, and nothing fails
    line.tell(AppliedChange(1))
    for number in (2, 3):
        reactor = Reactor(clock)
        engine = Socket(reactor, path)
        line.tell(AppliedChange(number))
        engine.turn()
        assert engine.changes == [AppliedChange(number)]
        engine.supervision.close()
        reactor.close()
    line.tell(AppliedChange(4))
    line.close()
