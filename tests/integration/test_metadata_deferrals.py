"""Deferrals: an attempt gives its place back, waits, and is resumed by the event that it waited for."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
from sqlalchemy import select

from tests.integration.execution_requests import DEFERRAL, O, everything, pulled, xcom
from tests.support.control_plane import START, ControlPlane
from trainflow.messages.execution_api import (
    Done,
    Progress,
    Refused,
    Started,
)
from trainflow.messages.workload import AttemptKey, ExecuteTask, ProcessExit
from trainflow.metadata.queries import attempt_queries, run_queries, trigger_queries
from trainflow.metadata.queries.trigger_queries import TRIGGER


class TestDeferral:
    def trigger_id(self, plane: ControlPlane) -> int:
        with plane.database.reading() as connection:
            return connection.execute(select(TRIGGER.c.id)).scalar_one()

    def fire(self, plane: ControlPlane, trigger_id: int, payload: Any = None) -> int | None:
        with plane.database.transaction() as connection:
            fired = trigger_queries.fire(
                connection, trigger_id, msgspec.Raw(msgspec.json.encode(payload)), plane.clock.now()
            )
        plane.scheduler.sweep()
        return fired

    def test_event_resumes_same_attempt(self, plane: ControlPlane, run: int, work: ExecuteTask) -> None:
        plane.play(work, O.DEFERRED, deferral=DEFERRAL, xcoms=[xcom("before", 1)], note="waits")
        row = plane.task(run, "a")
        assert (row.state, row.note, row.pid) == ("deferred", "waits", None)
        assert plane.tick() == []
        plane.clock.advance(timedelta(hours=1))
        assert self.fire(plane, self.trigger_id(plane), {"found": True}) == run
        (resumed,) = plane.tick()
        assert resumed.key == AttemptKey(work.key.attempt_id, 1)
        started = plane.claim(resumed)
        assert isinstance(started, Started)
        assert started.next_method == "execute_complete"
        assert started.next_kwargs == {"kept": True, "event": {"found": True}}
        assert (started.try_number, started.first_started_at) == (1, START)
        # what it pushed before the wait is still there
        assert pulled(plane, resumed, "before") == {"a": 1}
        plane.report(resumed)
        assert plane.task(run, "a").state == "success"
        with plane.database.reading() as connection:
            (attempt,) = attempt_queries.of_task(connection, row.id)
            assert connection.execute(select(trigger_queries.TRIGGER)).all() == []
        assert attempt.outcome == "success"

    def test_reports_of_stay_before_are_stale(self, plane: ControlPlane, run: int, work: ExecuteTask) -> None:
        """A trigger that fires at once, and a worker whose end is noticed late."""
        plane.play(work, O.DEFERRED, deferral=DEFERRAL)
        self.fire(plane, self.trigger_id(plane))
        (resumed,) = plane.tick()
        plane.claim(resumed)
        before = everything(plane)
        assert not plane.service.exited(work.key, ProcessExit(code=0))
        assert not plane.service.exited(work.key, ProcessExit(signal=9))
        assert isinstance(plane.report(work), Refused)
        assert isinstance(plane.claim(work), Refused)
        plane.service.handle(Progress(work.key, 1.0))
        assert everything(plane) == before

    def test_end_of_process_that_deferred_means_nothing(self, plane: ControlPlane, run: int, work: ExecuteTask) -> None:
        plane.play(work, O.DEFERRED, deferral=DEFERRAL)
        assert not plane.service.exited(work.key, ProcessExit(code=0))
        assert plane.task(run, "a").state == "deferred"

    def test_deferral_running_again_has_not_ended(self, plane: ControlPlane, run: int, work: ExecuteTask) -> None:
        plane.play(work, O.DEFERRED, deferral=DEFERRAL)
        self.fire(plane, self.trigger_id(plane))
        (resumed,) = plane.tick()
        plane.claim(resumed)
        with plane.database.reading() as connection:
            assert attempt_queries.outcome(connection, work.key.attempt_id) is None
        # and deferring again is no repetition of the first time
        assert plane.report(resumed, O.DEFERRED, deferral=DEFERRAL) == Done()
        assert plane.task(run, "a").state == "deferred"

    def test_event_is_heard_once(self, plane: ControlPlane, run: int, work: ExecuteTask) -> None:
        plane.play(work, O.DEFERRED, deferral=DEFERRAL)
        number = self.trigger_id(plane)
        assert self.fire(plane, number) == run
        assert self.fire(plane, number) is None
        assert plane.task(run, "a").deferral_number == 1

    def test_late_event_does_not_end_later_wait(self, plane: ControlPlane, run: int, work: ExecuteTask) -> None:
        plane.play(work, O.DEFERRED, deferral=DEFERRAL)
        first = self.trigger_id(plane)
        self.fire(plane, first)
        (resumed,) = plane.tick()
        plane.play(resumed, O.DEFERRED, deferral=DEFERRAL)
        assert self.trigger_id(plane) != first
        assert self.fire(plane, first) is None
        assert plane.task(run, "a").state == "deferred"

    def test_deferral_that_resumes_is_told_elapsed_time_with_waits(
        self, plane: ControlPlane, run: int, work: ExecuteTask
    ) -> None:
        plane.clock.advance(timedelta(seconds=100))  # in the queue: that does not count
        started = plane.claim(work)
        assert isinstance(started, Started)
        assert started.elapsed_seconds == 0
        plane.clock.advance(timedelta(seconds=10))
        plane.report(work, O.DEFERRED, deferral=DEFERRAL)
        plane.clock.advance(timedelta(seconds=3600))
        self.fire(plane, self.trigger_id(plane))
        (resumed,) = plane.tick()
        again = plane.claim(resumed)
        assert isinstance(again, Started)
        assert again.elapsed_seconds == 3610
        # a new try begins anew
        plane.report(resumed, O.FAILED)
        plane.clock.advance(timedelta(days=1))
        plane.scheduler.sweep()
        (retried,) = plane.tick()
        anew = plane.claim(retried)
        assert isinstance(anew, Started)
        assert anew.elapsed_seconds == 0

    def test_wait_that_failed_resumes_in_order_to_fail(self, plane: ControlPlane, run: int, work: ExecuteTask) -> None:
        plane.play(work, O.DEFERRED, deferral=DEFERRAL)
        with plane.database.transaction() as connection:
            trigger_queries.fail(connection, self.trigger_id(plane), "it broke", plane.clock.now())
        plane.scheduler.sweep()
        (resumed,) = plane.tick()
        started = plane.claim(resumed)
        assert isinstance(started, Started)
        assert (started.next_method, started.next_kwargs) == ("__fail__", {"error": "it broke"})
        plane.report(resumed, O.FAILED)
        assert plane.task(run, "a").state == "up_for_retry"
        # the next try starts from the beginning
        plane.clock.advance(timedelta(seconds=60))
        (again,) = plane.tick()
        started = plane.claim(again)
        assert isinstance(started, Started)
        assert (again.key.deferral_number, started.next_method, started.next_kwargs) == (0, None, {})

    def test_lost_after_wait_starts_from_beginning(self, plane: ControlPlane, run: int, work: ExecuteTask) -> None:
        plane.play(work, O.DEFERRED, deferral=DEFERRAL)
        self.fire(plane, self.trigger_id(plane))
        (resumed,) = plane.tick()
        plane.service.exited(resumed.key, ProcessExit(reason="gone"))
        (again,) = plane.tick()
        started = plane.claim(again)
        assert isinstance(started, Started)
        assert started.next_method is None
        assert again.key.attempt_id != work.key.attempt_id

    def test_cleared_one_is_not_waited_for(self, plane: ControlPlane, run: int, work: ExecuteTask) -> None:
        plane.play(work, O.DEFERRED, deferral=DEFERRAL)
        number = self.trigger_id(plane)
        with plane.database.transaction() as connection:
            run_queries.clear(connection, run, plane.clock.now())
            assert trigger_queries.abandoned(connection) == [number]
        assert self.fire(plane, number) is None
        assert plane.task(run, "a").state is None

    def test_claimed_by_one_and_by_next_when_it_is_dead(self, plane: ControlPlane, run: int, work: ExecuteTask) -> None:
        plane.play(work, O.DEFERRED, deferral=DEFERRAL)
        with plane.database.transaction() as connection:
            assert len(trigger_queries.claim(connection, 1, [1, 2], 10)) == 1
            assert trigger_queries.claim(connection, 2, [1, 2], 10) == []
            assert len(trigger_queries.claim(connection, 2, [2], 10)) == 1
            assert trigger_queries.watched_ids(connection, 1) == set()
            trigger_queries.release(connection, 2)
            assert len(trigger_queries.claim(connection, 1, [1, 2], 10)) == 1
