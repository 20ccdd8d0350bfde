"""The execution API over the database: each request once, whatever is sent twice, late, or by a stale attempt."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import func, select

from trainflow.messages.outcome import AttemptFailure, Deferral, Outcome, OutcomeState, TriggeredRun, XComItem
from trainflow.messages.process_exit import ProcessExit
from trainflow.messages.requests import (
    DagRunInfo,
    Done,
    Failed,
    GetDagRunState,
    GetTrackingRun,
    GetXCom,
    Progress,
    Refused,
    RowsSaved,
    Start,
    Started,
    TrackingRun,
    TriggerRun,
    XComValues,
)
from trainflow.messages.workload import AttemptKey, ExecuteTask
from trainflow.metadata import attempt_queries, run_queries, task_queries, trigger_queries
from trainflow.metadata.retry_policy import MOST_RESTARTS
from trainflow.metadata.run_queries import RUN
from trainflow.metadata.trigger_queries import TRIGGER
from trainflow.serialization.document import RetryDocument
from trainflow.settings.model import EngineSettings, Settings
from trainflow.testing.control_plane import START, ControlPlane, control_plane, empty_task

O = OutcomeState  # noqa: E741
DEFERRAL = Deferral("m.Trigger", {"x": 1}, "execute_complete", {"kept": True})


@pytest.fixture
def plane(tmp_path: Path, database_url: str | None) -> Iterator[ControlPlane]:
    settings = Settings(engine=EngineSettings(lost_attempts=3))
    with control_plane(tmp_path, database_url=database_url, settings=settings) as plane:
        retry = RetryDocument(retries=1, delay_seconds=60.0)
        plane.add_dag("d", empty_task("a", retry=retry), empty_task("b", "a"))
        plane.add_dag("next", empty_task("a"))
        yield plane


@pytest.fixture
def run(plane: ControlPlane) -> int:
    return plane.add_run("d")


@pytest.fixture
def work(plane: ControlPlane, run: int) -> ExecuteTask:
    (workload,) = plane.tick()
    return workload


def xcom(key: str, value: Any) -> XComItem:
    return XComItem(key, msgspec.Raw(msgspec.json.encode(value)))


def pulled(
    plane: ControlPlane, work: ExecuteTask, key: str = "return_value", *tasks: str, **more: Any
) -> dict[str, Any]:
    reply = plane.service.handle(GetXCom(work.key, "d", work.run_id, list(tasks) or None, key, **more))
    assert isinstance(reply, XComValues)
    return {task: msgspec.json.decode(value) for task, value in reply.values.items()}


def everything(plane: ControlPlane) -> dict[str, list[Any]]:
    """All rows of all tables but leases: to see that nothing has changed."""
    from trainflow.metadata.models import METADATA

    with plane.database.reading() as connection:
        return {
            table.name: [tuple(row) for row in connection.execute(select(table))] for table in METADATA.sorted_tables
        }


class TestClaim:
    def test_claim_returns_what_task_needs(self, plane: ControlPlane, run: int, work: ExecuteTask) -> None:
        started = plane.claim(work)
        assert isinstance(started, Started)
        assert (started.run.dag_id, started.run.run_id, started.run.started_at) == ("d", "r1", START)
        assert (started.try_number, started.max_tries, started.next_method) == (1, 1, None)
        row = plane.task(run, "a")
        assert (row.state, row.pid, row.hostname) == ("running", 100, "here")

    def test_claim_by_same_process_is_repeatable(self, plane: ControlPlane, work: ExecuteTask) -> None:
        first = plane.claim(work)
        before = everything(plane)
        assert plane.claim(work) == first
        assert everything(plane) == before

    @pytest.mark.parametrize("claim", [(101, 1.0), (100, 2.0)])
    def test_second_delivery_loses(self, plane: ControlPlane, work: ExecuteTask, claim: tuple[int, float]) -> None:
        plane.claim(work)
        before = everything(plane)
        assert isinstance(plane.service.handle(Start(work.key, *claim, "here")), Refused)
        assert everything(plane) == before

    def test_unknown_attempt_loses(self, plane: ControlPlane, work: ExecuteTask) -> None:
        assert isinstance(plane.service.handle(Start(AttemptKey("nobody"), 1, 1.0, "here")), Refused)
        assert isinstance(plane.service.handle(Start(AttemptKey(work.key.attempt_id, 1), 1, 1.0, "here")), Refused)


class TestOutcome:
    def test_outcome_success_is_stored(self, plane: ControlPlane, run: int, work: ExecuteTask) -> None:
        assert plane.play(work, xcoms=[xcom("return_value", {"n": 1})], note="well") == Done()
        row = plane.task(run, "a")
        assert (row.state, row.note, row.ended_at) == ("success", "well", START)
        assert pulled(plane, work) == {"a": {"n": 1}}
        assert [workload.task_id for workload in plane.tick()] == ["b"]

    def test_outcome_of_open_run_may_still_commit(self, plane: ControlPlane, work: ExecuteTask) -> None:
        def living() -> set[str]:
            with plane.database.reading() as connection:
                return attempt_queries.of_unfinished_runs(connection)

        plane.play(work)
        assert living() == {work.key.attempt_id}
        (then,) = plane.tick()
        assert living() == {work.key.attempt_id, then.key.attempt_id}
        plane.play(then)
        plane.tick()
        assert living() == set()

    @pytest.mark.parametrize("state", [O.SUCCESS, O.SKIPPED, O.FAILED, O.DEFERRED, O.RESCHEDULED, O.PREEMPTED])
    def test_outcome_sent_twice_counts_once(self, plane: ControlPlane, work: ExecuteTask, state: OutcomeState) -> None:
        """The reply to the first one was lost."""
        outcome = Outcome(
            work.key,
            state,
            xcoms=[xcom("k", 1)],
            triggered_runs=[TriggeredRun("next", "child")] if state is O.SUCCESS else [],
            problem=AttemptFailure("no") if state is O.FAILED else None,
            deferral=DEFERRAL if state is O.DEFERRED else None,
        )
        plane.claim(work)
        assert plane.service.handle(outcome) == Done()
        before, changes = everything(plane), len(plane.changes)
        assert plane.service.handle(outcome) == Done()
        assert everything(plane) == before
        assert len(plane.changes) == changes

    def test_outcome_without_claim_is_refused(self, plane: ControlPlane, run: int, work: ExecuteTask) -> None:
        before = everything(plane)
        assert isinstance(plane.report(work), Refused)
        assert everything(plane) == before

    def test_outcome_of_given_up_attempt_changes_nothing(
        self, plane: ControlPlane, run: int, work: ExecuteTask
    ) -> None:
        plane.claim(work)
        plane.service.exited(work.key, ProcessExit(reason="its node went away"))
        assert isinstance(plane.report(work), Refused)
        (again,) = plane.tick()
        before = everything(plane)
        assert isinstance(plane.report(work), Refused)
        assert everything(plane) == before
        assert plane.play(again) == Done()

    def test_failure_uses_up_try_and_waits(self, plane: ControlPlane, run: int, work: ExecuteTask) -> None:
        plane.play(work, O.FAILED, problem=AttemptFailure("broken", "trace"))
        row = plane.task(run, "a")
        assert (row.state, row.failures, row.problem) == ("up_for_retry", 1, "broken")
        assert row.retry_at == START + timedelta(seconds=60)
        assert plane.tick() == []
        plane.clock.advance(timedelta(seconds=60))
        (again,) = plane.tick()
        assert again.key.attempt_id != work.key.attempt_id
        started = plane.claim(again)
        assert isinstance(started, Started)
        assert (started.try_number, started.first_started_at) == (2, START)
        plane.report(again, O.FAILED)
        plane.tick()
        assert plane.states(run) == {"a": "failed", "b": "upstream_failed"}
        assert plane.run(run).state == "failed"

    def test_failure_that_is_final(self, plane: ControlPlane, run: int, work: ExecuteTask) -> None:
        plane.play(work, O.FAILED, problem=AttemptFailure("no use", retryable=False))
        assert plane.task(run, "a").state == "failed"

    def test_preempted_consumes_nothing(self, plane: ControlPlane, run: int, work: ExecuteTask) -> None:
        for _ in range(5):
            plane.play(work, O.PREEMPTED)
            row = plane.task(run, "a")
            assert (row.state, row.failures, row.lost) == ("scheduled", 0, 0)
            (work,) = plane.tick()

    def test_failure_after_new_progress_uses_up_no_try(self, plane: ControlPlane, run: int, work: ExecuteTask) -> None:
        for rows in (10, 20, 30):
            plane.claim(work)
            plane.service.handle(RowsSaved(work.key, rows))
            plane.report(work, O.FAILED)
            row = plane.task(run, "a")
            assert (row.state, row.failures, row.saved_rows) == ("up_for_retry", 0, rows)
            plane.clock.advance(timedelta(seconds=60))
            (work,) = plane.tick()
        # no further than before, said twice in different ways
        plane.claim(work)
        plane.service.handle(RowsSaved(work.key, 25))
        plane.report(work, O.FAILED, saved_rows=30)
        assert (plane.task(run, "a").failures, plane.task(run, "a").saved_rows) == (1, 30)
        plane.clock.advance(timedelta(seconds=60))
        (work,) = plane.tick()
        plane.play(work, O.FAILED)
        assert plane.task(run, "a").state == "failed"

    def test_outcome_carries_progress_not_told_before(self, plane: ControlPlane, run: int, work: ExecuteTask) -> None:
        plane.play(work, O.FAILED, saved_rows=10)
        row = plane.task(run, "a")
        assert (row.state, row.failures, row.saved_rows) == ("up_for_retry", 0, 10)

    def test_attempts_that_are_lost_after_new_progress_are_not_counted(
        self, plane: ControlPlane, run: int, work: ExecuteTask
    ) -> None:
        for rows in range(1, 8):
            plane.claim(work)
            plane.service.handle(RowsSaved(work.key, rows))
            plane.exit(work)
            assert (plane.task(run, "a").state, plane.task(run, "a").lost) == ("scheduled", 0)
            (work,) = plane.tick()
        for lost in (1, 2):
            plane.claim(work)
            plane.service.handle(RowsSaved(work.key, 7))
            plane.exit(work)
            assert plane.task(run, "a").lost == lost
            (work,) = plane.tick()
        plane.claim(work)
        plane.exit(work)
        assert plane.task(run, "a").state == "failed"

    def test_save_of_stale_attempt_is_ignored(self, plane: ControlPlane, run: int, work: ExecuteTask) -> None:
        plane.claim(work)
        plane.exit(work)
        (again,) = plane.tick()
        plane.claim(again)
        before = everything(plane)
        assert plane.service.handle(RowsSaved(work.key, 10)) == Done()
        assert everything(plane) == before

    def test_cleared_task_begins_anew_and_is_told_so(self, plane: ControlPlane, run: int, work: ExecuteTask) -> None:
        started = plane.claim(work)
        assert isinstance(started, Started)
        assert started.cleared_at is None
        plane.service.handle(RowsSaved(work.key, 10))
        plane.clock.advance(timedelta(seconds=5))
        with plane.database.transaction() as connection:
            run_queries.clear(connection, run, plane.clock.now())
        plane.scheduler.sweep()
        row = plane.task(run, "a")
        assert (row.saved_rows, row.credited_rows) == (None, None)
        (again,) = plane.tick()
        started = plane.claim(again)
        assert isinstance(started, Started)
        assert started.cleared_at == START + timedelta(seconds=5)

    def test_rescheduled_sensor_keeps_its_first_start(self, plane: ControlPlane, run: int, work: ExecuteTask) -> None:
        at = START + timedelta(seconds=30)
        plane.play(work, O.RESCHEDULED, reschedule_at=at)
        assert plane.task(run, "a").retry_at == at
        plane.clock.advance(timedelta(seconds=30))
        (again,) = plane.tick()
        started = plane.claim(again)
        assert isinstance(started, Started)
        assert (started.reschedule_count, started.try_number, started.first_started_at) == (1, 1, START)

    def test_outcome_of_ten_megabytes_is_stored(self, plane: ControlPlane, run: int, work: ExecuteTask) -> None:
        value = ["é" * 1000] * 5000
        plane.play(work, xcoms=[xcom("return_value", value)])
        assert pulled(plane, work) == {"a": value}


class TestTriggeredRuns:
    def children(self, plane: ControlPlane) -> list[str]:
        with plane.database.reading() as connection:
            return list(connection.execute(select(RUN.c.run_id).where(RUN.c.dag_id == "next")).scalars())

    def test_come_with_outcome(self, plane: ControlPlane, run: int, work: ExecuteTask) -> None:
        plane.play(work, triggered_runs=[TriggeredRun("next", "child")])
        assert self.children(plane) == ["child"]
        assert plane.changes[-1].triggered

    @pytest.mark.parametrize(
        ("triggered", "says"),
        [
            (TriggeredRun("nowhere", "child"), "no DAG is called 'nowhere'"),
            (TriggeredRun("next", "taken"), "not triggered by this task"),
            (TriggeredRun("next", "no name"), "cannot name a run"),
        ],
    )
    def test_refused_one_leaves_nothing_of_outcome(
        self, plane: ControlPlane, run: int, work: ExecuteTask, triggered: TriggeredRun, says: str
    ) -> None:
        plane.add_run("next", "taken")
        assert plane.play(work, xcoms=[xcom("k", 1)], triggered_runs=[triggered]) == Done()
        row = plane.task(run, "a")
        assert row.state in ("up_for_retry", "failed")
        assert says in row.problem
        assert pulled(plane, work, "k") == {}
        assert self.children(plane) == ["taken"]
        with plane.database.reading() as connection:
            (attempt,) = attempt_queries.of_task(connection, row.id)
        assert (attempt.outcome, attempt.problem) == ("failed", row.problem)

    def test_refused_and_told_twice(self, plane: ControlPlane, run: int, work: ExecuteTask) -> None:
        outcome = Outcome(work.key, O.SUCCESS, triggered_runs=[TriggeredRun("nowhere", "child")])
        plane.claim(work)
        assert plane.service.handle(outcome) == Done()
        before = everything(plane)
        assert plane.service.handle(outcome) == Done()
        assert everything(plane) == before

    def test_second_one_from_same_task_is_refused_as_whole(
        self, plane: ControlPlane, run: int, work: ExecuteTask
    ) -> None:
        plane.play(work, triggered_runs=[TriggeredRun("next", "one"), TriggeredRun("next", "two")])
        assert self.children(plane) == []
        assert "a task triggers one run" in plane.task(run, "a").problem

    def test_foreign_one_skips_where_asked(self, plane: ControlPlane, run: int, work: ExecuteTask) -> None:
        plane.add_run("next", "taken")
        plane.play(work, triggered_runs=[TriggeredRun("next", "taken", skip_when_already_exists=True)])
        assert plane.task(run, "a").state == "skipped"

    def test_retry_finds_its_run_again(self, plane: ControlPlane, run: int, work: ExecuteTask) -> None:
        """Killed between triggering and success: there is one child."""
        plane.claim(work)
        request = TriggerRun(work.key, TriggeredRun("next", "child"))
        assert plane.service.handle(request) == Done()
        assert plane.service.handle(request) == Done()
        plane.service.exited(work.key, ProcessExit(signal=9))
        plane.executor.alive.clear()
        again = next(workload for workload in plane.tick() if workload.dag_id == "d")
        plane.claim(again)
        assert plane.service.handle(TriggerRun(again.key, TriggeredRun("next", "child"))) == Done()
        assert plane.report(again, triggered_runs=[TriggeredRun("next", "child")]) == Done()
        assert self.children(plane) == ["child"]
        assert plane.task(run, "a").state == "success"

    def test_refusals_while_it_runs_are_answers(self, plane: ControlPlane, work: ExecuteTask) -> None:
        plane.claim(work)
        reply = plane.service.handle(TriggerRun(work.key, TriggeredRun("nowhere", "child")))
        assert isinstance(reply, Failed)
        assert reply.error == "DagNotFound"

    def test_trigger_by_stale_attempt_is_refused(self, plane: ControlPlane, work: ExecuteTask) -> None:
        plane.play(work)
        assert isinstance(plane.service.handle(TriggerRun(work.key, TriggeredRun("next", "child"))), Refused)
        assert self.children(plane) == []


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


class TestXComs:
    def test_xcoms_of_new_try_start_empty(self, plane: ControlPlane, run: int, work: ExecuteTask) -> None:
        plane.play(work, O.FAILED, xcoms=[xcom("left", 1)])
        assert pulled(plane, work, "left") == {"a": 1}
        plane.clock.advance(timedelta(seconds=60))
        (again,) = plane.tick()
        plane.claim(again)
        assert pulled(plane, again, "left") == {}

    def test_pulled_in_order_asked_for(self, plane: ControlPlane, run: int, work: ExecuteTask) -> None:
        plane.play(work, xcoms=[xcom("k", "a"), xcom("k", "a again"), xcom("other", 1)][1:])
        (follower,) = plane.tick()
        plane.play(follower, xcoms=[xcom("k", "b")])
        assert list(pulled(plane, work, "k", "b", "nobody", "a").items()) == [("b", "b"), ("a", "a again")]
        assert pulled(plane, work, "k", "a") == {"a": "a again"}

    def test_xcoms_of_earlier_runs_are_read(self, plane: ControlPlane, run: int, work: ExecuteTask) -> None:
        plane.play(work, xcoms=[xcom("return_value", "old")])
        (follower,) = plane.tick()
        plane.play(follower)
        plane.tick()
        plane.add_run("d", "r2")
        (later,) = plane.tick()
        assert pulled(plane, later, "return_value", "a") == {}
        assert pulled(plane, later, "return_value", "a", include_prior_dates=True) == {"a": "old"}
        # never of later ones
        plane.play(later, xcoms=[xcom("return_value", "new")])
        assert pulled(plane, work, "return_value", "a", include_prior_dates=True) == {"a": "old"}


class TestExits:
    @pytest.mark.parametrize("exit", [ProcessExit(code=0), ProcessExit(code=1), ProcessExit(signal=11)])
    def test_end_without_word_uses_up_try(
        self, plane: ControlPlane, run: int, work: ExecuteTask, exit: ProcessExit
    ) -> None:
        plane.claim(work)
        assert plane.service.exited(work.key, exit)
        row = plane.task(run, "a")
        assert (row.state, row.failures) == ("up_for_retry", 1)
        assert not plane.service.exited(work.key, exit)
        assert plane.task(run, "a") == row

    def test_budget_of_losses(self, plane: ControlPlane, run: int, work: ExecuteTask) -> None:
        for number in (1, 2):
            plane.claim(work)
            plane.service.exited(work.key, ProcessExit(signal=9))
            row = plane.task(run, "a")
            assert (row.state, row.failures, row.lost) == ("scheduled", 0, number)
            (work,) = plane.tick()
        plane.claim(work)
        plane.service.exited(work.key, ProcessExit(signal=9))
        row = plane.task(run, "a")
        assert (row.state, row.failures, row.lost) == ("failed", 0, 3)
        assert "lost 3 times in a row, given up" in row.problem

    @pytest.mark.parametrize("end", [O.FAILED, O.DEFERRED])
    def test_end_of_its_own_renews_budget(
        self, plane: ControlPlane, run: int, work: ExecuteTask, end: OutcomeState
    ) -> None:
        plane.claim(work)
        plane.service.exited(work.key, ProcessExit(signal=9))
        (work,) = plane.tick()
        plane.play(work, end, deferral=DEFERRAL if end is O.DEFERRED else None)
        assert plane.task(run, "a").lost == 0

    @pytest.mark.parametrize("exit", [ProcessExit(code=0), ProcessExit(code=1), ProcessExit(code=70)])
    def test_exit_before_claim_is_lost_not_failed(
        self, plane: ControlPlane, run: int, work: ExecuteTask, exit: ProcessExit
    ) -> None:
        """Told to stop before it began: no code of the task ran."""
        assert plane.service.exited(work.key, exit)
        row = plane.task(run, "a")
        assert (row.state, row.failures, row.lost) == ("scheduled", 0, 1)


def test_clearing_while_it_runs_leaves_zombie_without_say(plane: ControlPlane, run: int, work: ExecuteTask) -> None:
    plane.claim(work)
    with plane.database.transaction() as connection:
        run_queries.clear(connection, run, plane.clock.now())
    assert plane.run(run).state == "queued"
    before = everything(plane)
    assert isinstance(plane.service.handle(TriggerRun(work.key, TriggeredRun("next", "child"))), Refused)
    assert isinstance(plane.report(work, xcoms=[xcom("k", 1)]), Refused)
    assert not plane.service.exited(work.key, ProcessExit(signal=9))
    plane.service.handle(Progress(work.key, 0.5))
    assert everything(plane) == before
    plane.scheduler.sweep()
    (again,) = plane.tick()
    assert plane.play(again) == Done()


def test_progress_is_shown_while_it_runs(plane: ControlPlane, run: int, work: ExecuteTask) -> None:
    plane.claim(work)
    plane.service.handle(Progress(work.key, 3.0, 10.0, "rows", {"loss": None}, "warm"))
    assert plane.task(run, "a").progress == {
        "done": 3.0,
        "total": 10.0,
        "unit": "rows",
        "metrics": {"loss": None},
        "note": "warm",
    }


def test_states_and_tracking_of_runs(plane: ControlPlane, run: int, work: ExecuteTask) -> None:
    assert plane.service.handle(GetDagRunState(work.key, "d", "r1")) == DagRunInfo("running")
    assert plane.service.handle(GetDagRunState(work.key, "d", "nothing")) == DagRunInfo(None)
    assert plane.service.handle(GetTrackingRun(work.key)) == TrackingRun(None, None)
    with plane.database.transaction() as connection:
        run_queries.remember_mlflow(connection, run, "sqlite:///m.db", "abc")
    assert plane.service.handle(GetTrackingRun(work.key)) == TrackingRun("sqlite:///m.db", "abc")
    assert isinstance(plane.service.handle(GetTrackingRun(AttemptKey("nobody"))), Refused)


def test_run_started_repeatedly_has_one_row_per_task(plane: ControlPlane, run: int, work: ExecuteTask) -> None:
    with plane.database.transaction() as connection:
        run_queries.clear(connection, run, plane.clock.now())
    plane.scheduler.sweep()
    plane.tick()
    with plane.database.reading() as connection:
        count = connection.execute(select(func.count()).select_from(task_queries.TASK)).scalar_one()
    assert count == 2


# -- an earlier task that runs again ---------------------------------------------------------------------------------


def three_in_a_row(plane: ControlPlane) -> int:
    plane.add_dag("three", empty_task("first"), empty_task("second", "first"), empty_task("third", "second"))
    return plane.add_run("three")


def restarted(plane: ControlPlane, workload: ExecuteTask, task_id: str = "first") -> None:
    problem = AttemptFailure("the samples changed", kind="RestartException", retryable=False)
    plane.play(workload, O.RESTARTED, restart=task_id, problem=problem)


def test_restart_earlier_task_and_all_that_follows_it_run_again(plane: ControlPlane) -> None:
    run = three_in_a_row(plane)
    (first,) = plane.tick()
    plane.play(first, xcoms=[XComItem("split", msgspec.Raw(b"1"))])
    (second,) = plane.tick()
    restarted(plane, second)

    assert plane.states(run) == {"first": None, "second": None, "third": None}
    assert plane.run(run).note == "'first' ran again: the samples changed"
    assert (plane.task(run, "second").failures, plane.task(run, "second").attempt_id) == (0, None)
    with plane.database.reading() as connection:
        assert attempt_queries.outcome(connection, second.key.attempt_id) == "restarted"
    assert isinstance(plane.report(second), Done)  # told twice: the first reply was lost
    (again,) = plane.tick()
    assert (again.task_id, again.key != first.key) == ("first", True)
    plane.play(again)
    (second,) = plane.tick()
    asked = plane.service.handle(GetXCom(second.key, "three", "r1", ["first"], "split"))
    assert asked == XComValues({})


def test_restart_again_and_again_fails_for_good(plane: ControlPlane) -> None:
    run = three_in_a_row(plane)
    for _ in range(MOST_RESTARTS + 1):
        (first,) = plane.tick()
        plane.play(first)
        (second,) = plane.tick()
        restarted(plane, second)
    plane.tick()
    assert plane.states(run) == {"first": "success", "second": "failed", "third": "upstream_failed"}
    assert f"ran again {MOST_RESTARTS} times for it in this run" in plane.task(run, "second").problem


@pytest.mark.parametrize("task_id", ["third", "nobody"])
def test_restart_task_that_this_one_does_not_follow_is_refused(plane: ControlPlane, task_id: str) -> None:
    run = three_in_a_row(plane)
    (first,) = plane.tick()
    restarted(plane, first, task_id)
    assert plane.states(run)["first"] == "failed"
    assert f"'first' does not follow '{task_id}'" in plane.task(run, "first").problem


def test_restart_by_stale_attempt_changes_nothing(plane: ControlPlane) -> None:
    run = three_in_a_row(plane)
    (first,) = plane.tick()
    plane.play(first)
    (second,) = plane.tick()
    plane.claim(second)
    with plane.database.transaction() as connection:
        run_queries.clear(connection, run, plane.clock.now(), {"second"})
    problem = AttemptFailure("the samples changed")
    assert isinstance(plane.report(second, O.RESTARTED, restart="first", problem=problem), Refused)
    assert plane.states(run) == {"first": "success", "second": None, "third": None}
