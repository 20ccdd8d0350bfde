"""What the end of an attempt means whose package was installed anew under it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trainflow.clock import ManualClock
from trainflow.errors import SampleGap
from trainflow.execution import attempt_ending
from trainflow.execution.attempt_ending import AttemptEnding
from trainflow.execution.stop_signal import StopSignal
from trainflow.humanize import bytes_text
from trainflow.messages.execution_api import OutcomeState, RunInfo, Started
from trainflow.messages.workload import AttemptKey, DagSource, ExecuteTask
from trainflow.settings.model import Settings

O = OutcomeState  # noqa: E741
NOW = datetime(2026, 1, 1, tzinfo=UTC)
WORKLOAD = ExecuteTask(AttemptKey("a"), 0, "d", "r", "t", -1, DagSource("p.py"), "/", "/", "/dev/null")
STARTED = Started(RunInfo("d", "r", "manual", {}, NOW, NOW, NOW, NOW), 1, 1, first_started_at=NOW)


@pytest.fixture
def ending(clock: ManualClock, tmp_path: Path) -> AttemptEnding:
    ti: Any = SimpleNamespace(
        project_root=tmp_path,
        settings=Settings(),
        has_progressed=False,
        note=None,
        xcoms={},
        triggered_runs=[],
        saved_rows=None,
        notices=[],
        curves={},
    )
    return AttemptEnding(WORKLOAD, STARTED, ti, StopSignal(), clock, clock, None)


def trains() -> None:
    raise ValueError("the loss is no number")


def reads() -> None:
    raise SampleGap("a day is missing")


def imports() -> None:
    import trainflow.that_is_of_another_build  # type: ignore[import-not-found]  # noqa: F401


def breaks() -> None:
    bytes_text("of another build")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("task", "replaced", "state"),
    [
        (trains, True, O.FAILED),
        (reads, True, O.FAILED),
        (imports, True, O.PART_LOST),
        (breaks, True, O.PART_LOST),
        (imports, False, O.FAILED),
        (breaks, False, O.FAILED),
    ],
)
def test_only_what_two_builds_may_raise_is_not_the_fault_of_the_task(
    ending: AttemptEnding, monkeypatch: pytest.MonkeyPatch, task: Any, replaced: bool, state: OutcomeState
) -> None:
    monkeypatch.setattr(attempt_ending, "is_replaced", lambda: replaced)
    try:
        task()
    except Exception as error:
        outcome = ending._judged(error)
    assert outcome.state is state
    assert outcome.problem is not None
    assert ("installed anew" in outcome.problem.message) == (state is O.PART_LOST)
