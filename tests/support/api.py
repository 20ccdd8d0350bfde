"""An API server in a thread of the test, over the database of a control plane; requests to it, written out."""

from __future__ import annotations

import http.client
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from tests.support.control_plane import ControlPlane
from trainflow.api.server import ApiServer
from trainflow.messages.execution_api import Start
from trainflow.messages.http_protocol import BY_REQUEST, PREFIX, PROTOCOL, PROTOCOL_HEADER, TOKEN_HEADER, TOKEN_PREFIX
from trainflow.messages.workload import ExecuteTask
from trainflow.metadata import attempt_credentials
from trainflow.settings.model import Settings
from trainflow.testing.contract_engine import api_in_thread, listening
from trainflow.testing.processes import DEADLINE_SECONDS

TOKEN = TOKEN_PREFIX + "a" * 43
OTHER_TOKEN = TOKEN_PREFIX + "b" * 43


class Answer(NamedTuple):
    """What a request got."""

    status: int
    body: Any
    headers: dict[str, str]


def ask(port: int, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
    """One request on a connection of its own. Of `headers`, `_` stands for `-`."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_SECONDS)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        content = response.read()
        found = {name.lower(): value for name, value in response.getheaders()}
        is_json = found.get("content-type", "").startswith(("application/json", "application/problem+json"))
        return Answer(response.status, msgspec.json.decode(content) if is_json else content or None, found)
    finally:
        connection.close()


class RunningApi:
    """A server that answers; stopped with its block."""

    def __init__(self, plane: ControlPlane, server: ApiServer, port: int) -> None:
        self.plane = plane
        self.server = server
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.secrets: dict[str, str] = {}

    def issue(self, work: ExecuteTask) -> str:
        """The claim secret of an attempt that was handed out."""
        with self.plane.database.transaction() as connection:
            secret = self.secrets[work.key.attempt_id] = attempt_credentials.issue(connection, work.key)
        return secret

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """One request to it; see `ask`."""
        return ask(self.port, method, path, body, **headers)

    def post(self, message: Any, token: str | None, **headers: str) -> Answer:
        """A request of an attempt; the token is not in it when it is None."""
        given = {PROTOCOL_HEADER: str(PROTOCOL), **headers}
        if token is not None:
            given["Authorization"] = f"Bearer {token}"
        operation = BY_REQUEST[type(message)]
        return self.ask("POST", f"{PREFIX}/{operation.name}", msgspec.json.encode(message), **given)

    def start(self, work: ExecuteTask, secret: str, token: str = TOKEN, pid: int = 100, host: str = "there") -> Answer:
        """Claim an attempt."""
        return self.post(Start(work.key, pid, 1.0, host), secret, **{TOKEN_HEADER: token})


@contextmanager
def running_api(plane: ControlPlane, settings: Settings | None = None) -> Iterator[RunningApi]:
    """A server over the database of `plane`."""
    listener = listening()
    server = ApiServer(plane.project, settings or plane.settings, plane.clock, listener)
    with api_in_thread(server):
        yield RunningApi(plane, server, listener.getsockname()[1])


def logs_of(folder: Path, caplog: Any) -> str:
    """Everything that was logged, and every log in a home."""
    files = "".join(path.read_text(errors="replace") for path in (folder / ".trainflow" / "logs").rglob("*.log"))
    formatter = logging.Formatter()
    return files + "".join(formatter.format(record) for record in caplog.records)
