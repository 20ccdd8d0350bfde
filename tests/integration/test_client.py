"""The client of the API server, and a checkpoint that a serving process follows."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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
    with pytest.raises(ApiRefused, match=rf"^{client.url} says: no chain is called flight/.*GET /api/v1/chains, "):
        client.chain("flight")
    with pytest.raises(InputError, match="names no chain"):
        client.chain("a/b/c/d")
    with pytest.raises(InputError, match="exclude each other"):
        client.checkpoint("flights", alias="champion", number=1)


def test_client_of_a_server_that_is_not_there_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainflow.client._PAUSE_SECONDS", 0.0)
    with pytest.raises(ServerUnreachable, match=r"http://127\.0\.0\.1:1 cannot be reached.*'trainflow ui' in the"):
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


class CuttingProxy:
    """Hands requests on, and lets of each answer to a download only `most` bytes of the body pass; `ranges`: what was
    asked for."""

    def __init__(self, url: str, most: int) -> None:
        self._upstream = url.removeprefix("http://")
        self._most = most
        self.ranges: list[str | None] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                connection = http.client.HTTPConnection(proxy._upstream)
                connection.request("GET", self.path, headers=dict(self.headers))
                answer = connection.getresponse()
                body = answer.read()
                connection.close()
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    self.send_header(name, value)
                self.end_headers()
                if "/files/" in self.path:
                    proxy.ranges.append(self.headers["Range"])
                    body = body[: proxy._most]
                self.wfile.write(body)
                self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> CuttingProxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def test_download_that_is_cut_off_goes_on_where_it_was(
    rest: RestApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainflow.client._PAUSE_SECONDS", 0.0)
    with CuttingProxy(rest.api.url, most=2) as proxy:
        folder = Client(proxy.url).checkpoint("flights").download(tmp_path / "out")
    assert (folder / "model.bin").read_bytes() == b"weights"
    assert (folder / "parts" / "a.txt").read_bytes() == b"one"
    assert proxy.ranges == [None, "bytes=2-", "bytes=4-", "bytes=6-", None, "bytes=2-"]


def test_download_of_which_nothing_more_comes_is_given_up(
    rest: RestApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainflow.client._PAUSE_SECONDS", 0.0)
    with CuttingProxy(rest.api.url, most=0) as proxy:
        found = Client(proxy.url).checkpoint("flights")
        with pytest.raises(ServerUnreachable, match="is cut off after 0 bytes"):
            found.download(tmp_path / "out")
    assert len(proxy.ranges) == 4
    assert list(tmp_path.glob("*out*")) == []


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
