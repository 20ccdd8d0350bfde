"""A throw-away project with an engine in it, and how a figure is printed."""

from __future__ import annotations

import shutil
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from trainflow.clock import SystemClock
from trainflow.engine.engine import Engine
from trainflow.engine.lock import engine_lock
from trainflow.identifiers import manual_run_id
from trainflow.metadata import run_creation
from trainflow.metadata.queries import dag_queries
from trainflow.metadata.queries.run_queries import RUN
from trainflow.settings.api_address import listen
from trainflow.settings.load import load_settings
from trainflow.settings.project import project_at
from trainflow.states import RUN_FINISHED, DagRunType, TriggeredBy


@contextmanager
def throw_away_project(settings: str = "", **pipelines: str) -> Iterator[Path]:
    """A project with these Python pipelines; gone afterwards."""
    root = Path(tempfile.mkdtemp(prefix="trainflow-benchmark-"))
    try:
        (root / "configs").mkdir()
        (root / "configs" / "trainflow.toml").write_text(f"[tracking]\nenabled = false\n{settings}")
        (root / "pipelines").mkdir()
        for name, text in pipelines.items():
            (root / "pipelines" / f"{name}.py").write_text(text)
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


class Bench:
    """An engine, and runs in it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def load(self, name: str) -> None:
        """Read a pipeline."""
        parsed: list[Any] = []
        self.engine.on_parsed = lambda _path, problem: parsed.append(problem)
        assert self.engine.dag_processor is not None
        self.engine.dag_processor.add(self.engine.project.root / "pipelines" / f"{name}.py")
        self.engine.run(lambda: bool(parsed))
        if parsed[0] is not None:
            raise RuntimeError(parsed[0].message)

    def trigger(self, dag_id: str) -> int:
        """Queue a run. Returns its key."""
        clock = self.engine.clock
        with self.engine.database.transaction() as connection:
            created = run_creation.create(
                connection,
                dag_id=dag_id,
                run_id=manual_run_id(clock.now(), str(clock.monotonic())),
                run_type=DagRunType.MANUAL,
                triggered_by=TriggeredBy.TEST,
                conf={},
                now=clock.now(),
            )
        self.engine.reactor.wake()
        return created

    def run_to_end(self, root_id: int) -> list[Any]:
        """Turn until the run and all that came of it have ended. Returns the runs, in order."""
        over = False

        def look() -> None:
            nonlocal over
            with self.engine.database.reading() as connection:
                over = all(row.state in RUN_FINISHED for row in _came_of(connection, root_id))
            if not over:
                self.engine.reactor.call_later(0.05, look)

        look()
        self.engine.run(lambda: over)
        with self.engine.database.reading() as connection:
            rows = _came_of(connection, root_id)
        failed = [row for row in rows if row.state != "success"]
        if failed:
            raise RuntimeError(f"{len(failed)} runs failed")
        return rows

    def document(self, dag_id: str) -> Any:
        """The DAG as the scheduler sees it."""
        with self.engine.database.reading() as connection:
            version_id = dag_queries.get(connection, dag_id).version_id
            return self.engine.versions.get(connection, version_id)[0]


@contextmanager
def bench(settings: str = "", *, serves: bool = False, **pipelines: str) -> Iterator[Bench]:
    """An engine over a throw-away project with these pipelines, all read; with an API server beside it where it
    `serves`."""
    with throw_away_project(settings, **pipelines) as root:
        project = project_at(root)
        with engine_lock(project.home):
            chosen = load_settings(project)
            listener = listen(chosen.api) if serves else None
            engine = Engine(project, chosen, clock=SystemClock(), api_listener=listener)
            with engine.running():
                made = Bench(engine)
                for name in pipelines:
                    made.load(name)
                yield made


def show(what: str, values: Sequence[float], unit: str, budget: str) -> None:
    """Print a figure: median, smallest and largest, beside its budget."""
    median, low, high = statistics.median(values), min(values), max(values)
    print(f"{what:<52} {median:9.2f} {unit:<8} ({low:.2f} … {high:.2f}, n={len(values)})   budget {budget}", flush=True)


def _came_of(connection: Connection, root_id: int) -> list[Any]:
    """The run a person started and every run that came of it, in order."""
    return list(connection.execute(select(RUN).where(RUN.c.root_id == root_id).order_by(RUN.c.id)))
