"""How long an attempt looks for an engine that is away: as long as it has something to lose."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from trainflow.clock import ManualClock
from trainflow.errors import EngineError
from trainflow.execution.execution_api_client import ExecutionApiClient
from trainflow.messages.requests import GetDagRunState, Request, Start
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
    ids=["a claim gives up early", "but not later than others", "whoever has begun waits"],
)
def test_how_long_engine_is_looked_for(
    tmp_path: Path, clock: ManualClock, request_: Request, outage_seconds: float, waited: float
) -> None:
    def sleep(seconds: float) -> None:
        clock.advance(timedelta(seconds=seconds))

    connection = ExecutionApiClient(Home(tmp_path), outage_seconds=outage_seconds, clock=clock, sleep=sleep)
    with pytest.raises(EngineError, match=f"answered for {waited:g} s"):
        connection.request(request_)
    assert waited <= clock.monotonic() <= waited + 2.0
