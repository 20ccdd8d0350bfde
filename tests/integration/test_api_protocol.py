"""The protocol between workers and API server: recorded messages of its versions are understood and answered as they
were, whatever has come since. A change that breaks this needs a new version, and the old one to be converted."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.support.api import TOKEN, RunningApi, running_api
from tests.support.control_plane import ControlPlane, control_plane, empty_task
from trainflow.messages.execution_api import Heartbeat
from trainflow.messages.http_protocol import (
    OLDEST_PROTOCOL,
    OPERATIONS,
    PREFIX,
    PROTOCOL,
    PROTOCOL_HEADER,
    TOKEN_HEADER,
    protocol_problem,
)
from trainflow.messages.workload import AttemptKey
from trainflow.testing.processes import DEADLINE_SECONDS

RECORDED = Path(__file__).parent / "recorded"
VERSIONS = range(OLDEST_PROTOCOL, PROTOCOL + 1)


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[ControlPlane]:
    with control_plane(tmp_path) as plane:
        plane.add_dag("d", empty_task("a"))
        plane.add_dag("next", empty_task("a"))
        plane.add_run("d")
        yield plane


def _play(api: RunningApi, version: int, spoken: int) -> None:
    """The life of an attempt of an older worker; each answer has at least what that worker reads of it."""
    (work,) = api.plane.tick()
    secret = api.issue(work)
    recorded = (RECORDED / f"protocol_{version}.json").read_text().replace("ATTEMPT", work.key.attempt_id)
    for each in msgspec.json.decode(recorded):
        shown = secret if each["operation"] in ("start", "meet-ranks") else TOKEN
        headers = {"Authorization": f"Bearer {shown}", PROTOCOL_HEADER: str(spoken)}
        if each["operation"] == "start":
            headers[TOKEN_HEADER] = TOKEN
        body = msgspec.json.encode(each["body"])
        answer = api.ask("POST", f"{PREFIX}/{each['operation']}", body, **headers)
        assert (answer.status, answer.body["type"]) == (each["status"], each["type"]), each
        # what is left out of an answer has its default
        assert set(answer.body) - {"type"} >= set(each["fields"]), each


@pytest.mark.parametrize("version", VERSIONS)
def test_recorded_messages_are_answered_as_they_were(plane: ControlPlane, version: int) -> None:
    with running_api(plane) as api:
        _play(api, version, version)


def test_worker_of_the_version_before_still_works(plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainflow.messages.http_protocol.PROTOCOL", PROTOCOL + 1)
    with running_api(plane) as api:
        _play(api, PROTOCOL, PROTOCOL)


def test_every_operation_is_recorded() -> None:
    recorded = msgspec.json.decode((RECORDED / f"protocol_{PROTOCOL}.json").read_bytes())
    assert {each["operation"] for each in recorded} >= {operation.name for operation in OPERATIONS}


def test_version_before_is_understood() -> None:
    assert max(PROTOCOL - 1, 1) >= OLDEST_PROTOCOL
    assert protocol_problem(str(PROTOCOL)) is None
    assert protocol_problem(str(OLDEST_PROTOCOL)) is None


def test_version_that_is_no_number_a_computer_reads_is_told(plane: ControlPlane) -> None:
    with running_api(plane) as api:
        answer = api.post(Heartbeat(AttemptKey("a")), TOKEN, **{PROTOCOL_HEADER: "1" * 5000})
    assert (answer.status, answer.body["error"]) == (400, "ProtocolVersion")


def test_body_that_does_not_end_is_told_so(plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainflow.api.execution.BODY_SECONDS", 0.05)
    with running_api(plane) as api, socket.create_connection(("127.0.0.1", api.port), timeout=DEADLINE_SECONDS) as slow:
        slow.sendall(
            f"POST {PREFIX}/start HTTP/1.1\r\nHost: x\r\n{PROTOCOL_HEADER}: 1\r\nAuthorization: Bearer x\r\n"
            "Content-Length: 900\r\n\r\n{".encode()
        )
        assert slow.recv(4096).startswith(b"HTTP/1.1 408")
