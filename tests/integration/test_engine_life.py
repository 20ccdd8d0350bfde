"""Engines that stop, die and start again: what was under way goes on or comes back, and nothing is counted twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text

from trainflow.clock import SystemClock
from trainflow.engine.engine import Engine
from trainflow.engine.lock import engine_lock, running_engine
from trainflow.engine.parts import Part
from trainflow.errors import DatabaseUnavailable, EngineAlreadyRunning, EngineError
from trainflow.metadata import run_queries, schema, service_queries, trigger_queries
from trainflow.metadata.database import Database
from trainflow.observability.processes import is_alive
from trainflow.settings.project import Project
from trainflow.testing.embedded import Embedded, embedded, quiet
from trainflow.testing.processes import wait_for
from trainflow.triggerer import triggerer

WriteProject = Callable[[dict[str, str]], Project]
MayRefuse = Callable[[Database, Callable[[], bool]], None]

PIPELINE = """
import time
from datetime import timedelta
from pathlib import Path
from trainflow import DAG
from trainflow.authoring.operator import BaseOperator
from trainflow.authoring.trigger import BaseTrigger, TriggerEvent
from trainflow.operators import EmptyOperator, PythonOperator
from operators.waiting import FileTrigger, PoisonTrigger

HERE = Path(__file__).parent.parent

def waits():
    while not (HERE / "go").exists():
        time.sleep(0.01)
    return "went on"

with DAG("waits"):
    PythonOperator(task_id="t", python_callable=waits) >> EmptyOperator(task_id="after")

class Defers(BaseOperator):
    def execute(self, context):
        self.defer(trigger=FileTrigger(str(HERE / "go")), method_name="came")
    def came(self, context, event):
        return event

class DefersToPoison(Defers):
    def execute(self, context):
        self.defer(trigger=PoisonTrigger(), method_name="came")

with DAG("poisons"):
    DefersToPoison(task_id="t")

with DAG("defers"):
    Defers(task_id="t") >> EmptyOperator(task_id="after")
"""
WAITING = """
import asyncio
import os
import sys
from pathlib import Path
from trainflow.authoring.trigger import BaseTrigger, TriggerEvent

class FileTrigger(BaseTrigger):
    def __init__(self, path):
        super().__init__()
        self.path = path
    def serialize(self):
        return "operators.waiting.FileTrigger", {"path": self.path}
    async def run(self):
        while not Path(self.path).exists():
            await asyncio.sleep(0.01)
        yield TriggerEvent("there")

class PoisonTrigger(BaseTrigger):
    def __init__(self):
        super().__init__()
        if "trainflow.triggerer" in sys.modules:
            os._exit(7)
    def serialize(self):
        return "operators.waiting.PoisonTrigger", {}
"""


@pytest.fixture
def project(write_project: WriteProject) -> Project:
    return write_project({"pipelines/p.py": PIPELINE, "operators/__init__.py": "", "operators/waiting.py": WAITING})


def go(project: Project) -> None:
    (project.root / "go").touch()


def pid_of(engine: Embedded, run: int) -> int:
    pid = engine.tasks(run)["t"].pid
    assert isinstance(pid, int)
    return pid


def vanish(engine: Embedded) -> None:
    """As if killed: descriptors close, nothing is said to anybody. (Afterwards `_close` finds nothing to do.)"""
    inner = engine.engine
    executor = inner.executor
    assert executor is not None
    assert inner._scheduling is not None
    for worker in executor._workers:  # type: ignore[attr-defined]
        worker._peer.hang_up()
        worker._process.wait()
    executor._workers.clear()  # type: ignore[attr-defined]
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
                run_queries.cancel(connection, row, engine.engine.versions, now, note="enough", mirrored=False)
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
        from trainflow.metadata import run_queries

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


class TestLock:
    def test_lock_of_home_admits_one_engine(self, project: Project) -> None:
        with engine_lock(project.home):
            assert running_engine(project.home) == os.getpid()
            with pytest.raises(EngineAlreadyRunning) as caught, engine_lock(project.home):
                pass
            assert caught.value.pid == os.getpid()
        assert running_engine(project.home) is None

    def test_pid_of_killed_engine_is_not_believed(self, project: Project) -> None:
        """Its file is still there, and another process looks (and so holds the lock for an instant) just now."""
        import fcntl

        project.home.create()
        dead = os.fork()
        if dead == 0:
            os._exit(0)
        os.waitpid(dead, 0)
        project.home.engine_lock.write_text(f"{dead}\n")
        with project.home.engine_lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            release = threading.Timer(0.05, lambda: fcntl.flock(file, fcntl.LOCK_UN))
            release.start()
            with engine_lock(project.home):
                assert running_engine(project.home) == os.getpid()
            release.join()

    def test_lock_with_many_engines_at_once_admits_one(self, project: Project) -> None:
        barrier, won, lost = threading.Barrier(8), [], []
        done = threading.Event()

        def compete() -> None:
            barrier.wait()
            with ExitStack() as stack:
                try:
                    stack.enter_context(engine_lock(project.home))
                except EngineAlreadyRunning:
                    lost.append(1)
                else:
                    won.append(1)
                    done.wait(100)
                if len(lost) == 7:
                    done.set()

        threads = [threading.Thread(target=compete) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(won), len(lost)) == (1, 7)


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
    assert engine.executor._workers == []  # type: ignore[attr-defined]


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
