"""A pipeline with stages over chains that are as long as a test wants them, and its metadata database."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from trainflow.actions.first_runs import begin
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.entries import Checkpoint
from trainflow.execution.parse_main import parse_file
from trainflow.messages.workload import DagSource, ParseFile
from trainflow.metadata import run_creation
from trainflow.metadata.database import Database
from trainflow.metadata.models import TaskInstanceTable
from trainflow.metadata.queries import dag_queries, run_queries
from trainflow.settings.model import Settings
from trainflow.settings.project import Project
from trainflow.states import DagRunState, DagRunType, TriggeredBy
from trainflow.storage.local import LocalStore
from trainflow.testing.chains import ChainWriter
from trainflow.workspace.workspace import Workspace

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TASK = TaskInstanceTable.table
FILE = "pipelines/p.yaml"
YAML = """\
pipeline: p
samples: {path: "d/{start:%Y-%m-%d}/", length: 1d, start: 2013-01-01, end: 2014-01-01}
train: {command: ["true"]}
stages:
"""
LINE = "  base:\n  fine: {init_from: {stage: base}}\n"


class Home:
    """A project with a database, and chains that are as long as a test wants them."""

    def __init__(self, project: Project, database: Database) -> None:
        self.project = project
        self.database = database
        self.store = LocalStore(project.root / "checkpoints")
        self._writers: dict[str, ChainWriter] = {}

    def read(self, stages: str, *, branch: str | None = None, now: datetime = NOW) -> None:
        (self.project.root / FILE).write_text(YAML + stages)
        self.overrides = {"branch": branch} if branch else {}
        source = DagSource(FILE, self.overrides)
        request = ParseFile(source, str(self.project.root), str(self.project.home.path))
        with self.database.transaction() as connection:
            result = parse_file(request).result
            assert dag_queries.store_result(connection, source, result, now, is_there=lambda _: True) is None

    def writer(self, stage: str) -> ChainWriter:
        scratch = self.project.root / "scratch" / stage
        return self._writers.setdefault(stage, ChainWriter(self.store, scratch, ChainKey("p", stage)))

    def commit(self, stage: str, days: int = 1, run_id: str | None = None) -> Checkpoint:
        return self.writer(stage).commit(days=days, **({"run_id": run_id} if run_id else {}))

    def begin(self) -> dict[str, dict[str, Any]]:
        """DAG → conf of the run that was begun."""
        before = {row.id for row in self.runs()}
        self.followings = begin(
            Workspace(self.project, Settings(), self.database), DagSource(FILE, self.overrides), NOW
        )
        return {row.dag_id: row.conf for row in reversed(self.runs()) if row.id not in before}

    def runs(self) -> list[Any]:
        with self.database.reading() as connection:
            return run_queries.listing(connection)

    def run(self, dag_id: str, run_id: str, *, end: bool = False) -> int:
        """A run that is under way, or has ended."""
        with self.database.transaction() as connection:
            key = run_creation.create(
                connection,
                dag_id=dag_id,
                run_id=run_id,
                run_type=DagRunType.MANUAL,
                triggered_by=TriggeredBy.TEST,
                conf={},
                now=NOW,
            )
            row = run_queries.by_id(connection, key)
            run_queries.start(connection, row, dag_queries.Versions(), NOW, channels=())
        if end:
            self.end(key)
        return key

    def end(self, key: int) -> None:
        with self.database.transaction() as connection:
            row = run_queries.by_id(connection, key)
            run_queries.finish(connection, row, to=DagRunState.SUCCESS, now=NOW, note=None, channels=())
