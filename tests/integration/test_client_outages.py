"""What a client makes of answers that are cut off, late, or of several pages."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import pytest

from trainflow import Client
from trainflow.client import ApiRefused, ServerUnreachable

RUN = {
    "dag_id": "d", "dag_run_id": "r1", "number": 1, "state": "success", "conf": {},
    "run_after": "2026-01-01T00:00:00Z",
}  # fmt: skip
STILL = {"title": "StillAtWork", "detail": "it is being answered", "what_to_do": "look", "status": 409}


class Said(NamedTuple):
    """An answer. `cut`: the connection ends before the last byte of it."""

    body: Any
    status: int = 200
    cut: bool = False


class Server:
    """Gives one answer after the other, the last one for ever; `asked`: path and key of each request."""

    def __init__(self) -> None:
        self.answers: list[Said] = []
        self.asked: list[tuple[str, str | None]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                server.asked.append((self.path, self.headers["Idempotency-Key"]))
                said = server.answers.pop(0) if len(server.answers) > 1 else server.answers[0]
                body = json.dumps(said.body).encode()
                self.send_response(said.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[:-1] if said.cut else body)
                self.close_connection = True

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr("trainflow.client._PAUSE_SECONDS", 0.0)
    with Server() as server:
        yield server


def test_answer_that_is_cut_off_is_asked_for_again(server: Server) -> None:
    server.answers = [Said(RUN, cut=True), Said(RUN)]
    assert Client(server.url).run("d", "r1").state == "success"
    server.answers = [Said(RUN, cut=True)]
    with pytest.raises(ServerUnreachable, match="cannot be reached"):
        Client(server.url).run("d", "r1")


def test_deed_whose_answer_was_cut_off_is_waited_for_by_its_key(server: Server) -> None:
    server.answers = [Said(RUN, cut=True), Said(STILL, 409), Said(RUN)]
    assert Client(server.url).trigger("d").run_id == "r1"
    assert len({key for _, key in server.asked}) == 1
    assert len(server.asked) == 3
    server.answers = [Said(STILL, 409)]
    with pytest.raises(ApiRefused, match="it is being answered"):
        Client(server.url).trigger("d")


def test_dags_of_several_pages_are_all_listed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainflow.client._PAGE", 2)
    dags = [{"dag_id": name, "is_paused": False} for name in "abc"]
    server.answers = [Said({"dags": dags[:2], "total_entries": 3}), Said({"dags": dags[2:], "total_entries": 3})]
    assert [each.dag_id for each in Client(server.url).dags()] == ["a", "b", "c"]
    assert [path for path, _ in server.asked] == [f"/api/v1/dags?limit=2&offset={offset}" for offset in (0, 2)]
