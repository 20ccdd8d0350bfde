"""A triggerer that stood still (SIGSTOP, a paused machine) for longer than its lease: what another has taken over from
it, it does not end, whatever its event loop has said meanwhile and whatever is overdue by its clock."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from tests.support.control_plane import ControlPlane, empty_task
from trainflow.executors.reactor import Reactor
from trainflow.messages.execution_api import Deferral, OutcomeState
from trainflow.messages.triggerer import Crashed, Fired, NotMade, Watch
from trainflow.metadata.leases import Leases
from trainflow.metadata.queries import service_queries, trigger_queries
from trainflow.metadata.queries.trigger_queries import TRIGGER
from trainflow.triggerer.loop_process import Loop
from trainflow.triggerer.triggerer import Triggerer

DEAD_AFTER = 30.0
TIME_OUT = 60.0


class _Triggerer(Triggerer):
    """Its event loop says what a test has it say."""

    def _start_loop(self) -> Loop:
        return Loop(lambda _: None)

    def _send(self, loop: Loop, message: object) -> None:  # type: ignore[override]
        if isinstance(message, Watch):
            self.seen = message.trigger_id

    def say(self, make: Callable[[int], Any]) -> None:
        self._heard(self._common(), msgspec.json.encode(make(self.seen)))

    seen: int


@pytest.fixture
def make_triggerer(plane: ControlPlane) -> Callable[[], _Triggerer]:
    def make() -> _Triggerer:
        own = plane.database.write(
            lambda connection: service_queries.register_this_process(connection, "triggerer", plane.clock.now())
        )
        return _Triggerer(
            plane.database,
            Reactor(plane.clock),
            plane.service,
            clock=plane.clock,
            project=plane.project,
            settings=plane.settings,
            service_id=own,
            leases=Leases(plane.clock.monotonic, DEAD_AFTER),
            on_change=plane.scheduler.notice,
        )

    return make


@pytest.fixture
def still(plane: ControlPlane, make_triggerer: Callable[[], _Triggerer]) -> _Triggerer:
    """It watches a wait."""
    plane.add_dag("d", empty_task("a"))
    plane.add_run("d")
    (work,) = plane.tick()
    deferral = Deferral("m.Trigger", {}, "execute_complete", timeout_seconds=TIME_OUT)
    plane.play(work, OutcomeState.DEFERRED, deferral=deferral)
    triggerer = make_triggerer()
    triggerer.tick()
    return triggerer


@pytest.fixture
def other(plane: ControlPlane, still: _Triggerer, make_triggerer: Callable[[], _Triggerer]) -> _Triggerer:
    """It has taken the wait over, since the first has said nothing for the length of its lease."""
    triggerer = make_triggerer()
    for _ in range(8):
        with plane.database.transaction() as connection:
            service_queries.renew_lease(connection, triggerer._service_id, plane.clock.now())
        triggerer.notice()
        triggerer.tick()
        plane.clock.advance(timedelta(seconds=5))
    assert triggerer.seen == still.seen
    return triggerer


@pytest.mark.parametrize(
    "make",
    [
        lambda number: Fired(number, msgspec.Raw(b'"stale"')),
        lambda number: Crashed(number, "it was stopped in the middle of a request"),
        lambda number: NotMade(number, "of another build"),
    ],
)
def test_what_its_event_loop_said_ends_no_wait_of_another(
    plane: ControlPlane, still: _Triggerer, other: _Triggerer, make: Callable[[int], Any]
) -> None:
    still.say(make)
    still.tick()

    assert plane.states(1) == {"a": "deferred"}
    with plane.database.reading() as connection:
        assert trigger_queries.watched_ids(connection, other._service_id) == {other.seen}
    other.say(lambda number: Fired(number, msgspec.Raw(b'"came"')))
    (resumed,) = plane.tick()
    assert plane.claim(resumed).next_kwargs["event"] == "came"


def test_what_is_overdue_by_its_clock_ends_no_wait_of_another(
    plane: ControlPlane, still: _Triggerer, other: _Triggerer
) -> None:
    plane.clock.advance(timedelta(seconds=TIME_OUT))
    still.tick()

    assert plane.states(1) == {"a": "deferred"}
    other.tick()
    (resumed,) = plane.tick()
    assert plane.claim(resumed).next_method == "__fail__"


def test_it_forgets_what_is_no_longer_its_own_and_takes_it_again_when_it_may(
    plane: ControlPlane, still: _Triggerer, other: _Triggerer
) -> None:
    still.sweep()
    assert still._watched == set()
    with plane.database.transaction() as connection:
        trigger_queries.release(connection, other._service_id)
    still.tick()
    still.say(lambda number: Fired(number, msgspec.Raw(b'"came"')))

    assert plane.states(1) == {"a": "scheduled"}
    with plane.database.reading() as connection:
        assert connection.execute(TRIGGER.select()).all() == []
