"""The execution API over the database: claims, outcomes and exits, sent twice, late, or by a stale attempt."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import func, select

from tests.integration.execution_requests import DEFERRAL, O, everything, pulled, xcom
from tests.support.control_plane import START, ControlPlane
from trainflow.messages.execution_api import (
    AttemptFailure,
    DagRunInfo,
    Done,
    GetDagRunState,
    GetTrackingRun,
    Outcome,
    OutcomeState,
    Progress,
    Refused,
    RowsSaved,
    Start,
    Started,
    TrackingRun,
    TriggeredRun,
    TriggerRun,
)
from trainflow.messages.workload import AttemptKey, ExecuteTask, ProcessExit
from trainflow.metadata.queries import attempt_queries, run_queries, task_queries
from trainflow.metadata.queries.attempt_queries import ATTEMPT


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
        assert isinstance(plane.service.handle(Start(AttemptKey("missing"), 1, 1.0, "here")), Refused)
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

        plane.claim(work)
        assert living() == {work.key.attempt_id}
        plane.report(work)
        (then,) = plane.tick()
        assert living() == {work.key.attempt_id, then.key.attempt_id}
        plane.play(then)
        plane.tick()
        assert living() == set()

    @pytest.mark.parametrize(
        "state", [O.SUCCESS, O.SKIPPED, O.FAILED, O.DEFERRED, O.RESCHEDULED, O.PREEMPTED, O.PART_LOST]
    )
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

    def test_outcome_part_lost_counts_as_loss_and_uses_up_no_try(
        self, plane: ControlPlane, run: int, work: ExecuteTask
    ) -> None:
        problem = AttemptFailure("rank 1 of 2 was killed")
        for lost in (1, 2):
            plane.play(work, O.PART_LOST, problem=problem)
            row = plane.task(run, "a")
            assert (row.state, row.failures, row.lost, row.problem) == ("scheduled", 0, lost, problem.message)
            (work,) = plane.tick()
        plane.play(work, O.PART_LOST, problem=problem)
        row = plane.task(run, "a")
        assert (row.state, row.problem) == ("failed", f"lost 3 times in a row, given up: {problem.message}")

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

    def test_save_of_stale_attempt_is_refused(self, plane: ControlPlane, run: int, work: ExecuteTask) -> None:
        plane.claim(work)
        plane.exit(work)
        (again,) = plane.tick()
        plane.claim(again)
        before = everything(plane)
        assert isinstance(plane.service.handle(RowsSaved(work.key, 10)), Refused)
        assert everything(plane) == before

    def test_cleared_task_begins_anew_and_is_told_so(self, plane: ControlPlane, run: int, work: ExecuteTask) -> None:
        started = plane.claim(work)
        assert isinstance(started, Started)
        assert (started.cleared_at, started.first_attempt) == (None, True)
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
        assert (started.cleared_at, started.first_attempt) == (START + timedelta(seconds=5), False)

    def test_attempt_after_another_one_is_not_the_first(self, plane: ControlPlane, work: ExecuteTask) -> None:
        plane.claim(work)
        plane.exit(work)
        (again,) = plane.tick()
        started = plane.claim(again)
        assert isinstance(started, Started)
        assert not started.first_attempt

    def test_rescheduled_sensor_keeps_its_first_start(self, plane: ControlPlane, run: int, work: ExecuteTask) -> None:
        plane.play(work, O.RESCHEDULED, reschedule_seconds=30.0)
        assert plane.task(run, "a").retry_at == START + timedelta(seconds=30)
        plane.clock.advance(timedelta(seconds=30))
        (again,) = plane.tick()
        started = plane.claim(again)
        assert isinstance(started, Started)
        assert (started.reschedule_count, started.try_number, started.first_started_at) == (1, 1, START)

    def test_outcome_of_ten_megabytes_is_stored(self, plane: ControlPlane, run: int, work: ExecuteTask) -> None:
        value = ["é" * 1000] * 5000
        plane.play(work, xcoms=[xcom("return_value", value)])
        assert pulled(plane, work) == {"a": value}


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
        (dependent,) = plane.tick()
        plane.play(dependent, xcoms=[xcom("k", "b")])
        assert list(pulled(plane, work, "k", "b", "missing", "a").items()) == [("b", "b"), ("a", "a again")]
        assert pulled(plane, work, "k", "a") == {"a": "a again"}

    def test_xcoms_of_earlier_runs_are_read(self, plane: ControlPlane, run: int, work: ExecuteTask) -> None:
        plane.play(work, xcoms=[xcom("return_value", "old")])
        (dependent,) = plane.tick()
        plane.play(dependent)
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

    @pytest.mark.parametrize("exit", [ProcessExit(signal=15, stopped=True), ProcessExit(code=0, stopped=True)])
    def test_exit_before_claim_of_stopped_engine_is_preempted(
        self, plane: ControlPlane, run: int, work: ExecuteTask, exit: ProcessExit
    ) -> None:
        assert plane.service.exited(work.key, exit)
        row = plane.task(run, "a")
        assert (row.state, row.failures, row.lost) == ("scheduled", 0, 0)
        assert row.problem == "was told to stop"
        with plane.database.reading() as connection:
            assert [each.outcome for each in connection.execute(select(ATTEMPT))] == ["preempted"]


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
    assert isinstance(plane.service.handle(GetTrackingRun(AttemptKey("missing"))), Refused)


def test_run_started_repeatedly_has_one_row_per_task(plane: ControlPlane, run: int, work: ExecuteTask) -> None:
    with plane.database.transaction() as connection:
        run_queries.clear(connection, run, plane.clock.now())
    plane.scheduler.sweep()
    plane.tick()
    with plane.database.reading() as connection:
        count = connection.execute(select(func.count()).select_from(task_queries.TASK)).scalar_one()
    assert count == 2
