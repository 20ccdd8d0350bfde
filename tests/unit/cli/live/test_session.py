"""The engine's own terminal: what is drawn, and that nothing is once it was given back."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from trainflow.cli.live import panel, session
from trainflow.cli.live.session import Session, follow
from trainflow.cli.render.output import EXIT_FAILED, EXIT_INTERRUPTED
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


@pytest.mark.parametrize(
    ("replaced", "back", "taken_up", "code"),
    [
        (True, True, True, EXIT_INTERRUPTED),
        # also before it has taken up what was begun: what follows must not take its place
        (True, True, False, EXIT_INTERRUPTED),
        (True, False, True, EXIT_FAILED),
        (False, True, True, EXIT_FAILED),
        (False, True, False, None),
    ],
)
def test_follower_goes_on_with_an_engine_that_is_another_build_now(
    monkeypatch: pytest.MonkeyPatch, *, replaced: bool, back: bool, taken_up: bool, code: int | None
) -> None:
    monkeypatch.setattr(panel, "display", lambda **_options: Shown())
    monkeypatch.setattr(session, "is_replaced", lambda: replaced)
    view = SimpleNamespace(finished=False, current_number=1 if taken_up else None, last_run=None)
    client = SimpleNamespace(
        clock=Clock(), look=lambda _feed: view, wait=lambda _seconds: False, engine_comes_back=lambda: back
    )
    assert follow(client, [SimpleNamespace(dag_id="d")], plain=True) == code  # type: ignore[arg-type, list-item]
