"""What is known of attempts whose place others took: the next one is told, and the history says which came back."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import select

from tests.integration.execution_requests import O
from tests.support.control_plane import START, ControlPlane
from trainflow.messages.execution_api import EarlierAttempt, Progress, Refused, Started
from trainflow.messages.workload import ExecuteTask, ProcessExit
from trainflow.metadata.queries import run_queries
from trainflow.metadata.queries.attempt_queries import ATTEMPT, of_unfinished_runs


def test_attempt_is_told_of_those_that_began_before(plane: ControlPlane, work: ExecuteTask) -> None:
    plane.claim(work)
    plane.clock.advance(timedelta(seconds=1))
    plane.exit(work)
    (again,) = plane.tick()
    # asked again, since the first answer was lost, it is told the same
    for started in (plane.claim(again), plane.claim(again)):
        assert isinstance(started, Started)
        assert started.earlier_attempts == [EarlierAttempt(work.key.attempt_id, "lost", "here")]


def test_attempt_whose_predecessor_never_began_is_first(plane: ControlPlane, work: ExecuteTask) -> None:
    plane.service.exited(work.key, ProcessExit(reason="its host is gone"))
    (again,) = plane.tick()
    started = plane.claim(again)
    assert isinstance(started, Started)
    assert (started.first_attempt, started.earlier_attempts) == (True, [])


def test_attempt_that_looks_again_is_not_its_own_predecessor(plane: ControlPlane, work: ExecuteTask) -> None:
    plane.play(work, O.RESCHEDULED, reschedule_seconds=0.0)
    (again,) = plane.tick()
    started = plane.claim(again)
    assert isinstance(started, Started)
    assert again.key.attempt_id not in [each.attempt_id for each in started.earlier_attempts]


def test_given_up_attempt_that_is_heard_again_is_noted_once(plane: ControlPlane, work: ExecuteTask) -> None:
    plane.claim(work)
    plane.service.exited(work.key, ProcessExit(reason="it was not heard"))
    plane.clock.advance(timedelta(seconds=60))
    heard = plane.clock.now()
    assert plane.service.note_heartbeats({work.key}) == set()
    plane.clock.advance(timedelta(seconds=60))
    assert isinstance(plane.service.handle(Progress(work.key, 1.0)), Refused)
    assert isinstance(plane.report(work), Refused)
    with plane.database.reading() as connection:
        row = connection.execute(select(ATTEMPT).where(ATTEMPT.c.attempt_id == work.key.attempt_id)).one()
    assert (row.outcome, row.refused_at) == ("lost", heard)


def test_heartbeat_of_an_attempt_that_has_reported_is_not_noted(plane: ControlPlane, work: ExecuteTask) -> None:
    plane.play(work)
    assert plane.service.note_heartbeats({work.key}) == set()
    with plane.database.reading() as connection:
        assert {row.refused_at for row in connection.execute(select(ATTEMPT))} == {None}


def test_attempt_of_open_run_that_another_follows_may_have_trained_what_that_commits(
    plane: ControlPlane, work: ExecuteTask
) -> None:
    def ended() -> set[str]:
        with plane.database.reading() as connection:
            return of_unfinished_runs(connection, ended=True)

    plane.claim(work)
    assert ended() == set()
    plane.report(work, O.PREEMPTED)
    (again,) = plane.tick()
    assert ended() == {work.key.attempt_id}
    plane.play(again)
    (then,) = plane.tick()
    assert ended() == {work.key.attempt_id}
    plane.play(then)
    plane.tick()
    assert ended() == set()


def test_clearing_by_clock_that_is_behind_is_after_attempt_and_earlier_clearing(
    plane: ControlPlane, run: int, work: ExecuteTask
) -> None:
    plane.claim(work)
    for _ in range(2):
        with plane.database.transaction() as connection:
            run_queries.clear(connection, run, START - timedelta(minutes=10))
        assert plane.task(run, "a").cleared_at == START + timedelta(milliseconds=1)
