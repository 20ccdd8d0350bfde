"""What follows from an outcome is decided in its transaction: one commit between the end of a task and the next one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from tests.support.control_plane import ControlPlane, control_plane, empty_task
from trainflow.messages.execution_api import Done, Outcome, OutcomeState, Refused, TriggeredRun
from trainflow.messages.workload import ExecuteTask
from trainflow.metadata.applied_change import AppliedChange
from trainflow.metadata.database import Database
from trainflow.metadata.queries import dag_queries, fleet_queries, run_queries
from trainflow.metadata.queries.drain_queries import Drain, DrainKind
from trainflow.states import TriggerRule


@contextmanager
def commits(database: Database, patch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Each transaction that may write, counted."""
    counted: list[int] = []
    real = database.transaction

    def transaction() -> Any:
        counted.append(1)
        return real()

    with patch.context() as patched:
        patched.setattr(database, "transaction", transaction)
        yield counted


def test_outcome_queues_and_hands_over_next_task_in_one_commit(
    plane: ControlPlane, run: int, work: ExecuteTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane.claim(work)
    with commits(plane.database, monkeypatch) as counted:
        assert plane.report(work) == Done()
        [then] = plane.executor.take()
        assert plane.tick() == []
    assert (then.task_id, len(counted)) == ("b", 1)
    assert plane.states(run) == {"a": "success", "b": "queued"}


def test_outcome_of_last_task_ends_run_in_one_commit(
    plane: ControlPlane, run: int, work: ExecuteTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane.play(work)
    [last] = plane.executor.take()
    plane.claim(last)
    with commits(plane.database, monkeypatch) as counted:
        plane.report(last)
    assert (plane.run(run).state, len(counted)) == ("success", 1)


def test_outcome_starts_next_run_of_its_dag_in_one_commit(plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    plane.add_dag("self", empty_task("a"), max_active_runs=1)
    plane.add_run("self")
    [work] = plane.tick()
    plane.claim(work)
    with commits(plane.database, monkeypatch) as counted:
        assert plane.report(work, triggered_runs=[TriggeredRun("self", "r2")]) == Done()
        [then] = plane.executor.take()
        assert plane.tick() == []
    assert (then.dag_id, then.run_id, len(counted)) == ("self", "r2", 1)


def test_outcome_starts_no_run_while_its_own_is_running(plane: ControlPlane, run: int) -> None:
    plane.add_dag("self", empty_task("a"), empty_task("b", "a"), max_active_runs=1)
    plane.add_run("self")
    work = next(each for each in plane.tick() if each.dag_id == "self")
    plane.play(work, triggered_runs=[TriggeredRun("self", "r2")])
    assert [(each.run_id, each.task_id) for each in plane.executor.take()] == [("r1", "b")]
    assert plane.tick() == []


def test_outcome_starts_no_run_of_drained_dag(plane: ControlPlane) -> None:
    plane.add_dag("self", empty_task("a"), max_active_runs=1)
    plane.add_run("self")
    [work] = plane.tick()
    with plane.database.transaction() as connection:
        fleet_queries.drain(connection, Drain(DrainKind.DAG, "self", plane.clock.now(), None))
    plane.scheduler.sweep()
    plane.tick()
    plane.play(work, triggered_runs=[TriggeredRun("self", "r2")])
    assert plane.executor.take() == plane.tick() == []


@pytest.mark.parametrize("database_url", ["postgresql", "mariadb"], indirect=True)
def test_outcome_leaves_next_run_to_next_tick_while_its_dag_is_locked(tmp_path: Path, database_url: str | None) -> None:
    with control_plane(tmp_path, database_url=database_url) as plane:
        plane.add_dag("self", empty_task("a"), max_active_runs=1)
        plane.add_run("self")
        plane.add_run("self", "r2")
        [work] = plane.tick()
        plane.claim(work)
        with plane.database.transaction() as connection:
            dag_queries.lock(connection, "self")
            assert plane.report(work) == Done()
            assert plane.executor.take() == []
        assert [each.run_id for each in plane.tick()] == ["r2"]


@pytest.mark.parametrize("database_url", ["postgresql", "mariadb"], indirect=True)
def test_two_ends_at_once_in_two_engines_start_as_many_runs_as_there_are_places(
    tmp_path: Path, database_url: str | None
) -> None:
    with (
        control_plane(tmp_path, database_url=database_url) as one,
        control_plane(tmp_path, clock=one.clock, settings=one.settings) as other,
    ):
        one.add_dag("self", empty_task("a"), max_active_runs=2)
        for number in range(1, 6):
            one.add_run("self", f"r{number}")
        first, second = one.tick()
        one.claim(first)
        one.claim(second)
        one.service.follow_up = Late(one, lambda: other.report(second))
        assert one.report(first) == Done()
        handed = [*one.executor.take(), *other.executor.take(), *one.tick(), *other.tick()]
        assert sorted(each.run_id for each in handed) == ["r3", "r4"]
        with one.database.reading() as connection:
            assert len(run_queries.running(connection)) == 2


def test_triggered_run_is_started_by_next_tick(plane: ControlPlane, run: int, work: ExecuteTask) -> None:
    plane.play(work, triggered_runs=[TriggeredRun("next", "child")])
    assert plane.executor.take() == []
    assert sorted(each.dag_id for each in plane.tick()) == ["d", "next"]


def test_outcome_of_draining_engine_queues_nothing(plane: ControlPlane, run: int, work: ExecuteTask) -> None:
    plane.scheduler.draining = True
    plane.play(work)
    assert plane.tick() == []
    assert plane.states(run) == {"a": "success", "b": "scheduled"}


def test_stale_outcome_queues_nothing(plane: ControlPlane, run: int, work: ExecuteTask) -> None:
    plane.play(work)
    [then] = plane.executor.take()
    assert isinstance(plane.report(then), Refused)
    assert plane.states(run) == {"a": "success", "b": "queued"}
    assert plane.tick() == []


def test_ends_of_wide_run_are_decided_together_by_next_tick(plane: ControlPlane) -> None:
    plane.add_dag("wide", empty_task("a"), empty_task("b"), empty_task("c", "a"), empty_task("d", "b"))
    run = plane.add_run("wide")
    first, second = plane.tick()
    plane.play(first)
    plane.play(second)
    assert plane.executor.take() == []
    assert [workload.task_id for workload in plane.tick()] == ["c", "d"]
    for workload in (first, second):
        assert plane.states(run)[workload.task_id] == "success"


@pytest.mark.parametrize("state", [OutcomeState.SUCCESS, OutcomeState.SKIPPED])
def test_outcome_is_kept_when_what_follows_cannot_be_queued(
    plane: ControlPlane, run: int, work: ExecuteTask, state: OutcomeState, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue_all, times = plane.scheduler.task_queue.queue_all, iter([True])

    def fail_once(*given: Any) -> None:
        queue_all(*given)
        if next(times, False):
            raise OverflowError("date value out of range")

    monkeypatch.setattr(plane.scheduler.task_queue, "queue_all", fail_once)
    plane.add_dag("d", empty_task("a"), empty_task("b", "a", trigger_rule=TriggerRule.ALL_DONE))
    assert plane.play(work, state) == Done()
    assert (plane.task(run, "a").state, plane.executor.take()) == (state.value, [])
    handed = plane.tick()
    assert [each.task_id for each in handed] == (["b"] if state is OutcomeState.SUCCESS else [])


class Late:
    """Decides what follows, after something else has happened in the middle of the transaction."""

    def __init__(self, plane: ControlPlane, meanwhile: Callable[[], object]) -> None:
        self._scheduler = plane.scheduler
        self._meanwhile = meanwhile
        self.ready = True

    def begin(self, connection: Connection, outcome: Outcome) -> Callable[[AppliedChange, datetime], None]:
        decide = self._scheduler.begin(connection, outcome)

        def decide_late(change: AppliedChange, now: datetime) -> None:
            self._meanwhile()
            decide(change, now)

        return decide_late

    def take_back(self) -> None:
        self._scheduler.take_back()


@pytest.mark.parametrize("database_url", ["postgresql", "mariadb"], indirect=True)
def test_two_ends_at_once_in_two_engines_queue_what_waits_for_both(tmp_path: Path, database_url: str | None) -> None:
    with (
        control_plane(tmp_path, database_url=database_url) as one,
        control_plane(tmp_path, clock=one.clock, settings=one.settings) as other,
    ):
        one.add_dag("both", empty_task("a"), empty_task("b"), empty_task("c", "a", "b"))
        run = one.add_run("both")
        first, second = one.tick()
        assert other.tick() == []
        one.claim(first)
        one.claim(second)
        one.service.follow_up = Late(one, lambda: other.report(second))
        assert one.report(first) == Done()
        handed = [*one.executor.take(), *other.executor.take(), *one.tick(), *other.tick()]
        assert [each.task_id for each in handed] == ["c"]
        assert one.states(run) == {"a": "success", "b": "success", "c": "queued"}
