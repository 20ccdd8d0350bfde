"""A project with a metadata database, for tests of `status` and `why`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update

from tests.support.command_line import CommandLine
from tests.support.fresh_schema import make_schema
from trainflow.checkpoints.chain import ChainKey
from trainflow.clock import SystemClock
from trainflow.execution.parse_main import parse_file
from trainflow.messages.workload import DagSource, ParseFile
from trainflow.metadata import run_creation
from trainflow.metadata.database import Database
from trainflow.metadata.queries import dag_queries, run_queries
from trainflow.metadata.queries.task_queries import TASK
from trainflow.serialization.document import decode
from trainflow.settings.model import Settings
from trainflow.settings.outbox_channels import OutboxChannel
from trainflow.settings.project import Project
from trainflow.states import DagRunState, DagRunType, TriggeredBy
from trainflow.storage.local import LocalStore
from trainflow.testing.chains import ChainWriter

NOW = SystemClock().now().replace(microsecond=0)


YAML = """
pipeline: days
samples:
  path: "data/date={start:%Y-%m-%d}/"
  length: 1d
  start: 2013-01-01
split: {partitions: 3}
train: {command: ["true"], pool: gpu, retries: 2}
"""


class Home(CommandLine):
    """A project with a database, driven as an engine drives it."""

    def __init__(self, project: Project, capsys: pytest.CaptureFixture[str]) -> None:
        super().__init__(project, capsys)
        self.project = project
        project.home.create()
        self.database = Database.of(project.home, Settings())
        make_schema(self.database)

    def read(self, name: str = "days.yaml") -> None:
        """Have a pipeline file read as the DAG processor does."""
        source = DagSource(f"pipelines/{name}")
        request = ParseFile(source, str(self.project.root), str(self.project.home.path))
        with self.database.transaction() as connection:
            for dag in parse_file(request).result.dags:
                data = bytes(dag.document)
                dag_queries.store(connection, decode(data), data, source, NOW)

    def start_run(self, run_id: str = "first", *, start: bool = True) -> int:
        with self.database.transaction() as connection:
            key = run_creation.create(
                connection,
                dag_id="days",
                run_id=run_id,
                run_type=DagRunType.MANUAL,
                triggered_by=TriggeredBy.TEST,
                conf={},
                now=NOW - timedelta(minutes=5),
            )
            if start:
                row = run_queries.by_id(connection, key)
                run_queries.start(
                    connection,
                    row,
                    dag_queries.Versions(),
                    NOW - timedelta(minutes=4),
                    channels=(OutboxChannel.MLFLOW,),
                )
        return key

    def task(self, run: int, task_id: str, state: str, **values: Any) -> int:
        """Put a task where its attempts would have brought it."""
        with self.database.transaction() as connection:
            connection.execute(
                update(TASK).where(TASK.c.dag_run_id == run, TASK.c.task_id == task_id).values(state=state, **values)
            )
            rows = connection.execute(TASK.select().where(TASK.c.dag_run_id == run, TASK.c.task_id == task_id)).all()
        return int(rows[0].id)

    def finish(self, run: int, to: DagRunState, note: str | None = None, seconds: float = 60.0) -> None:
        with self.database.transaction() as connection:
            row = run_queries.by_id(connection, run)
            ended = row.started_at + timedelta(seconds=seconds)
            run_queries.finish(connection, row, to=to, now=ended, note=note, channels=(OutboxChannel.MLFLOW,))

    def why(self) -> tuple[str, str]:
        answer = self.json("why", "days")
        return answer["kind"], answer["sentence"]


def publish(home: Home, *names: str) -> None:
    for name in names:
        folder = home.project.root / f"data/date={name}"
        folder.mkdir(parents=True)
        (folder / "part.parquet").write_bytes(b"not looked into")
        (folder / "_SUCCESS").touch()


def commit(home: Home, days: int, run_id: str, **more: Any) -> None:
    store = LocalStore(home.project.root / "checkpoints")
    ChainWriter(store, home.project.root / "scratch", ChainKey("days")).commit(days=days, run_id=run_id, **more)
