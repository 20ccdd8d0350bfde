"""The client of the API server, and a checkpoint that a serving process follows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.rest import RestApi, rest_api
from trainflow import Client, open_checkpoint
from trainflow.client import ApiRefused, ServerUnreachable
from trainflow.errors import ArtifactCorrupt, InputError
from trainflow.serving import OpenCheckpoint


@pytest.fixture
def rest(tmp_path: Path) -> Iterator[RestApi]:
    with rest_api(tmp_path) as served:
        yield served


@pytest.fixture
def client(rest: RestApi) -> Client:
    return Client(rest.api.url)


def test_client_lists_triggers_and_waits(client: Client, rest: RestApi) -> None:
    assert [(dag.dag_id, dag.chain) for dag in client.dags()] == [("d", None), ("flights", "flights/main/main")]
    run = client.trigger("d", {"x": 1}, note="by hand")
    assert (run.state, run.conf, run.has_ended) == ("queued", {"x": 1}, False)
    assert [each.run_id for each in client.runs("d")] == ["r1", "r2", run.run_id]
    assert [each.run_id for each in client.runs(state="failed")] == ["r1"]
    assert client.wait(client.run("d", "r1")).state == "failed"
    with pytest.raises(TimeoutError, match="is queued after 0 s"):
        client.wait(run, timeout_seconds=0)
    assert client.pause("d").is_paused
    assert rest.plane.database.is_sqlite


def test_client_says_what_the_server_says(client: Client) -> None:
    with pytest.raises(ApiRefused, match=r"nothing.*GET /api/v1/dags lists what there is") as refused:
        client.trigger("nothing")
    assert (refused.value.status, refused.value.title) == (404, "DagNotFound")
    with pytest.raises(InputError, match="names no chain"):
        client.chain("a/b/c/d")
    with pytest.raises(InputError, match="exclude each other"):
        client.checkpoint("flights", alias="champion", number=1)


def test_client_of_a_server_that_is_not_there_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainflow.client._PAUSE_SECONDS", 0.0)
    with pytest.raises(ServerUnreachable, match=r"http://127\.0\.0\.1:1 cannot be reached"):
        Client("http://127.0.0.1:1").dags()


def test_client_takes_a_checkpoint_out(client: Client, tmp_path: Path) -> None:
    assert client.chain("flights").head_number == 3
    found = client.checkpoint("flights")
    assert (found.chain, found.number, found.size) == ("flights/main/main", 3, 10)
    assert repr(found) == f"RemoteCheckpoint('flights/main/main', number=3, id={found.id!r}, size=10)"
    folder = found.download(tmp_path / "out" / "model")
    assert (folder / "model.bin").read_bytes() == b"weights"
    assert (folder / "parts" / "a.txt").read_bytes() == b"one"
    with pytest.raises(InputError, match="is not empty"):
        found.download(folder)


def test_download_that_is_not_what_was_committed_leaves_nothing(client: Client, rest: RestApi, tmp_path: Path) -> None:
    found = client.checkpoint("flights")
    path = next((rest.root / "checkpoints").rglob(f"artifacts/{found.id}/model.bin"))
    path.chmod(0o644)
    path.write_bytes(b"weightz")
    with pytest.raises(ArtifactCorrupt, match="is not what was committed"):
        found.download(tmp_path / "out")
    assert not [each for each in tmp_path.iterdir() if each.name.startswith((".out", "out"))]


def test_open_checkpoint_follows_its_alias(client: Client, rest: RestApi, tmp_path: Path) -> None:
    def promote(number: int) -> None:
        body = {"checkpoint": str(number), "alias": "champion", "dry_run": False}
        client.send("POST", "/chains/flights/main/main/promote", body)

    promote(1)
    told: list[tuple[int, bytes]] = []

    def on_move(moved: OpenCheckpoint) -> None:
        told.append((moved.number, (moved.path / "model.bin").read_bytes()))

    kept = tmp_path / "served"
    with open_checkpoint(
        "flights", alias="champion", url=client.url, folder=kept, on_move=on_move, poll_seconds=3600
    ) as served:
        assert (served.number, served.look()) == (1, False)
        assert repr(served).startswith("OpenCheckpoint('flights', alias='champion', number=1, path=")
        promote(3)
        first = served.path
        assert served.look()
        assert (told, served.number, first.is_dir()) == ([(3, b"weights")], 3, True)
        promote(2)
        assert served.look()
        assert sorted(int(each.name.partition("-")[0]) for each in kept.iterdir()) == [2, 3]


def test_open_checkpoint_of_an_alias_that_is_none_says_so(client: Client) -> None:
    with pytest.raises(ApiRefused, match="has no alias @champion"):
        open_checkpoint("flights", alias="champion", url=client.url)
