"""Events on their way: from a run's end to a server or a file, whatever fails."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.integration.execution_requests import O, xcom
from tests.support.control_plane import ControlPlane, control_plane, empty_task
from tests.support.webhook import Receiver, webhook
from trainflow.actions.runs import cancel
from trainflow.engine.openlineage_dispatcher import OpenLineageDispatcher
from trainflow.executors.reactor import Reactor
from trainflow.metadata.queries import outbox_queries
from trainflow.metadata.queries.outbox_queries import OutboxOfChannel
from trainflow.samples.spec import Samples
from trainflow.serialization.document import ChainDocument
from trainflow.settings.load import load_settings
from trainflow.settings.model import Settings, TrackingSettings
from trainflow.settings.openlineage import OpenLineageSettings
from trainflow.settings.outbox_channels import OutboxChannel, channels_of
from trainflow.workspace.workspace import Workspace

SPLIT = {
    "start": "2025-01-01T00:00:00+00:00",
    "end": "2025-01-03T00:00:00+00:00",
    "partitions": 2,
    "holes": 0,
    "files": 2,
    "digest": "sha256:ab",
    "rows": 10,
    "bytes": 100,
    "split": {"partitions": [{"start": "2025-01-01T00:00:00+00:00", "fingerprint": "f1"}]},
}
COMMITTED = {
    "pipeline": "flights",
    "stage": "main",
    "branch": "main",
    "id": "c2",
    "number": 2,
    "watermark": "2025-01-03T00:00:00+00:00",
    "uri": "file:///c/2",
    "promoted": [],
}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with webhook() as found:
        yield found


def settings_for(transport: dict[str, Any]) -> Settings:
    return Settings(
        tracking=TrackingSettings(enabled=True), openlineage=OpenLineageSettings(transport=transport, namespace="prod")
    )


class LineageRuns:
    """A chain whose runs are played, and the dispatcher of their events."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        samples = Samples(
            path="data/date={start:%Y-%m-%d}/", length_seconds=86400, start=datetime(2025, 1, 1, tzinfo=UTC)
        )
        chain = ChainDocument("flights", "main", "main", "checkpoints", samples=samples)
        tasks = [empty_task("samples", role="samples"), empty_task("commit", "samples", role="commit")]
        plane.add_dag("flights", *tasks, chain=chain)
        self.reactor = Reactor(plane.clock)
        self.dispatcher = OpenLineageDispatcher(
            plane.database,
            self.reactor,
            clock=plane.clock,
            versions=plane.versions,
            project=plane.project,
            settings=plane.settings,
        )

    def play(self, run_id: str = "r1", *, fails: bool = False) -> int:
        run = self.plane.add_run("flights", run_id)
        (work,) = self.plane.tick()
        self.plane.play(work, xcoms=[xcom("return_value", SPLIT)])
        (work,) = self.plane.tick()
        if fails:
            self.plane.play(work, O.FAILED)
        else:
            self.plane.play(work, xcoms=[xcom("return_value", COMMITTED)])
        self.plane.tick()
        return run

    def deliver(self) -> None:
        self.dispatcher.drain(30, lambda: False)

    def waiting(self, channel: OutboxChannel = OutboxChannel.OPENLINEAGE) -> int:
        with self.plane.database.reading() as connection:
            return OutboxOfChannel(channel).undelivered(connection).waiting

    def close(self) -> None:
        self.dispatcher.close()
        self.reactor.close()


@pytest.fixture
def runs(tmp_path: Path, receiver: Receiver) -> Iterator[LineageRuns]:
    settings = settings_for({"type": "http", "url": receiver.url, "endpoint": "lineage"})
    with control_plane(tmp_path, settings=settings) as plane:
        made = LineageRuns(plane)
        yield made
        made.close()


def types_of(receiver: Receiver) -> list[str]:
    return [each["eventType"] for each in receiver.messages]


def test_run_is_told_when_it_begins_and_ends(runs: LineageRuns, receiver: Receiver, tmp_path: Path) -> None:
    runs.play()
    runs.deliver()
    assert types_of(receiver) == ["START", "COMPLETE"]
    began, ended = receiver.messages
    assert began["run"]["runId"] == ended["run"]["runId"]
    assert (ended["job"]["namespace"], ended["job"]["name"]) == ("prod", "flights")
    (table,) = ended["inputs"]
    assert (table["namespace"], table["name"]) == ("file", str(tmp_path / "data"))
    assert table["inputFacets"]["trainflow_split"]["listed"][0]["fingerprint"] == "f1"
    (checkpoint,) = ended["outputs"]
    assert checkpoint["name"] == str(tmp_path / "checkpoints/flights/main/main")
    assert checkpoint["facets"]["version"]["datasetVersion"] == "c2"


def test_run_that_fails_or_is_cancelled_is_told_so(runs: LineageRuns, receiver: Receiver) -> None:
    runs.play(fails=True)
    runs.plane.add_run("flights", "r2")
    runs.plane.tick()
    workspace = Workspace(runs.plane.project, runs.plane.settings, runs.plane.database)
    cancel(workspace, "flights", "r2", runs.plane.clock.now(), note="enough")
    runs.deliver()
    assert types_of(receiver) == ["START", "FAIL", "START", "ABORT"]
    assert "it failed" in receiver.messages[1]["run"]["facets"]["errorMessage"]["message"]
    assert "enough" in receiver.messages[3]["run"]["facets"]["errorMessage"]["message"]


def test_server_that_is_away_is_told_later_and_holds_up_no_other_channel(runs: LineageRuns, receiver: Receiver) -> None:
    receiver.refuse = [503]
    runs.play()
    runs.deliver()
    assert (types_of(receiver), runs.waiting()) == ([], 2)
    with runs.plane.database.transaction() as connection:
        mlflow = OutboxOfChannel(OutboxChannel.MLFLOW)
        for row in mlflow.pending(connection, runs.plane.clock.now()):
            outbox_queries.delivered(connection, row.id, runs.plane.clock.now())
    assert runs.waiting(OutboxChannel.MLFLOW) == 0
    runs.plane.clock.advance(timedelta(minutes=1))
    runs.deliver()
    assert (types_of(receiver), runs.waiting()) == (["START", "COMPLETE"], 0)


def test_event_that_is_refused_is_given_up_and_what_follows_is_told(runs: LineageRuns, receiver: Receiver) -> None:
    receiver.refuse = [422]
    runs.play()
    runs.deliver()
    assert types_of(receiver) == ["COMPLETE"]
    with runs.plane.database.reading() as connection:
        found = OutboxOfChannel(OutboxChannel.OPENLINEAGE).undelivered(connection)
    assert (found.waiting, found.refused) == (0, 1)
    assert "127.0.0.1 answered 422" in (found.refused_reason or "")


@pytest.mark.parametrize("append", [True, False])
def test_file_has_an_event_a_line_or_a_file_for_each(tmp_path: Path, append: bool) -> None:
    transport = {"type": "file", "log_file_path": "lineage/events", "append": append}
    with control_plane(tmp_path, settings=settings_for(transport)) as plane:
        runs = LineageRuns(plane)
        runs.play()
        runs.plane.clock.advance(timedelta(seconds=1))
        runs.deliver()
        runs.close()
    files = sorted((tmp_path / "lineage").iterdir())
    assert [path.name for path in files] == ["events"] or not append
    lines = [line for path in files for line in path.read_text().splitlines()]
    assert [json.loads(line)["eventType"] for line in lines] == ["START", "COMPLETE"]


def test_nothing_is_written_for_a_channel_that_is_off(tmp_path: Path) -> None:
    off = msgspec.structs.replace(Settings(), tracking=TrackingSettings(enabled=False))
    with control_plane(tmp_path, settings=off) as plane:
        assert channels_of(plane.settings) == ()
        plane.add_dag("d", empty_task("a"), chain=ChainDocument("d", "main", "main", "checkpoints"))
        plane.add_run("d")
        plane.tick()
        with plane.database.reading() as connection:
            assert connection.execute(outbox_queries.OUTBOX.select()).all() == []


ENVIRONMENT = {"OPENLINEAGE_URL": "http://marquez:5000", "OPENLINEAGE_API_KEY": "k", "OPENLINEAGE_NAMESPACE": "ns"}


@pytest.mark.parametrize(
    ("environ", "file", "expected"),
    [
        pytest.param({}, "", ({}, "default", False), id="nothing"),
        pytest.param(
            ENVIRONMENT,
            "",
            (
                {"type": "http", "url": "http://marquez:5000", "auth": {"type": "api_key", "apiKey": "k"}},
                "ns",
                True,
            ),
            id="simple variables",
        ),
        pytest.param(
            {"OPENLINEAGE__TRANSPORT__TYPE": "file", "OPENLINEAGE__TRANSPORT__LOG_FILE_PATH": "a"},
            "",
            ({"type": "file", "log_file_path": "a"}, "default", True),
            id="variables by key",
        ),
        pytest.param(
            ENVIRONMENT,
            '[openlineage]\ntransport = {type = "file", log_file_path = "b"}\n',
            ({"type": "file", "log_file_path": "b"}, "ns", True),
            id="the file first",
        ),
        pytest.param(
            {**ENVIRONMENT, "OPENLINEAGE_DISABLED": "true"},
            '[openlineage]\ntransport = {type = "file", log_file_path = "b"}\n',
            ({"type": "file", "log_file_path": "b"}, "ns", False),
            id="disabled",
        ),
    ],
)
def test_openlineages_own_variables_are_understood(
    tmp_path: Path, environ: dict[str, str], file: str, expected: tuple[Any, ...]
) -> None:
    with control_plane(tmp_path) as plane:
        plane.project.settings_file.parent.mkdir(exist_ok=True)
        plane.project.settings_file.write_text(file)
        found = load_settings(plane.project, environ).openlineage
    assert (found.transport, found.namespace, found.is_on) == expected


@pytest.mark.parametrize(
    ("transport", "said"),
    [
        ({"type": "htp", "url": "http://a"}, "did you mean 'http'"),
        ({"type": "http"}, "needs one that begins with http"),
        ({"type": "http", "url": "http://a", "retry": {}}, "has no 'retry'"),
        ({"type": "http", "url": "http://a", "auth": {"type": "jwt"}}, "auth: only"),
        ({"type": "http", "url": "http://a", "compression": "zip"}, "is not gzip"),
        ({"type": "http", "url": "http://a", "timeout": "x"}, "no number of seconds"),
        ({"type": "file"}, "needs log_file_path"),
        ({"type": "file", "log_file_path": "s3://a/b"}, "no path of this machine"),
    ],
)
def test_transport_that_cannot_be_used_is_refused_with_what_is_wrong(transport: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        OpenLineageSettings(transport=transport)
