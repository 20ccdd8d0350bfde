"""The log of an attempt on another host: sent as it grows, all of it or its beginning and its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainflow.execution import remote_attempt
from trainflow.execution.http_api_client import ApiUnreachable
from trainflow.execution.remote_attempt import LogTail
from trainflow.messages.execution_api import AppendLog, Failed, LogTaken
from trainflow.messages.workload import AttemptKey

KEY = AttemptKey("a")


class _Server:
    """Takes parts as an API server does. `loses`: so many of its answers are lost after the part was taken."""

    def __init__(self) -> None:
        self.log = b""
        self.loses = 0
        self.refuses = False

    def ask_once(self, part: AppendLog) -> LogTaken | Failed:
        if self.refuses:
            return Failed("NotUnderstood", "no")
        if part.offset <= len(self.log):
            self.log += part.data[len(self.log) - part.offset :]
        if self.loses:
            self.loses -= 1
            raise ApiUnreachable("lost")
        return LogTaken(len(self.log))


@pytest.fixture
def server() -> _Server:
    return _Server()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def tail(server: _Server, path: Path, monkeypatch: pytest.MonkeyPatch) -> LogTail:
    for name, value in {"LOG_CHUNK": 10, "_CUT": 100, "MOST_BEHIND": 500, "KEPT": 50, "_TURN_SECONDS": 60.0}.items():
        monkeypatch.setattr(remote_attempt, name, value)
    return LogTail(server, KEY, path)  # type: ignore[arg-type]


def write(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def test_log_arrives_whole_though_answers_are_lost_and_what_was_sent_is_cut_away(
    server: _Server, path: Path, tail: LogTail
) -> None:
    written = b""
    assert not tail.send()
    for number in range(60):
        part = b"%d " % number * (number % 7)
        write(path, part)
        written += part
        server.loses = number % 3 == 0
        try:
            tail.send()
        except ApiUnreachable:
            continue
    tail.finish(1.0)
    assert server.log == written
    assert path.stat().st_size < 150 < len(written)


def test_log_that_grows_faster_than_it_is_sent_keeps_its_beginning_and_its_end(
    server: _Server, path: Path, tail: LogTail, caplog: pytest.LogCaptureFixture
) -> None:
    write(path, b"begin\n")
    tail.send()
    write(path, b"x" * 5_000_000 + b"middle\n")
    tail.send()
    write(path, b"end\n")
    tail.finish(1.0)
    head, note, end = server.log.decode().split("…")
    assert head == "begin\n\n"
    assert note == " 5 MB are left out here: the log grew faster than it could be sent "
    assert end.endswith("xmiddle\nend\n")
    assert len(end) < 100
    assert path.stat().st_size < 100
    assert "5 MB of the log of attempt a are left out" in caplog.text


def test_end_of_log_is_sent_though_there_is_no_time_for_all_of_it(
    server: _Server, path: Path, tail: LogTail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_attempt, "_TURN_SECONDS", 0.0)
    write(path, b"x" * 400 + b"why it failed")
    tail.finish(0.0)
    assert server.log.endswith(b"why it failed")
    assert "are left out here" in server.log.decode()


def test_full_disk_is_told_and_what_was_sent_makes_room(
    server: _Server, path: Path, tail: LogTail, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        f_bavail = 0

    write(path, b"one\n")
    monkeypatch.setattr("os.fstatvfs", lambda _descriptor: Full)
    tail.send()
    assert path.stat().st_size == 0
    monkeypatch.undo()
    write(path, b"two\n")
    tail.send()
    assert server.log.decode().startswith("one\n\n… the disk of the worker was full")
    assert server.log.endswith(b"two\n")


def test_log_that_is_not_taken_is_told(
    server: _Server, path: Path, tail: LogTail, caplog: pytest.LogCaptureFixture
) -> None:
    server.refuses = True
    write(path, b"x")
    tail.finish(1.0)
    assert "the log is not taken: no" in caplog.text
