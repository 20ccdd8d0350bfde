"""A whole engine and an API server in the process of a test, over the project of the executor contract."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Row

from trainflow.api.execution_server import ExecutionServer
from trainflow.api.server import ApiServer
from trainflow.api.web_server import WebServer
from trainflow.clock import SystemClock
from trainflow.engine.engine import Engine
from trainflow.executors.executor import Executor
from trainflow.messages.workload import ExecuteTask
from trainflow.metadata import run_creation
from trainflow.metadata.queries import attempt_queries, run_queries, task_queries, xcom_queries
from trainflow.settings.load import load_settings
from trainflow.settings.project import MARKER, Project, project_at
from trainflow.states import RUN_FINISHED, DagRunType, TriggeredBy
from trainflow.testing.contract_tasks import CODE, PIPELINE
from trainflow.testing.processes import DEADLINE_SECONDS

#: attempts are lost after this long without a heartbeat, in seconds: on a busy machine one that lives may be late
LOST_AFTER_SECONDS = 30.0
#: while time passes, an engine's clock is moved this often, and so far, in seconds: others have been heard in between,
#: and it has not stood still for longer than it believes itself
_STEP_EVERY, _STEP = 0.5, LOST_AFTER_SECONDS / 3


class MovedClock(SystemClock):
    """The machine's clock, moved forward by a test: what is due after an hour is due at once, after `advance`."""

    def __init__(self) -> None:
        self._moved = timedelta()

    def now(self) -> datetime:
        return super().now() + self._moved

    def monotonic(self) -> float:
        return super().monotonic() + self._moved.total_seconds()

    def advance(self, by: timedelta) -> None:
        """Move forward by `by`."""
        self._moved += by


class ContractEngine:
    """An engine that runs while a test waits for something. `delivered`: what its executor was handed, in order."""

    def __init__(self, engine: Engine, clock: MovedClock) -> None:
        self.engine = engine
        self._clock = clock
        self._name = engine.settings.executor.default
        self.delivered: list[ExecuteTask] = []
        #: what is done with a workload instead of handing it over
        self.intercept: Callable[[ExecuteTask], bool] = lambda _workload: False
        self._runs = 0
        hand_over = self.executor.queue_workload

        def queue_workload(workload: ExecuteTask) -> None:
            self.delivered.append(workload)
            if not self.intercept(workload):
                hand_over(workload)

        self.executor.queue_workload = queue_workload  # type: ignore[method-assign]

    @property
    def root(self) -> Path:
        """The folder of the project."""
        return self.engine.project.root

    @property
    def executor(self) -> Executor:
        """The executor under test."""
        assert self.engine.executor is not None
        return self.engine.executor[self._name]

    def until(self, condition: Callable[[], Any]) -> None:
        """Let the engine turn until the condition is true."""
        deadline = time.monotonic() + DEADLINE_SECONDS

        def enough() -> bool:
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {DEADLINE_SECONDS:g} s in vain:\n{self.describe()}")
            return bool(condition())

        self.engine.run(enough)

    def turn(self, seconds: float) -> None:
        """Let the engine turn for a while: for what must not happen."""
        end = time.monotonic() + seconds
        self.engine.run(lambda: time.monotonic() > end)

    def pass_time(self, seconds: float) -> None:
        """Let the engine turn for so many seconds of its own clock, which runs faster meanwhile."""
        end = self._clock.monotonic() + seconds
        self.pass_time_until(lambda: self._clock.monotonic() > end)

    def pass_time_until(self, condition: Callable[[], Any]) -> None:
        """`until`, with the engine's clock running faster: for what happens when nothing is heard for long."""
        moved = time.monotonic()

        def look() -> bool:
            nonlocal moved
            if time.monotonic() - moved >= _STEP_EVERY:
                self._clock.advance(timedelta(seconds=_STEP))
                moved = time.monotonic()
            return bool(condition())

        self.until(look)

    def read(self, path: str = PIPELINE) -> None:
        """Have a pipeline file read."""
        answers: list[Any] = []
        self.engine.on_parsed = lambda _path, problem: answers.append(problem)
        assert self.engine.dag_processor is not None
        self.engine.dag_processor.add(self.root / path)
        self.until(lambda: answers)
        assert answers[0] is None, answers[0]

    def trigger(self, dag_id: str) -> int:
        """Queue a run."""
        self._runs += 1
        with self.engine.database.transaction() as connection:
            created = run_creation.create(
                connection,
                dag_id=dag_id,
                run_id=f"{self.engine.service_id}_{self._runs}",
                run_type=DagRunType.MANUAL,
                triggered_by=TriggeredBy.TEST,
                conf={},
                now=self.engine.clock.now(),
            )
        self.engine.reactor.wake()
        return created

    def task(self, run: int) -> Row[Any]:
        """The one task of a run."""
        with self.engine.database.reading() as connection:
            return task_queries.rows_of_run(connection, run)[0]

    def is_running(self, run: int) -> bool:
        """Whether the task of a run was begun."""
        with self.engine.database.reading() as connection:
            rows = task_queries.rows_of_run(connection, run)
        return bool(rows) and rows[0].state == "running"

    def finish(self, run: int) -> str:
        """Wait for the end of a run; how it ended."""
        self.until(lambda: self._state(run) in RUN_FINISHED)
        return self._state(run)

    def _state(self, run: int) -> str:
        with self.engine.database.reading() as connection:
            return str(run_queries.by_id(connection, run).state)

    def outcomes(self, run: int) -> list[str | None]:
        """How the attempts of the run's task have ended, in order."""
        return [each.outcome for each in self.attempts(run)]

    def attempts(self, run: int) -> list[Row[Any]]:
        """The attempts of the run's task, in order."""
        row = self.task(run)
        with self.engine.database.reading() as connection:
            return attempt_queries.of_task(connection, row.id)

    def xcom(self, run: int) -> Any:
        """What the run's task returned."""
        with self.engine.database.reading() as connection:
            return xcom_queries.of_run(connection, run)[self.task(run).task_id, "return_value"]

    def describe(self) -> str:
        """Where everything is."""
        with self.engine.database.reading() as connection:
            runs = run_queries.listing(connection, limit=10)
        return "\n".join(
            f"{run.dag_id} {run.state} {self.task(run.id).state} {self.task(run.id).problem} {self.outcomes(run.id)}"
            for run in runs
        )


def lay_out_project(folder: Path, executor: str, port: int, *, name: str = "tested", api: str = "") -> Project:
    """A project whose tasks go to the executor under test, which is called `name`. `executor`: its table, as TOML, and
    `api`: what else there is to say of the API server."""
    toml = f"""
[executor]
default = "{name}"
[executors]
{name} = {executor}
[engine]
heartbeat_seconds = 0.2
poll_seconds = 0.5
stop_grace_seconds = 2.0
[workers]
heartbeat_seconds = 0.2
lost_after_seconds = {LOST_AFTER_SECONDS}
[api]
port = {port}
{api}
[tracking]
enabled = false
"""
    for name, text in ((MARKER.as_posix(), toml), (PIPELINE, CODE)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return project_at(folder)


@contextmanager
def contract_engine(project: Project) -> Iterator[ContractEngine]:
    """An engine of the project, which has read its pipeline."""
    clock = MovedClock()
    engine = Engine(project, load_settings(project), clock=clock)
    with engine.running():
        made = ContractEngine(engine, clock)
        made.read()
        yield made


@contextmanager
def contract_api(project: Project, listener: socket.socket) -> Iterator[None]:
    """An API server of the project, in a thread."""
    with api_in_thread(ApiServer(project, load_settings(project), SystemClock(), listener)):
        yield


@contextmanager
def api_in_thread(server: ApiServer) -> Iterator[None]:
    """Have an API server answer while the block lasts: its two processes are threads here."""
    server.prepare()
    try:
        with _in_thread(server.web, server.web_listener), _in_thread(server.execution, server.listener):
            try:
                yield
            finally:
                # both end side by side
                server.web.request_stop()
    finally:
        server.close()


@contextmanager
def _in_thread(server: ExecutionServer | WebServer, listener: socket.socket) -> Iterator[None]:
    ready, failed = threading.Event(), []

    def serve() -> None:
        try:
            server.run(listener, ready.set)
        except BaseException as error:
            failed.append(error)
            ready.set()

    thread = threading.Thread(target=serve, name=type(server).__name__)
    thread.start()
    assert ready.wait(DEADLINE_SECONDS)
    try:
        assert not failed, failed
        yield
    finally:
        server.request_stop()
        thread.join(DEADLINE_SECONDS)
        assert not thread.is_alive()


def listening(host: str = "127.0.0.1") -> socket.socket:
    """A socket on a free port."""
    listener = socket.socket()
    listener.bind((host, 0))
    listener.listen(128)
    return listener
