"""Engines that delete runs by themselves: what `db clean` would, in small steps, one scheduler of a database."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import func, select

from tests.support.control_plane import START, ControlPlane
from trainflow.actions.database import plan_cleanup
from trainflow.engine import run_cleanup
from trainflow.engine.run_cleanup import AGAIN_SECONDS, FIRST_SECONDS, RunCleanup
from trainflow.errors import DatabaseUnavailable
from trainflow.executors.reactor import Reactor
from trainflow.messages.execution_api import OutcomeState, XComItem
from trainflow.metadata.leases import Leases
from trainflow.metadata.models import METADATA
from trainflow.metadata.queries import cleanup_queries, event_queries, outbox_queries, run_queries, service_queries
from trainflow.metadata.queries.cleanup_queries import KEPT_RUNS
from trainflow.metadata.queries.service_list_queries import ExecutorState
from trainflow.settings.outbox_channels import OutboxChannel
from trainflow.workspace.workspace import Workspace

KEEP = timedelta(days=90)


class Steps:
    """The steps of a clean-up, and what each has left of a table."""

    def __init__(self, plane: ControlPlane, *, may_delete_runs: bool = True) -> None:
        self._plane = plane
        self.cleanup = RunCleanup(
            plane.project.home,
            plane.database,
            Reactor(plane.clock),
            plane.clock,
            keep=KEEP,
            owner="scheduler on here",
            may_delete_runs=lambda _: may_delete_runs,
        )

    def run(self) -> list[int]:
        """Rows of runs after each step."""
        return [_runs(self._plane) for _ in self.cleanup.steps(self._plane.clock.now() - KEEP)]


def _runs(plane: ControlPlane, table: str = "dag_run") -> int:
    with plane.database.reading() as connection:
        return int(connection.execute(select(func.count()).select_from(METADATA.tables[table])).scalar_one())


@pytest.fixture
def end_runs(plane: ControlPlane) -> Callable[..., list[Path]]:
    """Runs that ended long ago; the logs of their attempts."""

    def end(count: int, *, first: int = 0, state: OutcomeState = OutcomeState.SUCCESS) -> list[Path]:
        logs = []
        for number in range(first, first + count):
            plane.add_run("next", f"r{number}")
            [work] = plane.tick()
            log = Path(work.log_path)
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text("trained\n")
            os.utime(log, (START.timestamp(),) * 2)
            logs.append(log)
            plane.play(work, state, xcoms=[XComItem("return_value", msgspec.Raw(b"7"))])
            plane.tick()
        return logs

    return end


def test_runs_are_deleted_in_small_steps_as_by_command_and_told(
    plane: ControlPlane, end_runs: Callable[..., list[Path]], caplog: pytest.LogCaptureFixture
) -> None:
    logs = end_runs(KEPT_RUNS + 24)
    end_runs(2, first=100, state=OutcomeState.FAILED)
    plane.clock.advance(timedelta(days=100))
    with plane.database.transaction() as connection:
        row = run_queries.get(connection, "next", "r3")
        outbox_queries.add(connection, (OutboxChannel.MLFLOW,), "run_finished", row, plane.clock.now())
    plan = plan_cleanup(Workspace(plane.project, plane.settings, plane.database), KEEP, plane.clock.now())
    with caplog.at_level(logging.INFO):
        left = Steps(plane).run()

    assert (plan.dags[0].runs, plan.awaited) == (25, 1)
    # ten at a time, then the event, then the logs
    assert left == [27, 17, 11, 11, 11]
    assert [log.exists() for log in logs].count(False) == 25
    assert logs[3].exists()
    assert _runs(plane, "task_instance") == _runs(plane, "attempt") == 11
    assert f"deleted 25 runs of 'next' that ended before {START + timedelta(days=10):%Y-%m-%d}" in caplog.text
    assert "deleted 25 logs of no run (200 B)" in caplog.text
    with plane.database.reading() as connection:
        [event] = event_queries.listing(connection, 10)
    assert (event.event, event.owner, event.dag_id) == ("db_clean", "scheduler on here", "next")
    assert event.extra["runs"] == 25
    assert Steps(plane).run() == [11, 11]


def test_run_that_is_cleared_between_two_steps_stays(plane: ControlPlane, end_runs: Callable[..., list[Path]]) -> None:
    end_runs(KEPT_RUNS + 15)
    plane.clock.advance(timedelta(days=100))
    steps = Steps(plane).cleanup.steps(plane.clock.now() - KEEP)
    next(steps)
    with plane.database.transaction() as connection:
        run_queries.clear(connection, run_queries.get(connection, "next", "r12").id, plane.clock.now())
    for _ in steps:
        pass

    with plane.database.reading() as connection:
        assert run_queries.find(connection, "next", "r12") is not None
    assert _runs(plane) == KEPT_RUNS + 1


def test_engine_that_is_not_first_deletes_logs_alone(plane: ControlPlane, end_runs: Callable[..., list[Path]]) -> None:
    [known, *_] = end_runs(KEPT_RUNS + 3)
    attempt = known.name.partition(".")[0]
    unknown = known.parent.parent / "gone" / f"{attempt[:-4]}0000.r0.a.log"
    unknown.parent.mkdir(parents=True)
    unknown.write_text("of a run that another engine has deleted")
    os.utime(unknown, (START.timestamp(),) * 2)
    plane.clock.advance(timedelta(days=100))

    assert Steps(plane, may_delete_runs=False).run() == [KEPT_RUNS + 3]
    assert (known.exists(), unknown.exists()) == (True, False)


def test_first_scheduler_that_lives_is_the_one_that_deletes(plane: ControlPlane) -> None:
    leases = Leases(plane.clock.monotonic, 30.0)
    with plane.database.transaction() as connection:
        service_queries.note_executors(connection, plane.service_id, [ExecutorState("local", "local", 4)])
        later = service_queries.register_this_process(connection, "scheduler", plane.clock.now())
        service_queries.note_executors(connection, later, [ExecutorState("local", "local", 4)])
        service_queries.register_this_process(connection, "triggerer", plane.clock.now())

    def first() -> list[bool]:
        with plane.database.transaction() as connection:
            service_queries.renew_lease(connection, later, plane.clock.now())
            return [service_queries.is_first_scheduler(connection, own, leases) for own in (plane.service_id, later)]

    assert first() == [True, False]
    for _ in range(40):
        plane.clock.advance(timedelta(seconds=5))
        last = first()
    assert last == [False, True]


class _Timers:
    def __init__(self) -> None:
        self.set: list[tuple[float, Callable[[], None]]] = []

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        self.set.append((seconds, callback))


def test_steps_are_apart_and_next_look_is_hours_later(
    plane: ControlPlane, end_runs: Callable[..., list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    end_runs(KEPT_RUNS + 15)
    plane.clock.advance(timedelta(days=100))
    timers, cleanup = _Timers(), Steps(plane).cleanup
    monkeypatch.setattr(cleanup, "_reactor", timers)
    cleanup.begin()
    asked = []
    while not asked or asked[-1] < AGAIN_SECONDS:
        [(seconds, callback)], timers.set = timers.set, []
        asked.append(seconds)
        callback()
        if len(asked) == 6:
            break

    assert asked == [FIRST_SECONDS, 0.1, 0.1, 0.1, 0.1, AGAIN_SECONDS]


def test_step_that_fails_ends_no_engine_and_is_taken_again_at_the_next_look(
    plane: ControlPlane,
    end_runs: Callable[..., list[Path]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    end_runs(KEPT_RUNS + 5)
    plane.clock.advance(timedelta(days=100))
    timers, cleanup, before = _Timers(), Steps(plane).cleanup, _runs(plane)
    monkeypatch.setattr(cleanup, "_reactor", timers)

    def fails(*_given: object, **_named: object) -> None:
        raise DatabaseUnavailable("the metadata database cannot be used")

    with monkeypatch.context() as while_away:
        while_away.setattr(cleanup_queries, "delete_ended", fails)
        cleanup._look()
    [(seconds, again)], timers.set = timers.set, []
    assert (seconds, _runs(plane)) == (AGAIN_SECONDS, before)
    assert "what is old cannot be deleted now, next in 6 h: the metadata database cannot be used" in caplog.text
    again()
    assert _runs(plane) == before - 5


def test_folders_that_are_deleted_between_two_steps_end_no_look(
    plane: ControlPlane, end_runs: Callable[..., list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = end_runs(KEPT_RUNS + 5)
    plane.clock.advance(timedelta(days=100))
    monkeypatch.setattr(run_cleanup, "_FILES_A_STEP", 1)
    process_log = plane.project.home.logs / "0.log"
    process_log.write_text("the engine's own\n")
    Steps(plane).run()
    assert [log.exists() for log in logs] == [False] * 5 + [True] * KEPT_RUNS
    assert process_log.exists()
