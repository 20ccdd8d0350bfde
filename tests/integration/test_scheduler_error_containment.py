"""A run that cannot be dealt with is set aside and named; all others go on, and no later engine stumbles over it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from tests.support.control_plane import ControlPlane, control_plane, empty_task
from trainflow.messages.workload import ExecuteTask, ProcessExit
from trainflow.metadata.queries import run_queries, task_queries
from trainflow.metadata.queries.dag_queries import VERSION
from trainflow.scheduler import loop
from trainflow.serialization.document import ChainDocument, DagDocument, RetryDocument
from trainflow.states import DagRunState


@pytest.fixture
def plane(tmp_path: Path, database_url: str | None) -> Iterator[ControlPlane]:
    with control_plane(tmp_path, database_url=database_url) as plane:
        yield plane


def restarted(plane: ControlPlane) -> ControlPlane:
    url = None if plane.database.is_sqlite else plane.database.url.render_as_string(hide_password=False)
    return ControlPlane(plane.project, clock=plane.clock, database_url=url)


def add_good(plane: ControlPlane, count: int = 2) -> list[int]:
    plane.add_dag("good", empty_task("t"))
    return [plane.add_run("good", f"r{number}") for number in range(count)]


def damage_document(plane: ControlPlane, dag_id: str) -> None:
    with plane.database.transaction() as connection:
        connection.execute(update(VERSION).where(VERSION.c.dag_id == dag_id).values(document="no document"))


@pytest.mark.parametrize("seconds", [9_999_999 * 86_400.0, 1e30, float(2**80)])
def test_tick_time_out_beyond_calendar_is_never_reached(plane: ControlPlane, seconds: float) -> None:
    plane.add_dag("long", empty_task("t"), dagrun_timeout_seconds=seconds)
    run = plane.add_run("long")
    (workload,) = plane.tick()
    plane.clock.advance(timedelta(days=365))
    plane.play(workload)
    plane.tick()
    assert plane.run(run).state == DagRunState.SUCCESS


#: about a run with this time-out nothing can be decided
UNDECIDABLE = 77.0


@pytest.fixture
def _undecidable(monkeypatch: pytest.MonkeyPatch) -> None:
    real = loop.decide

    def decide(document: DagDocument, *args: Any, **named: Any) -> Any:
        if document.dagrun_timeout_seconds == UNDECIDABLE:
            raise OverflowError("date value out of range")
        return real(document, *args, **named)

    monkeypatch.setattr(loop, "decide", decide)


@pytest.mark.usefixtures("_undecidable")
def test_tick_run_that_cannot_be_decided_is_set_aside(plane: ControlPlane) -> None:
    plane.add_dag("bad", empty_task("t"), dagrun_timeout_seconds=UNDECIDABLE)
    bad = plane.add_run("bad")
    good = add_good(plane)
    assert [workload.dag_id for workload in plane.tick()] == ["good", "good"]
    row = plane.run(bad)
    assert row.state == DagRunState.FAILED
    assert "set aside" in row.note
    assert "OverflowError" in row.note
    assert plane.states(bad) == {"t": "skipped"}
    assert [plane.run(run).state for run in good] == ["running", "running"]
    later = restarted(plane)
    later.scheduler.sweep()
    later.tick()
    assert later.run(bad).state == DagRunState.FAILED
    later.close()


def test_start_document_that_cannot_be_read_sets_run_aside(plane: ControlPlane) -> None:
    plane.add_dag("bad", empty_task("t"))
    bad = plane.add_run("bad")
    good = add_good(plane)
    damage_document(plane, "bad")
    assert [workload.dag_id for workload in plane.tick()] == ["good", "good"]
    assert plane.run(bad).state == DagRunState.FAILED
    assert "set aside" in plane.run(bad).note
    assert [plane.run(run).state for run in good] == ["running", "running"]


def test_queue_document_unreadable_sets_run_aside(plane: ControlPlane) -> None:
    plane.add_dag("bad", empty_task("a"), empty_task("b", "a"))
    bad = plane.add_run("bad")
    add_good(plane, 1)
    [workload] = [each for each in plane.tick() if each.dag_id == "bad"]
    plane.claim(workload)
    damage_document(plane, "bad")
    plane.versions._documents.clear()
    plane.report(workload)
    plane.tick()
    assert plane.run(bad).state == DagRunState.FAILED
    assert plane.states(bad) == {"a": "success", "b": "skipped"}


@pytest.mark.usefixtures("_undecidable")
def test_set_aside_is_logged_with_its_traceback(plane: ControlPlane, caplog: pytest.LogCaptureFixture) -> None:
    plane.add_dag("bad", empty_task("t"), dagrun_timeout_seconds=UNDECIDABLE)
    plane.add_run("bad")
    with caplog.at_level(logging.ERROR):
        plane.tick()
    [record] = [each for each in caplog.records if "set aside" in each.message]
    assert record.exc_info is not None
    assert "OverflowError" in record.message


@pytest.mark.usefixtures("_undecidable")
def test_set_aside_run_of_chain_is_told(plane: ControlPlane) -> None:
    told: list[bool] = []
    plane.scheduler.on_notice = lambda: told.append(True)
    chain = ChainDocument(pipeline="p", stage="main", branch="main", store="checkpoints")
    plane.add_dag("bad", empty_task("t"), dagrun_timeout_seconds=UNDECIDABLE, chain=chain)
    plane.add_run("bad")
    plane.tick()
    assert told


@pytest.mark.usefixtures("_undecidable")
def test_set_aside_lets_next_run_of_dag_start(plane: ControlPlane) -> None:
    plane.add_dag("d", empty_task("t"), dagrun_timeout_seconds=UNDECIDABLE, max_active_runs=1)
    bad = plane.add_run("d", "r1")
    plane.add_dag("d", empty_task("t"), max_active_runs=1)
    after = plane.add_run("d", "r2")
    plane.tick()
    plane.scheduler.sweep()
    assert [workload.run_id for workload in plane.tick()] == ["r2"]
    assert (plane.run(bad).state, plane.run(after).state) == ("failed", "running")


@pytest.mark.usefixtures("_undecidable")
def test_run_that_cannot_even_be_set_aside_is_left_alone(plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    plane.add_dag("bad", empty_task("t"), dagrun_timeout_seconds=UNDECIDABLE)
    bad = plane.add_run("bad")
    good = add_good(plane)

    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("this as well")

    monkeypatch.setattr(run_queries, "set_aside", fails)
    assert [workload.dag_id for workload in plane.tick()] == ["good", "good"]
    assert bad in plane.scheduler.isolation.untouchable
    for _ in range(3):
        plane.scheduler.sweep()
        plane.tick()
    assert [plane.run(run).state for run in good] == ["running", "running"]
    assert not plane.scheduler.busy


def test_failure_of_all_alike_sets_nothing_aside(plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    [good] = add_good(plane, 1)
    real = task_queries.of_runs

    def out_of_memory(*_: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(task_queries, "of_runs", out_of_memory)
    with pytest.raises(MemoryError):
        plane.tick()
    monkeypatch.setattr(task_queries, "of_runs", real)
    plane.scheduler.sweep()
    assert [workload.dag_id for workload in plane.tick()] == ["good"]
    assert plane.run(good).state == DagRunState.RUNNING


def test_hand_over_refused_does_not_delay_others(plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = add_good(plane, 3)
    taken: list[ExecuteTask] = []

    def queue(workload: ExecuteTask) -> None:
        if workload.run_id == "r1":
            raise OSError(24, "Too many open files")
        taken.append(workload)

    monkeypatch.setattr(plane.executor, "queue_workload", queue)
    plane.scheduler.task_queue.on_not_taken = lambda key, error: (
        plane.service.exited(key, ProcessExit(reason=str(error))) or None
    )
    plane.tick()
    assert [workload.run_id for workload in taken] == ["r0", "r2"]
    assert plane.task(runs[1], "t").state == "scheduled"
    assert plane.task(runs[1], "t").lost == 1


def test_retry_far_away_is_no_reason_to_stop(plane: ControlPlane) -> None:
    plane.add_dag("d", empty_task("t", retry=RetryDocument(retries=1, delay_seconds=1e300, multiplier=1e300)))
    run = plane.add_run("d")
    [workload] = plane.tick()
    plane.play(workload, state=_failed())
    plane.tick()
    assert plane.task(run, "t").retry_at == plane.clock.now() + timedelta(days=1)


def _failed() -> Any:
    from trainflow.messages.execution_api import OutcomeState

    return OutcomeState.FAILED
