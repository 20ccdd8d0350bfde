"""How long an attempt looks for an engine that is away: as long as it has something to lose."""

from __future__ import annotations

import socket
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from trainflow.clock import ManualClock
from trainflow.errors import EngineError
from trainflow.execution.execution_api_client import ExecutionApiClient
from trainflow.messages import frames
from trainflow.messages.execution_api import DagRunInfo, GetDagRunState, Request, Start
from trainflow.messages.workload import AttemptKey
from trainflow.settings.home import Home

KEY = AttemptKey("a")


@pytest.mark.parametrize(
    ("request_", "outage_seconds", "waited"),
    [
        (Start(KEY, 1, 0.0, "here"), 3600.0, 5.0),
        (Start(KEY, 1, 0.0, "here"), 1.0, 1.0),
        (GetDagRunState(KEY, "d", "r"), 3600.0, 3600.0),
    ],
    ids=["a claim gives up early", "but not later than others", "one that has begun waits"],
)
def test_client_looks_for_engine_as_long_as_it_has_work(
    tmp_path: Path, clock: ManualClock, request_: Request, outage_seconds: float, waited: float
) -> None:
    def sleep(seconds: float) -> None:
        clock.advance(timedelta(seconds=seconds))

    connection = ExecutionApiClient(Home(tmp_path), outage_seconds=outage_seconds, clock=clock, sleep=sleep)
    with pytest.raises(EngineError, match=f"answered for {waited:g} s"):
        connection.request(request_)
    assert waited <= clock.monotonic() <= waited + 2.0


def test_open_without_engine_says_nothing(tmp_path: Path, clock: ManualClock) -> None:
    ExecutionApiClient(Home(tmp_path), outage_seconds=0.0, clock=clock, sleep=lambda _seconds: None).open()


def test_open_connects_once_for_what_is_asked_later(tmp_path: Path, clock: ManualClock) -> None:
    home = Home(tmp_path)
    home.socket_path.parent.mkdir(mode=0o700, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(home.socket_path))
        listener.listen()
        connection = ExecutionApiClient(home, outage_seconds=0.0, clock=clock, sleep=lambda _seconds: None)
        connection.open()
        engine, _ = listener.accept()
        home.socket_path.unlink()
        with engine:
            frames.send(engine, msgspec.json.encode(DagRunInfo("running")))
            assert connection.request(GetDagRunState(KEY, "d", "r")) == DagRunInfo("running")
    connection.close()
