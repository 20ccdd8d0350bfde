"""After an engine that died: adopt what still runs, put back what does not, and stop what is not waited for."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from tests.support.control_plane import ControlPlane, control_plane, empty_task
from trainflow.clock import ManualClock
from trainflow.messages.execution_api import Deferral, OutcomeState
from trainflow.messages.workload import ProcessExit
from trainflow.metadata.fast_connection import FastConnection
from trainflow.metadata.queries import run_queries, service_list_queries, service_queries, task_queries
from trainflow.observability.processes import started_at
from trainflow.scheduler.recovery import Reconciler, adopt_orphans

DEAD_AFTER = timedelta(seconds=30)
BEAT = timedelta(seconds=5)


@pytest.fixture
def first(tmp_path: Path, database_url: str | None) -> Iterator[ControlPlane]:
    with control_plane(tmp_path, database_url=database_url) as plane:
        plane.add_dag("d", empty_task("a"), empty_task("b"), empty_task("c"))
        yield plane


@pytest.fixture
def second(first: ControlPlane, tmp_path: Path) -> Iterator[ControlPlane]:
    with control_plane(tmp_path, clock=first.clock, settings=first.settings) as plane:
        yield plane


def adopt(plane: ControlPlane) -> None:
    adopt_orphans(
        plane.database, plane.executor, plane.service, plane.leases, own=plane.service_id, now=plane.clock.now()
    )


def look_while(by: timedelta, *planes: ControlPlane, beating: ControlPlane | None = None) -> None:
    """Time goes by; these look around every five seconds, and one of all says that it lives."""
    for plane in planes:
        adopt(plane)
    for _ in range(by // BEAT):
        planes[0].clock.advance(BEAT)
        if beating is not None:
            beat(beating)
        for plane in planes:
            adopt(plane)


def beat(plane: ControlPlane) -> None:
    with plane.database.transaction() as connection:
        service_queries.renew_lease(connection, plane.service_id, plane.clock.now())


def test_adopt_running_attempts_are_kept_and_rest_is_lost(first: ControlPlane, second: ControlPlane) -> None:
    run = first.add_run("d")
    running, dead, queued = first.tick()
    for workload in (running, dead):
        first.claim(workload)
    second.executor.alive = {running.key}
    look_while(DEAD_AFTER, second)
    assert first.states(run) == {"a": "running", "b": "scheduled", "c": "scheduled"}
    assert first.task(run, "a").service_id == second.service_id
    # what was queued only had not begun: nothing of it was lost
    assert [first.task(run, name).lost for name in "abc"] == [0, 1, 0]
    # the adopted one ends as if nothing had happened; a late report of a lost one changes nothing
    second.report(running)
    first.report(dead)
    assert first.states(run) == {"a": "success", "b": "scheduled", "c": "scheduled"}
    assert {workload.task_id for workload in second.tick()} == {"b", "c"}
    assert queued.task_id == "c"


def test_adopt_live_scheduler_keeps_its_attempts(first: ControlPlane, second: ControlPlane) -> None:
    run = first.add_run("d")
    first.tick()
    look_while(DEAD_AFTER - BEAT, second)
    assert set(first.states(run).values()) == {"queued"}
    look_while(DEAD_AFTER * 3, second, beating=first)
    assert set(first.states(run).values()) == {"queued"}


@pytest.mark.parametrize("ahead", [sign * timedelta(seconds=by) for by in (31, 86400) for sign in (1, -1)])
def test_adopt_live_scheduler_with_other_clock_keeps_its_attempts(
    first: ControlPlane, tmp_path: Path, ahead: timedelta
) -> None:
    """Another host's clock differs from ours, from the beginning or from now on."""
    run = first.add_run("d")
    first.tick()
    with control_plane(tmp_path, clock=ManualClock(first.clock.now() + ahead), settings=first.settings) as other:
        for _ in range(12):
            for plane in (first, other):
                plane.clock.advance(BEAT)
                beat(plane)
            adopt(other)
            adopt(first)
        assert set(first.states(run).values()) == {"queued"}
        assert first.task(run, "a").service_id == first.service_id
        with first.database.reading() as connection:
            assert [row.stopped_at for row in service_list_queries.everyone(connection)] == [None, None]


def test_adopt_after_own_standstill_blames_no_other(first: ControlPlane, second: ControlPlane) -> None:
    """A host that was suspended with all that is on it: the process that wakes up first finds the others' old
    counters."""
    run = first.add_run("d")
    first.tick()
    adopt(second)
    first.clock.advance(timedelta(hours=8))
    adopt(second)
    assert set(first.states(run).values()) == {"queued"}


def test_adopt_gone_process_on_this_host_is_noticed_at_once(first: ControlPlane, second: ControlPlane) -> None:
    run = first.add_run("d")
    first.tick()
    with first.database.transaction() as connection:
        gone = service_queries.register(
            connection,
            kind="engine",
            hostname=socket.gethostname(),
            pid=os.getpid(),
            process_started=started_at(os.getpid()) + 1.0,
            now=first.clock.now(),
        )
        connection.execute(service_queries.SERVICE.delete().where(service_queries.SERVICE.c.id == first.service_id))
        connection.execute(update(task_queries.TASK).values(service_id=gone))
    adopt(second)
    assert set(first.states(run).values()) == {"scheduled"}


def test_adopt_attempts_of_stopped_engine_are_taken_over(first: ControlPlane, second: ControlPlane) -> None:
    run = first.add_run("d")
    first.tick()
    with first.database.transaction() as connection:
        service_queries.stop(connection, first.service_id, first.clock.now())
    adopt(second)
    assert set(first.states(run).values()) == {"scheduled"}


def test_stopped_engine_is_forgotten_in_end(first: ControlPlane, second: ControlPlane) -> None:
    """Looking after the dead again and again must not keep them from being forgotten."""
    ended = first.clock.now()
    with first.database.transaction() as connection:
        service_queries.stop(connection, first.service_id, ended)
    first.clock.advance(timedelta(days=8))
    adopt(second)
    with first.database.transaction() as connection:
        service_queries.forget_stopped(connection, first.clock.now() - timedelta(days=7))
        assert [row.id for row in service_list_queries.everyone(connection)] == [second.service_id]


def test_adopt_by_two_shares_orphans(first: ControlPlane, second: ControlPlane, tmp_path: Path) -> None:
    run = first.add_run("d")
    for workload in first.tick():
        first.claim(workload)
        second.executor.alive.add(workload.key)
    with control_plane(tmp_path, clock=first.clock, settings=first.settings) as third:
        with third.database.transaction() as connection:
            service_queries.stop(connection, third.service_id, third.clock.now())
        look_while(DEAD_AFTER, second, third, beating=second)
        assert {first.task(run, name).service_id for name in "abc"} == {second.service_id}
        assert set(first.states(run).values()) == {"running"}


class TestReconcile:
    def reconciler(self, plane: ControlPlane) -> Reconciler:
        return Reconciler(plane.database, plane.executor, plane.service, own=plane.service_id)

    def test_reconcile_attempt_lost_by_executor_is_scheduled_again(self, first: ControlPlane) -> None:
        run = first.add_run("d")
        kept, gone, _ = first.tick()
        first.claim(kept)
        first.executor.alive.discard(gone.key)
        self.reconciler(first).reconcile()
        assert first.states(run) == {"a": "running", "b": "scheduled", "c": "queued"}

    def test_stray_is_told_to_stop_when_it_is_seen_twice(self, first: ControlPlane) -> None:
        run = first.add_run("d")
        workloads = first.tick()
        for workload in workloads:
            first.claim(workload)
        reconciler = self.reconciler(first)
        with first.database.transaction() as connection:
            run_queries.clear(connection, run, first.clock.now())
        reconciler.reconcile()
        assert first.executor.terminated == []
        reconciler.reconcile()
        assert set(first.executor.terminated) == {workload.key for workload in workloads}

    def test_reconcile_cancelled_attempt_is_told_to_stop(self, first: ControlPlane) -> None:
        run = first.add_run("d")
        kept, cleared, reported = first.tick()
        for workload in (kept, cleared, reported):
            first.claim(workload)
        first.report(reported)
        first.executor.alive.add(reported.key)
        with first.database.transaction() as connection:
            run_queries.clear(connection, run, first.clock.now(), [cleared.task_id])
        self.reconciler(first).end_unwanted()
        assert first.executor.terminated == [cleared.key]

    @pytest.mark.parametrize("look", ["end_unwanted", "reconcile", "end_strays"])
    def test_reconcile_asks_as_often_for_one_stray_as_for_all(
        self, first: ControlPlane, monkeypatch: pytest.MonkeyPatch, look: str
    ) -> None:
        """An executor whose attempts run elsewhere has those that have ended until it is told."""
        first.add_run("d")
        reported = first.tick()
        for workload in reported:
            first.play(workload)
        asked: list[None] = []
        execute = FastConnection.execute
        monkeypatch.setattr(FastConnection, "execute", lambda *given: asked.append(None) or execute(*given))  # type: ignore[func-returns-value]
        counts = []
        for held in (reported[:1], reported):
            first.executor.alive = {workload.key for workload in held}
            asked.clear()
            getattr(self.reconciler(first), look)()
            counts.append(len(asked))
        assert counts[0] == counts[1] > 0

    @pytest.mark.parametrize("deferred", [False, True])
    def test_reconcile_attempt_just_reported_is_left_alone(self, first: ControlPlane, deferred: bool) -> None:
        """Its process still ends. Waiting is as legal an end of a stay as success is."""
        first.add_run("d")
        (workload, *_) = first.tick()
        reconciler = self.reconciler(first)
        if deferred:
            first.play(workload, OutcomeState.DEFERRED, deferral=Deferral("m.Trigger", {}, "execute_complete"))
        else:
            first.play(workload)
        first.executor.alive.add(workload.key)
        reconciler.reconcile()
        first.executor.alive.discard(workload.key)
        assert not first.service.exited(workload.key, ProcessExit(code=0))
        reconciler.reconcile()
        reconciler.reconcile()
        assert first.executor.terminated == []
        assert first.task(1, "a").state == ("deferred" if deferred else "success")

    def test_attempt_that_another_scheduler_has_taken_over_is_left_alone(
        self, first: ControlPlane, second: ControlPlane
    ) -> None:
        run = first.add_run("d")
        running, queued, _ = first.tick()
        first.claim(running)
        second.executor.alive = {running.key}
        look_while(DEAD_AFTER, second)
        assert first.task(run, "a").service_id == second.service_id
        # it stood still, and comes back
        first.executor.alive = {running.key, queued.key}
        reconciler = self.reconciler(first)
        reconciler.reconcile()
        reconciler.reconcile()
        reconciler.end_strays()
        assert running.key not in first.executor.terminated
        assert queued.key in first.executor.terminated
        second.report(running)
        reconciler.reconcile()
        reconciler.reconcile()
        assert running.key in first.executor.terminated
