"""A project with a chain and runs, served: what tests of the REST API ask."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from tests.support.api import Answer, RunningApi, running_api
from tests.support.control_plane import ControlPlane, control_plane, empty_task
from trainflow.checkpoints.chain import ChainKey
from trainflow.messages.execution_api import OutcomeState, XComItem
from trainflow.messages.workload import DagSource
from trainflow.metadata.queries import dag_queries
from trainflow.serialization.document import encode
from trainflow.settings.model import ApiSettings, Settings, TrackingSettings
from trainflow.storage.local import LocalStore
from trainflow.testing.chains import ChainWriter, split_of
from trainflow.workspace.pipelines import read_pipeline
from trainflow.workspace.workspace import Workspace

YAML = """
pipeline: flights
samples:
  path: "data/date={start:%Y-%m-%d}/"
  length: 1d
  start: 2013-01-01
  ready: {min_files: 1}
split: {partitions: 1}
train: {command: ["true"]}
retention: {keep_latest: 2}
"""


class RestApi(NamedTuple):
    """A server, and shorthands to ask it."""

    api: RunningApi
    plane: ControlPlane
    root: Path

    def get(self, path: str, status: int = 200, **headers: str) -> Any:
        """The body of an answer below /api/v1."""
        return self.ask("GET", path, status=status, **headers).body

    def post(self, path: str, body: Any = None, status: int = 200, **headers: str) -> Any:
        """The same of something that is done."""
        return self.ask("POST", path, body, status=status, **headers).body

    def patch(self, path: str, body: Any, status: int = 200, **headers: str) -> Any:
        """The same of something that is changed."""
        return self.ask("PATCH", path, body, status=status, **headers).body

    def ask(self, method: str, path: str, body: Any = None, *, status: int | None = None, **headers: str) -> Answer:
        """One request. Raises AssertionError for another status than `status`."""
        content = None if body is None else msgspec.json.encode(body)
        if content is not None:
            headers.setdefault("Content-Type", "application/json")
        answer = self.api.ask(method, f"/api/v1{path}", content, **headers)
        assert status in (None, answer.status), answer
        return answer


def write_pipeline(root: Path) -> None:
    """The pipeline `flights` in a project."""
    (root / "pipelines").mkdir(exist_ok=True)
    (root / "configs").mkdir(exist_ok=True)
    (root / "configs" / "trainflow.toml").write_text("")
    (root / "pipelines" / "flights.yaml").write_text(YAML)


def write_chain(root: Path) -> ChainWriter:
    """The chain flights/main/main in the store of a project: three checkpoints of days 0 to 8, day 5 is a hole."""
    write_pipeline(root)
    writer = ChainWriter(LocalStore(root / "checkpoints"), root / "scratch", ChainKey("flights"))
    writer.commit(split=split_of(0, 4), metrics={"auc": 0.6})
    writer.commit(split=split_of(4, 3, [5]), metrics={"auc": 0.7}, evaluation={"auc": 0.65})
    writer.commit(split=split_of(7, 2), files={"model.bin": b"weights", "parts/a.txt": b"one"})
    return writer


@contextmanager
def rest_api(root: Path, *, database_url: str | None = None, **api: Any) -> Iterator[RestApi]:
    """A server over a project with the chain of `write_chain` and the DAG `d` (`b` after `a`), of which one run has
    ended and one is under way; `a` handed something over."""
    write_chain(root)
    settings = Settings(api=ApiSettings(**api), tracking=TrackingSettings(enabled=False))
    with control_plane(root, settings=settings, database_url=database_url) as plane:
        plane.add_dag("d", empty_task("a"), empty_task("b", "a"), tags=["x"], description="two tasks")
        know_pipeline(plane)
        _two_runs(plane)
        with running_api(plane, plane.settings) as running:
            yield RestApi(running, plane, root)


def know_pipeline(plane: ControlPlane) -> None:
    """As if an engine had read the file."""
    with Workspace(plane.project, plane.settings) as workspace:
        (document,) = read_pipeline(workspace, plane.project.root / "pipelines/flights.yaml", {}).documents
    with plane.database.transaction() as connection:
        source = DagSource("pipelines/flights.yaml")
        dag_queries.store(connection, document, encode(document), source, plane.clock.now())


def _two_runs(plane: ControlPlane) -> None:
    plane.add_run("d", "r1")
    (work,) = plane.tick()
    xcom = XComItem("return_value", msgspec.Raw(b'{"rows": 3, "password": "hidden"}'))
    plane.play(work, xcoms=[xcom])
    (work,) = plane.tick()
    plane.play(work, OutcomeState.FAILED)
    plane.tick()
    plane.add_run("d", "r2")
    (work,) = plane.tick()
    plane.claim(work)
    log = plane.project.home.attempt_log("d", "r2", "a", work.key.attempt_id)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("first line\nsecond line\n")
