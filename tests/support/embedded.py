"""A whole engine in the process of a test, over a project written for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Row

from trainflow.engine.engine import Engine
from trainflow.engine.lock import engine_lock
from trainflow.engine.startup import ALL_PARTS, Part
from trainflow.messages.workload import ParseProblem
from trainflow.metadata import run_creation
from trainflow.metadata.queries import attempt_queries, run_queries, task_queries, xcom_queries
from trainflow.settings.model import Settings
from trainflow.settings.project import Project
from trainflow.states import RUN_FINISHED, DagRunType, TriggeredBy
from trainflow.testing.contract_engine import MovedClock
from trainflow.testing.processes import DEADLINE_SECONDS


class Embedded:
    """An engine that runs while a test waits for something."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.parsed: dict[Path, list[ParseProblem | None]] = {}
        engine.on_parsed = self._parsed
        self._runs = 0

    def _parsed(self, path: Path, problem: ParseProblem | None) -> None:
        self.parsed.setdefault(path, []).append(problem)

    @property
    def project(self) -> Project:
        """The project of the engine."""
        return self.engine.project

    def advance(self, by: timedelta) -> None:
        """Have the clock of the engine, and of no other process, go on by `by`."""
        clock = self.engine.clock
        assert isinstance(clock, MovedClock)
        clock.advance(by)
        self.engine.reactor.wake()

    def until(self, condition: Callable[[], Any], what: str = "") -> None:
        """Let the engine turn until the condition is true."""
        deadline = time.monotonic() + DEADLINE_SECONDS

        def enough() -> bool:
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {DEADLINE_SECONDS:g} s for {what or condition}:\n{self.describe()}")
            return bool(condition())

        self.engine.run(enough)

    def load(self, name: str = "pipelines/p.py") -> ParseProblem | None:
        """Have a file read; what is wrong with it."""
        path = self.project.root / name
        assert self.engine.dag_processor is not None
        before = len(self.parsed.get(path, []))
        self.engine.dag_processor.add(path)
        self.until(lambda: len(self.parsed.get(path, [])) > before, f"{name} to be read")
        return self.parsed[path][-1]

    def trigger(self, dag_id: str, conf: dict[str, Any] | None = None) -> int:
        """Queue a run, as a person does."""
        self._runs += 1
        with self.engine.database.transaction() as connection:
            created = run_creation.create(
                connection,
                dag_id=dag_id,
                run_id=f"test{self._runs}",
                run_type=DagRunType.MANUAL,
                triggered_by=TriggeredBy.TEST,
                conf=conf or {},
                now=self.engine.clock.now(),
            )
        self.engine.reactor.wake()
        return created

    def finish(self, dag_run_id: int) -> str:
        """Wait for the end of a run; how it ended."""
        self.until(lambda: self.run(dag_run_id).state in RUN_FINISHED, f"the end of run {dag_run_id}")
        return str(self.run(dag_run_id).state)

    def execute(self, dag_id: str, conf: dict[str, Any] | None = None) -> int:
        """Trigger and finish; the run."""
        run = self.trigger(dag_id, conf)
        self.finish(run)
        return run

    def run(self, dag_run_id: int) -> Row[Any]:
        """The row of a run."""
        with self.engine.database.reading() as connection:
            return run_queries.by_id(connection, dag_run_id)

    def runs(self, dag_id: str) -> list[Row[Any]]:
        """The runs of a DAG in order."""
        with self.engine.database.reading() as connection:
            return list(reversed(run_queries.listing(connection, [dag_id], limit=10_000)))

    def reached(self, dag_id: str, number: int) -> bool:
        """Whether the DAG's run of this number has ended, and none came after it. Cheap: `until` asks at every turn."""
        with self.engine.database.reading() as connection:
            newest = run_queries.listing(connection, [dag_id], limit=1)
        return bool(newest) and newest[0].number == number and newest[0].state in RUN_FINISHED

    def tasks(self, dag_run_id: int) -> dict[str, Row[Any]]:
        """Task id → row."""
        with self.engine.database.reading() as connection:
            return {row.task_id: row for row in task_queries.rows_of_run(connection, dag_run_id)}

    def states(self, dag_run_id: int) -> dict[str, str | None]:
        """Task id → state."""
        return {task_id: row.state for task_id, row in self.tasks(dag_run_id).items()}

    def attempts(self, dag_run_id: int, task_id: str) -> list[Row[Any]]:
        """The attempts of a task, in order."""
        row = self.tasks(dag_run_id)[task_id]
        with self.engine.database.reading() as connection:
            return attempt_queries.of_task(connection, row.id)

    def xcoms(self, dag_run_id: int) -> dict[str, Any]:
        """Task id → what it returned."""
        with self.engine.database.reading() as connection:
            found = xcom_queries.of_run(connection, dag_run_id)
        return {task_id: value for (task_id, key), value in found.items() if key == "return_value"}

    def describe(self) -> str:
        """Where everything is, for a test that waited in vain."""
        with self.engine.database.reading() as connection:
            runs = run_queries.listing(connection, limit=10)
        lines = []
        for run in runs:
            tasks = {name: (row.state, row.problem) for name, row in self.tasks(run.id).items()}
            lines.append(f"{run.dag_id} {run.run_id} {run.state} {run.note} {tasks}")
        return "\n".join(lines)


def quiet(**sections: dict[str, Any]) -> Settings:
    """Settings without a mirror, and with what a test asks for: `quiet(engine={"poll_seconds": 1})`."""
    settings = Settings()
    changes: dict[str, Any] = {"tracking": {"enabled": False}, **sections}
    for section, values in changes.items():
        present = getattr(settings, section)
        changed = {**present, **values} if isinstance(present, dict) else msgspec.structs.replace(present, **values)
        settings = msgspec.structs.replace(settings, **{section: changed})
    return settings


@contextmanager
def embedded(
    project: Project, settings: Settings | None = None, *, parts: frozenset[Part] = ALL_PARTS
) -> Iterator[Embedded]:
    """An engine that owns the project's home. The settings file of the project is what processes of it read."""
    engine = Engine(project, settings or quiet(), clock=MovedClock(), parts=parts)
    with engine_lock(project.home), engine.running():
        yield Embedded(engine)
