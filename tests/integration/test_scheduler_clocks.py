"""The clock of the day is set, by a day at most people would notice: what waits goes on, what lives is not ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from tests.simulation.clock import SettableClock
from tests.support.control_plane import START, ControlPlane, control_plane, empty_task
from trainflow.deadlines import TOLERANCE
from trainflow.executors.reactor import Reactor
from trainflow.messages.execution_api import Deferral, OutcomeState
from trainflow.messages.notice import Event, Notice
from trainflow.messages.triggerer import Fired, LoopAlive, Unwatch, Watch
from trainflow.messages.workload import ExecuteTask
from trainflow.metadata.queries import notification_queries, outbox_queries, run_queries
from trainflow.metadata.queries.outbox_queries import OutboxOfChannel
from trainflow.serialization.document import RetryDocument
from trainflow.settings.outbox_channels import OutboxChannel
from trainflow.triggerer.loop_process import Loop
from trainflow.triggerer.triggerer import LOOK_SECONDS, Triggerer

SECOND, HOUR, DAY = timedelta(seconds=1), timedelta(hours=1), timedelta(days=1)


@pytest.fixture
def plane(tmp_path: Path, database_url: str | None) -> Iterator[ControlPlane]:
    with control_plane(tmp_path, clock=SettableClock(START), database_url=database_url) as plane:
        yield plane


def jump(plane: ControlPlane, by: timedelta) -> None:
    assert isinstance(plane.clock, SettableClock)
    plane.clock.jump(by)
    plane.scheduler.sweep()


def fail(plane: ControlPlane, workload: ExecuteTask) -> None:
    plane.play(workload, OutcomeState.FAILED)


def look_again(plane: ControlPlane, workload: ExecuteTask) -> None:
    plane.play(workload, OutcomeState.RESCHEDULED, reschedule_seconds=HOUR.total_seconds())


@pytest.mark.parametrize("ends", [fail, look_again])
class TestRetries:
    @pytest.fixture
    def waiting(self, plane: ControlPlane, ends: Callable[[ControlPlane, ExecuteTask], None]) -> ControlPlane:
        """One hour is to be waited."""
        plane.add_dag("d", empty_task("a", retry=RetryDocument(retries=3, delay_seconds=3600.0)))
        plane.add_run("d")
        (workload,) = plane.tick()
        ends(plane, workload)
        assert plane.tick() == []
        return plane

    def test_due_after_its_delay(self, waiting: ControlPlane) -> None:
        waiting.clock.advance(HOUR - SECOND)
        assert waiting.tick() == []
        waiting.clock.advance(SECOND)
        assert len(waiting.tick()) == 1

    def test_due_at_once_when_clock_was_set_back(self, waiting: ControlPlane) -> None:
        jump(waiting, -DAY)
        assert len(waiting.tick()) == 1

    def test_delayed_by_as_much_when_it_was_set_back_little(self, waiting: ControlPlane) -> None:
        jump(waiting, -TOLERANCE)
        assert waiting.tick() == []
        waiting.clock.advance(HOUR + TOLERANCE)
        assert len(waiting.tick()) == 1


def test_run_that_was_queued_starts_although_clock_was_set_back(plane: ControlPlane) -> None:
    plane.add_dag("d", empty_task("a"), max_active_runs=1)
    first, second = plane.add_run("d"), plane.add_run("d", "r2")
    (workload,) = plane.tick()
    jump(plane, -DAY)
    plane.play(workload)
    assert [each.run_id for each in plane.tick()] == ["r2"]
    assert (plane.run(first).state, plane.run(second).state) == ("success", "running")


def test_run_that_is_to_start_later_still_does(plane: ControlPlane) -> None:
    plane.add_dag("d", empty_task("a"))
    plane.add_run("d", run_after=START + HOUR)
    assert plane.tick() == []
    plane.clock.advance(HOUR)
    plane.scheduler.sweep()
    assert len(plane.tick()) == 1


class TestRunTimeOut:
    @pytest.fixture
    def running(self, plane: ControlPlane) -> ControlPlane:
        plane.add_dag("d", empty_task("a"), dagrun_timeout_seconds=3600.0)
        plane.add_run("d")
        (workload,) = plane.tick()
        plane.claim(workload)
        return plane

    @pytest.mark.parametrize("by", [DAY, -DAY])
    def test_counts_what_has_passed_and_not_what_clock_shows(self, running: ControlPlane, by: timedelta) -> None:
        running.clock.advance(HOUR / 2)
        running.tick()
        jump(running, by)
        running.tick()
        assert running.states(1) == {"a": "running"}
        running.clock.advance(HOUR / 2 - SECOND)
        running.tick()
        assert running.states(1) == {"a": "running"}
        running.clock.advance(SECOND)
        running.tick()
        assert (running.states(1), running.run(1).state) == ({"a": "failed"}, "failed")

    def test_run_timeout_seen_by_later_scheduler_counts_from_start(self, running: ControlPlane, tmp_path: Path) -> None:
        running.clock.advance(HOUR / 2)
        with control_plane(tmp_path, clock=running.clock, settings=running.settings) as later:
            later.scheduler.sweep()
            later.tick()
            running.clock.advance(HOUR / 2 - SECOND)
            later.tick()
            assert running.run(1).state == "running"
            assert later.scheduler.seconds_left == 1.0
            running.clock.advance(SECOND)
            later.tick()
            assert running.run(1).state == "failed"

    @pytest.mark.parametrize(("by", "left"), [(-DAY, HOUR), (-HOUR / 4, HOUR * 3 / 4), (HOUR / 4, HOUR / 4)])
    def test_run_timeout_seen_first_after_clock_was_set_is_never_longer_than_whole(
        self, running: ControlPlane, tmp_path: Path, by: timedelta, left: timedelta
    ) -> None:
        running.clock.advance(HOUR / 2)
        jump(running, by)
        with control_plane(tmp_path, clock=running.clock, settings=running.settings) as later:
            later.scheduler.sweep()
            later.tick()
            assert later.scheduler.seconds_left == left.total_seconds()

    def test_run_timeout_of_cleared_run_begins_anew(self, running: ControlPlane) -> None:
        running.clock.advance(HOUR / 2)
        with running.database.transaction() as connection:
            run_queries.clear(connection, 1, running.clock.now())
        running.scheduler.sweep()
        running.tick()
        running.clock.advance(HOUR - SECOND)
        running.tick()
        assert running.run(1).state == "running"
        running.clock.advance(SECOND)
        running.tick()
        assert running.run(1).state == "failed"


class _Triggerer(Triggerer):
    """Its event loop only listens."""

    def _start_loop(self) -> Loop:
        return Loop(lambda _: None)

    def _send(self, loop: Loop, message: object) -> None:  # type: ignore[override]
        self.said.append(message)

    said: list[object]


@pytest.fixture
def make_triggerer(plane: ControlPlane) -> Callable[[], _Triggerer]:
    def make() -> _Triggerer:
        made = _Triggerer(
            plane.database,
            Reactor(plane.clock),
            plane.service,
            clock=plane.clock,
            project=plane.project,
            settings=plane.settings,
            service_id=plane.service_id,
            leases=plane.leases,
            on_change=plane.scheduler.notice,
        )
        made.said = []
        return made

    return make


class TestDeferralTimeOut:
    @pytest.fixture
    def deferred(self, plane: ControlPlane) -> ControlPlane:
        plane.add_dag("d", empty_task("a"))
        plane.add_run("d")
        (workload,) = plane.tick()
        deferral = Deferral("m.Trigger", {}, "execute_complete", timeout_seconds=HOUR.total_seconds())
        plane.play(workload, OutcomeState.DEFERRED, deferral=deferral)
        return plane

    @pytest.mark.parametrize("by", [DAY, -DAY])
    def test_counts_what_has_passed_and_not_what_clock_shows(
        self, deferred: ControlPlane, make_triggerer: Callable[[], _Triggerer], by: timedelta
    ) -> None:
        triggerer = make_triggerer()
        triggerer.tick()
        jump(deferred, by)
        triggerer.tick()
        deferred.clock.advance(HOUR - SECOND)
        triggerer.tick()
        assert deferred.states(1) == {"a": "deferred"}
        assert triggerer.seconds_left == 1.0
        deferred.clock.advance(SECOND)
        triggerer.tick()
        assert deferred.states(1) == {"a": "scheduled"}
        assert [type(message) for message in triggerer.said] == [Watch, Unwatch]

    def test_deferral_claimed_after_clock_set_back_waits_no_longer(
        self, deferred: ControlPlane, make_triggerer: Callable[[], _Triggerer]
    ) -> None:
        jump(deferred, -DAY)
        triggerer = make_triggerer()
        triggerer.tick()
        assert triggerer.seconds_left == 3600.0

    def test_claimed_when_it_is_overdue_is_looked_at_first(
        self, deferred: ControlPlane, make_triggerer: Callable[[], _Triggerer]
    ) -> None:
        jump(deferred, DAY)
        triggerer = make_triggerer()
        triggerer.tick()
        assert deferred.states(1) == {"a": "deferred"}
        assert [type(message) for message in triggerer.said] == [Watch]
        deferred.clock.advance(timedelta(seconds=LOOK_SECONDS))
        triggerer.tick()
        assert deferred.states(1) == {"a": "scheduled"}

    def test_deferral_over_in_time_does_not_time_out(
        self, deferred: ControlPlane, make_triggerer: Callable[[], _Triggerer]
    ) -> None:
        triggerer = make_triggerer()
        triggerer.tick()
        triggerer._heard(triggerer._common(), msgspec.json.encode(Fired(1, None)))
        assert triggerer.seconds_left is None


class TestDeliveries:
    def test_mirror_is_tried_again_although_clock_was_set_back(self, plane: ControlPlane) -> None:
        with plane.database.transaction() as connection:
            outbox_queries.add_payload(
                connection, channel=OutboxChannel.MLFLOW, key="k", kind="promoted", payload={}, now=START
            )
            (row,) = OutboxOfChannel(OutboxChannel.MLFLOW).pending(connection, START)
            outbox_queries.failed(connection, row.id, reason="away", delay=timedelta(seconds=300), now=START)
            assert OutboxOfChannel(OutboxChannel.MLFLOW).pending(connection, START) == []
            assert OutboxOfChannel(OutboxChannel.MLFLOW).pending(connection, START - TOLERANCE) == []
            assert len(OutboxOfChannel(OutboxChannel.MLFLOW).pending(connection, START - DAY)) == 1
            assert len(OutboxOfChannel(OutboxChannel.MLFLOW).pending(connection, START + DAY)) == 1

    def test_notice_is_given_again_although_clock_was_set_back(self, plane: ControlPlane) -> None:
        with plane.database.transaction() as connection:
            notice = Notice(event=Event.STOPPED, key="k", sentence="s", pipeline="p")
            notification_queries.add(connection, notice, START)
            (row,) = notification_queries.pending(connection, START)
            notification_queries.failed(connection, row.id, [], reason="away", delay=timedelta(seconds=300), now=START)
            assert notification_queries.pending(connection, START) == []
            assert notification_queries.pending(connection, START - TOLERANCE) == []
            assert len(notification_queries.pending(connection, START - DAY)) == 1


class _KillableLoop(Loop):
    def __init__(self) -> None:
        super().__init__(lambda _: None)
        self.killed = False

    def kill(self, *, stalled: bool = False) -> None:
        self.killed = stalled


class TestSilentEventLoop:
    @pytest.fixture
    def triggerer(self, make_triggerer: Callable[[], _Triggerer]) -> _Triggerer:
        return make_triggerer()

    @pytest.fixture
    def loop(self, triggerer: _Triggerer, plane: ControlPlane) -> _KillableLoop:
        """Last heard of longer ago than the watchdog has patience for."""
        loop = _KillableLoop()
        loop.heard_at = plane.clock.monotonic()
        triggerer._loops.append(loop)
        plane.clock.advance(timedelta(seconds=plane.settings.triggerer.watchdog_seconds + 1))
        return loop

    def test_is_killed_where_it_stays_silent(
        self, triggerer: _Triggerer, plane: ControlPlane, loop: _KillableLoop
    ) -> None:
        triggerer.end_stalled_loops()
        plane.clock.advance(SECOND)
        triggerer.end_stalled_loops()
        assert loop.killed

    def test_is_heard_first_where_the_triggerer_was_frozen_itself(
        self, triggerer: _Triggerer, plane: ControlPlane, loop: _KillableLoop
    ) -> None:
        # several timers are due at once when it goes on, before anything is read
        triggerer.end_stalled_loops()
        triggerer.end_stalled_loops()
        triggerer._heard(loop, msgspec.json.encode(LoopAlive()))
        plane.clock.advance(SECOND)
        triggerer.end_stalled_loops()
        assert not loop.killed
