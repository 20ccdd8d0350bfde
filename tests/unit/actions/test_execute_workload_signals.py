"""Signals that tell the supervisor of an attempt to stop."""

from __future__ import annotations

import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trainflow.actions.execute_workload import _Supervisor
from trainflow.clock import ManualClock
from trainflow.messages.workload import AttemptKey, DagSource, ExecuteTask

WORKLOAD = ExecuteTask(AttemptKey("a"), 1, "d", "r", "t", -1, DagSource("p.py"), "/p", "/p/.trainflow", "/a.log")


@pytest.mark.parametrize(
    ("seconds", "hurried"),
    [
        # a job is told to stop: each of its processes is, and the one above hands it on
        ((0.05, 0.4), 0),
        # a person asks again
        ((3.0,), 1),
        ((0.05, 3.0, 2.0), 2),
    ],
)
def test_signals_that_come_together_are_one_and_a_later_one_leaves_no_grace(
    tmp_path: Path, seconds: tuple[float, ...], hurried: int
) -> None:
    clock, told = ManualClock(datetime(2026, 1, 1, tzinfo=UTC)), []
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "trainflow.toml").write_text("")
    supervisor = _Supervisor(WORKLOAD, tmp_path, tmp_path, clock)
    worker: Any = SimpleNamespace(
        hurry=lambda: told.append("hurry"), reactor=SimpleNamespace(wake=lambda: told.append("wake"))
    )
    supervisor._worker = worker
    supervisor.stop(signal.SIGTERM, None)
    assert told == ["wake"]
    for pause in seconds:
        clock.advance(timedelta(seconds=pause))
        supervisor.stop(signal.SIGTERM, None)
    assert told.count("hurry") == hurried
