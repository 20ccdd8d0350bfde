"""Waits outlive their engine, their event loop, and triggers that end it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import select

from tests.integration.engine_project import PIPELINE, WAITING, WriteProject, go
from tests.support.embedded import Embedded, embedded, quiet
from trainflow.clock import SystemClock
from trainflow.engine.startup import Part
from trainflow.metadata.queries import trigger_queries
from trainflow.settings.project import Project
from trainflow.triggerer import triggerer


@pytest.fixture
def project(write_project: WriteProject) -> Project:
    return write_project({"pipelines/p.py": PIPELINE, "operators/__init__.py": "", "operators/waiting.py": WAITING})


class TestWaits:
    def deferred(self, engine: Embedded) -> int:
        assert engine.load() is None
        run = engine.trigger("defers")
        engine.until(lambda: engine.states(run).get("t") == "deferred" and self.loop(engine) is not None)
        return run

    def loop(self, engine: Embedded) -> int | None:
        triggerer = engine.engine._triggerer
        assert triggerer is not None
        return triggerer._loops[0].pid if triggerer._loops else None

    def test_waits_of_dead_engine_are_taken_over(self, project: Project) -> None:
        with embedded(project) as engine:
            run = self.deferred(engine)
        with embedded(project) as engine:
            assert engine.states(run)["t"] == "deferred"
            go(project)
            assert engine.finish(run) == "success"
            assert engine.xcoms(run)["t"] == "there"

    def test_survive_their_event_loop(self, project: Project) -> None:
        with embedded(project) as engine:
            run = self.deferred(engine)
            first = self.loop(engine)
            assert first is not None
            os.kill(first, signal.SIGKILL)
            engine.until(lambda: self.loop(engine) not in (None, first), "another event loop")
            go(project)
            assert engine.finish(run) == "success"

    def test_survive_event_loops_that_cannot_start(
        self, project: Project, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """They are not started as fast as the machine can, and it is said that nothing is watched."""
        monkeypatch.setattr(triggerer, "_FIRST_PAUSE_SECONDS", 0.02)
        started: list[float] = []

        def dies_at_first(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
            if "trainflow.triggerer.event_loop" in command:
                started.append(clock.monotonic())
                command = [sys.executable, "-c", "raise SystemExit(3)"] if len(started) <= 3 else command
            return real(command, **options)

        clock, real = SystemClock(), subprocess.Popen
        monkeypatch.setattr(subprocess, "Popen", dies_at_first)
        with embedded(project) as engine:
            assert engine.load() is None
            run = engine.trigger("defers")
            engine.until(lambda: engine.states(run).get("t") == "deferred")
            go(project)
            assert engine.finish(run) == "success"
        said = [record.getMessage() for record in caplog.records if "before it could watch" in record.getMessage()]
        assert [message.rpartition(" in ")[2] for message in said] == ["0.02 s", "0.04 s", "0.08 s"]
        assert "(exit code 3)" in said[0]
        pauses = [later - earlier for earlier, later in pairwise(started)]
        assert len(pauses) == 3
        assert all(pause >= least for pause, least in zip(pauses, (0.02, 0.04, 0.08), strict=True))

    def test_waits_survive_trigger_that_ends_event_loop_each_time(
        self, project: Project, caplog: pytest.LogCaptureFixture
    ) -> None:
        with embedded(project) as engine:
            run = self.deferred(engine)
            poisoned = engine.trigger("poisons")
            assert engine.finish(poisoned) == "failed"
            assert "3 times the triggers' event loop ended (exit code 7)" in engine.tasks(poisoned)["t"].problem
            assert engine.states(run)["t"] == "deferred"
            go(project)
            assert engine.finish(run) == "success"

    def test_survive_event_loop_that_is_stuck(self, project: Project) -> None:
        settings = quiet(triggerer={"watchdog_seconds": 0.5}, engine={"poll_seconds": 0.1})
        with embedded(project, settings) as engine:
            run = self.deferred(engine)
            first = self.loop(engine)
            assert first is not None
            os.kill(first, signal.SIGSTOP)
            engine.until(lambda: self.loop(engine) not in (None, first), "another event loop")
            go(project)
            assert engine.finish(run) == "success"

    def test_waits_without_triggerer_time_out(self, project: Project) -> None:
        parts = frozenset({Part.SCHEDULER, Part.DAG_PROCESSOR})
        with embedded(project, quiet(engine={"poll_seconds": 0.05}), parts=parts) as engine:
            assert engine.load() is None
            run = engine.trigger("defers")
            engine.until(lambda: engine.states(run).get("t") == "deferred")
            with engine.engine.database.transaction() as connection:
                connection.execute(trigger_queries.TRIGGER.update().values(deadline=engine.engine.clock.now()))
            assert engine.finish(run) == "failed"
            assert "the wait took longer than its timeout" in engine.tasks(run)["t"].problem

    def test_waits_of_cleared_run_are_forgotten(self, project: Project) -> None:
        from trainflow.metadata.queries import run_queries

        with embedded(project) as engine:
            run = self.deferred(engine)
            with engine.engine.database.transaction() as connection:
                run_queries.clear(connection, run, engine.engine.clock.now())
            engine.engine.reactor.wake()
            go(project)
            assert engine.finish(run) == "success"
            with engine.engine.database.reading() as connection:
                assert connection.execute(select(trigger_queries.TRIGGER)).all() == []
            assert engine.tasks(run)["t"].deferral_number == 1
