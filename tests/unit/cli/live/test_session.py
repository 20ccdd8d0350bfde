"""The engine's own terminal: what is drawn, and that nothing is once it was given back."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from trainflow.cli.live import panel
from trainflow.cli.live.session import Session
from trainflow.cli.render.output import EXIT_INTERRUPTED
from trainflow.executors.reactor import Reactor


class Clock:
    """Time that passes when it is told to."""

    seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return datetime(2024, 1, 1, tzinfo=UTC)


class Shown:
    """A display that remembers whether it was closed."""

    def __init__(self) -> None:
        self.drawn = 0
        self.closed = False

    def show(self, _views: list[Any], _now: datetime) -> None:
        assert not self.closed
        self.drawn += 1

    def close(self) -> None:
        self.closed = True


class StoppedEngine:
    """An engine that is told to stop after a number of looks at its chains."""

    def __init__(self, looks: int) -> None:
        self.clock = Clock()
        self.reactor = Reactor(self.clock)
        self.stop_requested = 0
        # nothing has ended: another terminal follows it
        self.database = SimpleNamespace(read=lambda _question: False)
        self._looks = looks

    def run(self, _until: Any) -> None:
        for _ in range(self._looks):
            self.pass_time()
        self.stop_requested = 1

    def pass_time(self) -> None:
        self.clock.seconds += 1.5
        self.reactor.turn(0.0)


@pytest.mark.parametrize("looks", [0, 1, 3])
def test_session_reactor_turns_after_stop_draws_nothing(looks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Shown] = []

    def display(**_options: Any) -> Shown:
        opened.append(Shown())
        return opened[-1]

    monkeypatch.setattr(panel, "display", display)
    engine = StoppedEngine(looks)
    assert Session(engine, [], plain=False).run() == EXIT_INTERRUPTED  # type: ignore[arg-type]
    drawn = [each.drawn for each in opened]
    for _ in range(3):  # an attempt takes its time to stop
        engine.pass_time()
    engine.reactor.close()
    assert drawn == [looks + 1]
    assert [each.drawn for each in opened] == drawn
    assert all(each.closed for each in opened)
