"""An attempt is claimed in the transaction that queues it, for a process that waits for one."""

from __future__ import annotations

import socket
from datetime import timedelta

import msgspec
import pytest
from sqlalchemy import literal_column, update

from tests.integration.test_scheduler_follow_up import commits
from tests.support.control_plane import ControlPlane, empty_task
from trainflow.messages.execution_api import Done, OutcomeState, Refused, Start, Started, XComItem
from trainflow.messages.workload import ExecuteTask, ProcessExit, ProcessIdentity
from trainflow.metadata.queries import attempt_queries, in_flight, task_queries
from trainflow.metadata.queries.run_queries import RUN

ONE, OTHER = ProcessIdentity(4711, 1.0), ProcessIdentity(4712, 2.0)
HOST = socket.gethostname()


def start(work: ExecuteTask, process: ProcessIdentity) -> Start:
    """What a process claims with that was given the workload."""
    return Start(work.key, process.pid, process.process_started, HOST, instead_of=work.instead_of)


def test_next_task_is_queued_and_claimed_in_the_commit_of_the_outcome(
    plane: ControlPlane, run: int, work: ExecuteTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane.claim(work)
    plane.executor.waiting = [ONE]
    with commits(plane.database, monkeypatch) as counted:
        plane.report(work, xcoms=[XComItem("return_value", msgspec.Raw(b"7"))])
    [then] = plane.executor.take()
    process, started = plane.executor.claimed[then.key]
    assert (process, len(counted)) == (ONE, 1)
    row = plane.task(run, "b")
    assert (row.state, row.pid, row.process_started, row.hostname) == ("running", 4711, 1.0, HOST)
    assert (row.queued_at, row.started_at) == (plane.clock.now(),) * 2
    assert [(each.task_id, bytes(each.value)) for each in started.xcoms] == [("a", b"7")]
    with plane.database.reading() as connection:
        assert attempt_queries.started_at(connection, then.key.attempt_id) == plane.clock.now()


def test_process_that_waited_is_told_what_it_would_have_been_told(
    plane: ControlPlane, run: int, work: ExecuteTask
) -> None:
    plane.executor.waiting = [ONE]
    plane.play(work)
    [then] = plane.executor.take()
    _, started = plane.executor.claimed[then.key]
    assert plane.service.handle(start(then, ONE)) == started
    assert plane.report(then) == Done()
    assert plane.states(run) == {"a": "success", "b": "success"}


def test_second_delivery_of_claimed_attempt_loses(plane: ControlPlane, work: ExecuteTask) -> None:
    plane.executor.waiting = [ONE]
    plane.play(work)
    [then] = plane.executor.take()
    assert isinstance(plane.service.handle(start(then, OTHER)), Refused)


def test_each_process_gets_one_and_the_others_claim_themselves(plane: ControlPlane) -> None:
    plane.add_dag("wide", empty_task("a"), empty_task("b"), empty_task("c"))
    run = plane.add_run("wide")
    plane.executor.waiting = [ONE, OTHER]
    works = plane.tick()
    assert sorted(plane.states(run).values(), key=str) == ["queued", "running", "running"]
    assert {process for process, _ in plane.executor.claimed.values()} == {ONE, OTHER}
    [queued] = [work for work in works if work.key not in plane.executor.claimed]
    assert isinstance(plane.claim(queued), Started)


def test_later_try_is_not_claimed_ahead(plane: ControlPlane, run: int, work: ExecuteTask) -> None:
    plane.play(work, OutcomeState.FAILED)
    plane.executor.waiting = [ONE]
    plane.clock.advance(timedelta(seconds=60))
    [again] = plane.tick()
    assert (plane.executor.claimed, plane.task(run, "a").state) == ({}, "queued")
    assert isinstance(plane.claim(again), Started)


def test_process_is_given_what_was_claimed_for_it_before_what_was_claimed_for_none(
    plane: ControlPlane, run: int, work: ExecuteTask
) -> None:
    plane.play(work, OutcomeState.FAILED)
    plane.clock.advance(timedelta(seconds=60))
    plane.add_dag("next", empty_task("n"))
    plane.add_run("next")
    plane.executor.waiting = [ONE]
    first, second = plane.tick()
    assert (first.dag_id, first.key in plane.executor.claimed) == ("next", True)
    assert (second.task_id, second.key in plane.executor.claimed) == ("a", False)


def test_task_that_was_cleared_is_looked_at_first(plane: ControlPlane, run: int, work: ExecuteTask) -> None:
    plane.claim(work)
    with plane.database.transaction() as connection:
        task_queries.clear(connection, [plane.task(run, "a").id], plane.clock.now())
    plane.scheduler.sweep()
    plane.executor.waiting = [ONE]
    [again] = plane.tick()
    # what is asked without looking changes nothing for it
    assert (plane.executor.claimed, plane.task(run, "a").state) == ({}, "queued")
    started = plane.claim(again)
    assert isinstance(started, Started)
    assert started.cleared_at is not None


def test_process_that_is_gone_leaves_its_claim_to_the_one_that_is_given_the_attempt(
    plane: ControlPlane, run: int, work: ExecuteTask
) -> None:
    plane.executor.waiting = [ONE]
    plane.play(work)
    [then] = plane.executor.take()
    _, told = plane.executor.claimed[then.key]
    given = msgspec.structs.replace(then, instead_of=ONE)
    assert not plane.service.has_begun(then.key, OTHER.pid)
    assert plane.service.handle(start(given, OTHER)) == told
    assert plane.service.has_begun(then.key, OTHER.pid)
    row = plane.task(run, "b")
    assert (row.state, row.pid, row.process_started) == ("running", 4712, 2.0)
    # once: a third one has nothing to inherit
    assert isinstance(plane.service.handle(start(given, ProcessIdentity(4713, 3.0))), Refused)
    assert isinstance(plane.service.handle(start(given, ONE)), Refused)


def test_claim_of_another_host_is_not_inherited(plane: ControlPlane, work: ExecuteTask) -> None:
    plane.executor.waiting = [ONE]
    plane.play(work)
    [then] = plane.executor.take()
    claim = Start(then.key, OTHER.pid, OTHER.process_started, "elsewhere", instead_of=ONE)
    assert isinstance(plane.service.handle(claim), Refused)


def test_claimed_attempt_that_is_never_run_is_lost_and_uses_up_no_try(plane: ControlPlane, run: int) -> None:
    plane.executor.waiting = [ONE]
    [work] = plane.tick()
    assert work.key in plane.executor.claimed
    plane.executor.alive.discard(work.key)
    plane.service.exited(work.key, ProcessExit(reason="it was never there"))
    row = plane.task(run, "a")
    assert (row.state, row.failures, row.lost) == ("scheduled", 0, 1)


def test_transaction_that_fails_claims_nothing(
    plane: ControlPlane, run: int, work: ExecuteTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue_all, times = plane.scheduler.task_queue.queue_all, iter([True])

    def fail_once(*given: object) -> None:
        queue_all(*given)  # type: ignore[arg-type]
        if next(times, False):
            raise OverflowError("date value out of range")

    plane.executor.waiting = [ONE]
    plane.claim(work)
    monkeypatch.setattr(plane.scheduler.task_queue, "queue_all", fail_once)
    assert plane.report(work) == Done()
    assert (plane.executor.take(), plane.executor.claimed) == ([], {})
    [then] = plane.tick()
    assert plane.executor.claimed[then.key][0] == ONE


def test_attempt_of_which_it_was_not_known_whether_it_counts_is_given_to_any_process(
    plane: ControlPlane, run: int
) -> None:
    plane.executor.waiting = [ONE]
    scheduler = plane.scheduler
    queue = next(phase for phase in scheduler.phases if phase.name == "decide and queue")
    scheduler.run(queue, plane.clock.now())
    # as where the answer to the commit was lost
    scheduler.task_queue.start_over()
    assert plane.task(run, "a").state == "running"
    scheduler.sweep()
    [work] = plane.tick()
    assert (work.instead_of, plane.executor.claimed) == (ONE, {})
    assert isinstance(plane.service.handle(start(work, OTHER)), Started)


def test_run_that_cannot_be_read_is_run_by_no_process_and_disturbs_no_other(plane: ControlPlane, run: int) -> None:
    with plane.database.transaction() as connection:
        connection.execute(update(RUN).where(RUN.c.id == run).values(conf=literal_column("'{'")))
    other = plane.add_run("next")
    plane.executor.waiting = [ONE, OTHER]
    works = {work.dag_id: work for work in plane.tick()}
    assert list(plane.executor.claimed) == [works["next"].key]
    if "d" in works:  # where it is read after the commit, as from PostgreSQL: the attempt fails when it claims itself
        assert isinstance(plane.service.handle(start(works["d"], ProcessIdentity(4713, 3.0))), Refused)
        assert "its run cannot be read" in plane.task(run, "a").problem
    assert plane.task(run, "a").state != "running"
    assert (plane.task(other, "a").state, plane.report(works["next"])) == ("running", Done())


def test_process_of_running_attempt_is_noted_for_that_attempt_alone(
    plane: ControlPlane, run: int, work: ExecuteTask
) -> None:
    plane.claim(work)
    key = msgspec.structs.replace(work.key, deferral_number=work.key.deferral_number + 1)
    with plane.database.transaction() as connection:
        in_flight.note_process(connection, key, 1, 1.0)
    assert plane.task(run, "a").pid == 100
