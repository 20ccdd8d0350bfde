"""Engines that stop, die and start again: what was under way goes on or comes back, and nothing is counted twice."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from tests.integration.engine_project import PIPELINE, WAITING, WriteProject, go
from tests.support.embedded import Embedded, embedded, quiet
from trainflow.clock import SystemClock
from trainflow.engine.engine import Engine
from trainflow.errors import DatabaseUnavailable, EngineError
from trainflow.metadata import schema
from trainflow.metadata.database import Database
from trainflow.metadata.queries import run_queries, service_queries
from trainflow.observability.processes import is_alive
from trainflow.settings.project import Project
from trainflow.testing.processes import wait_for

MayRefuse = Callable[[Database, Callable[[], bool]], None]


@pytest.fixture
def project(write_project: WriteProject) -> Project:
    return write_project({"pipelines/p.py": PIPELINE, "operators/__init__.py": "", "operators/waiting.py": WAITING})


def pid_of(engine: Embedded, run: int) -> int:
    pid = engine.tasks(run)["t"].pid
    assert isinstance(pid, int)
    return pid


def vanish(engine: Embedded) -> None:
    """As if killed: descriptors close, nothing is said. (Afterwards `_close` finds nothing to do.)"""
    inner = engine.engine
    assert inner.executor is not None
    executor = inner.executor["local"]
    assert inner._scheduling is not None
    for worker in executor._workers.all:  # type: ignore[attr-defined]
        worker.close()
        worker._process.wait()
    executor._workers.close()  # type: ignore[attr-defined]
    for key in list(executor.running()):
        executor._forget(key)  # type: ignore[attr-defined]
    inner._scheduling.close()
    with inner.database.transaction() as connection:
        # another process had this lease
        connection.execute(service_queries.SERVICE.update().values(process_started=1.0, heartbeat_at=inner.clock.now()))


def running_and_waiting(engine: Embedded) -> int:
    """A run whose task waits."""
    run = engine.trigger("waits")
    engine.until(lambda: engine.states(run).get("t") == "running")
    return run


class TestADatabaseThatIsAway:
    """SQLite refuses to write, as on a disk that is full."""

    @pytest.fixture
    def engine(self, project: Project, may_refuse: MayRefuse) -> Iterator[Embedded]:
        self.refuses = False
        with embedded(project) as engine:
            may_refuse(engine.engine.database, lambda: self.refuses)
            assert engine.load() is None
            yield engine
            self.refuses = False

    def test_database_away_briefly_delays_and_loses_nothing(self, project: Project, engine: Embedded) -> None:
        run = running_and_waiting(engine)
        waited: list[float] = []

        def sleep(seconds: float) -> None:
            waited.append(seconds)
            self.refuses = len(waited) < 5

        engine.engine.database.sleep = sleep
        self.refuses = True
        # the outcome arrives when nothing can be written
        go(project)
        assert engine.finish(run) == "success"
        assert len(waited) >= 5
        assert [attempt.outcome for attempt in engine.attempts(run, "t")] == ["success"]
        assert engine.xcoms(run) == {"t": "went on"}

    def test_database_away_for_long_ends_engine_and_loses_nothing(self, project: Project, engine: Embedded) -> None:
        running_and_waiting(engine)
        inner = engine.engine
        inner.database.patience_seconds = 0.0
        self.refuses = True
        go(project)
        inner.reactor.call_later(0.0, inner._heartbeat)
        with pytest.raises(DatabaseUnavailable, match="Nothing is lost"):
            engine.until(lambda: False)

    @pytest.fixture(autouse=True)
    def _the_next_engine_ends_what_this_one_began(self, project: Project) -> Iterator[None]:
        yield
        with embedded(project) as engine:
            (run,) = engine.runs("waits")
            assert engine.finish(run.id) == "success"
            assert [attempt.outcome for attempt in engine.attempts(run.id, "t")][-1] == "success"


def test_stopping_sends_attempts_back_without_blame(project: Project) -> None:
    with embedded(project) as engine:
        assert engine.load() is None
        run = running_and_waiting(engine)
        pid = pid_of(engine, run)
    with embedded(project) as engine:
        row = engine.tasks(run)["t"]
        assert (row.state, row.failures, row.lost) == ("scheduled", 0, 0)
        assert not is_alive(pid, 0.0)
        go(project)
        assert engine.finish(run) == "success"
        assert [attempt.outcome for attempt in engine.attempts(run, "t")] == ["preempted", "success"]


@pytest.mark.parametrize("how", ["cancelled", "cleared"])
def test_cancel_by_hand_stops_task_at_once(project: Project, how: str) -> None:
    """The engine hears of it, and waits for no heartbeat."""
    with embedded(project, quiet(engine={"heartbeat_seconds": 3600.0, "poll_seconds": 3600.0})) as engine:
        assert engine.load() is None
        run = running_and_waiting(engine)
        pid = pid_of(engine, run)
        now = engine.engine.clock.now()
        with engine.engine.database.transaction() as connection:
            if how == "cancelled":
                row = run_queries.by_id(connection, run)
                run_queries.cancel(connection, row, engine.engine.versions, now, note="enough", channels=())
            else:
                run_queries.clear(connection, run, now)
        engine.engine.reactor.wake()
        engine.until(lambda: not is_alive(pid, 0.0), "the attempt to end")
        if how == "cancelled":
            assert engine.states(run) == {"t": "failed", "after": "skipped"}
        else:
            go(project)
            assert engine.finish(run) == "success"


def test_stop_twice_waits_for_no_task(project: Project) -> None:
    with embedded(project, quiet(engine={"stop_grace_seconds": 600.0})) as engine:
        assert engine.load() is None
        run = running_and_waiting(engine)
        os.kill(pid_of(engine, run), signal.SIGSTOP)
        engine.engine.request_stop()
        engine.engine.request_stop()
    with embedded(project) as engine:
        go(project)
        assert engine.finish(run) == "success"
        assert engine.tasks(run)["t"].failures == 0


def test_task_survives_its_engine_and_reports_to_next(project: Project) -> None:
    with embedded(project) as engine:
        assert engine.load() is None
        run = running_and_waiting(engine)
        pid = pid_of(engine, run)
        vanish(engine)
    assert is_alive(pid, 0.0)
    with embedded(project) as engine:
        assert engine.states(run)["t"] == "running"
        go(project)
        assert engine.finish(run) == "success"
        assert engine.xcoms(run)["t"] == "went on"
        assert [attempt.outcome for attempt in engine.attempts(run, "t")] == ["success"]


def test_outcome_from_time_without_engine_is_applied_by_next(project: Project) -> None:
    with embedded(project) as engine:
        assert engine.load() is None
        run = running_and_waiting(engine)
        vanish(engine)
    go(project)
    wait_for(lambda: list(project.home.outcomes.glob("*.json")), "the outcome on disk")
    with embedded(project) as engine:
        assert engine.states(run)["t"] == "success"
        assert engine.finish(run) == "success"
        assert engine.xcoms(run)["t"] == "went on"
    assert list(project.home.outcomes.iterdir()) == []


def test_attempts_that_died_with_engine_are_lost_not_failed(project: Project) -> None:
    with embedded(project) as engine:
        assert engine.load() is None
        run = running_and_waiting(engine)
        pid = pid_of(engine, run)
        vanish(engine)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not is_alive(pid, 0.0), "the end of the attempt")
    go(project)
    with embedded(project) as engine:
        assert engine.finish(run) == "success"
        assert [attempt.outcome for attempt in engine.attempts(run, "t")] == ["lost", "success"]
        assert engine.tasks(run)["t"].failures == 0


def test_start_that_fails_leaves_nothing_behind(project: Project, tmp_path: Path) -> None:
    project.home.create()
    database = Database.of(project.home, quiet())
    schema.ensure_schema(database)
    with database.transaction() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()
    engine = Engine(project, quiet(), clock=SystemClock())
    with pytest.raises(EngineError, match="newer trainflow"), engine.running():
        pass
    assert engine.executor is not None
    assert engine.executor["local"]._workers.all == ()  # type: ignore[attr-defined]


def test_engine_that_stops_ends_parse_that_hangs(write_project: WriteProject) -> None:
    project = write_project({"pipelines/p.py": "import time\nwhile True: time.sleep(60)\n"})
    with embedded(project) as engine:
        processor = engine.engine.dag_processor
        assert processor is not None
        processor.add(project.root / "pipelines/p.py")
        engine.until(lambda: processor._parsing is not None and processor._parsing.pid is not None)
        assert processor._parsing is not None
        pid = processor._parsing.pid
    assert pid is not None
    wait_for(lambda: not is_alive(pid, 0.0), "the end of the parse")


def test_signal_to_engine_whose_package_was_replaced_has_no_other_take_its_place(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    with embedded(project) as embedded_engine:
        engine = embedded_engine.engine
        monkeypatch.setattr("trainflow.engine.engine.is_replaced", lambda: True)
        engine.run(lambda: False)
        assert (engine.stop_requested, engine.is_replaced) == (1, True)
        # a person, or a service manager, who has seen nothing of that: it is given its grace
        engine.request_stop(signal.SIGTERM)
        assert (engine.stop_requested, engine.is_replaced) == (1, False)
        engine.request_stop(signal.SIGTERM)
        assert engine.stop_requested == 2
