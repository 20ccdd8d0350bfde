"""One port, two processes: which answers what, on whichever connection it comes, and that none waits for the other."""

from __future__ import annotations

import asyncio
import http.client
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from uvicorn.protocols.http.h11_impl import H11Protocol

from tests.support.api import TOKEN, RunningApi, ask, running_api
from tests.support.control_plane import ControlPlane, control_plane_with_run
from trainflow.api import connection_transfer, routed_connection
from trainflow.api.connection_transfer import MOST_BYTES, ConnectionTransfer, line_between
from trainflow.api.http_server import HttpServer
from trainflow.api.routed_connection import WebConnection
from trainflow.bootstrap import interpreter
from trainflow.messages.execution_api import Heartbeat
from trainflow.messages.http_protocol import PREFIX, PROTOCOL, PROTOCOL_HEADER
from trainflow.messages.workload import AttemptKey
from trainflow.settings.model import ApiSettings, Settings
from trainflow.testing.contract_engine import listening

TRIGGER = b'{"dag_run_id": "by_hand"}'


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[ControlPlane]:
    with control_plane_with_run(tmp_path) as plane:
        yield plane


@pytest.fixture
def api(plane: ControlPlane) -> Iterator[RunningApi]:
    with running_api(plane) as api:
        yield api


def _running_attempt(api: RunningApi) -> AttemptKey:
    (work,) = api.plane.tick()
    assert api.start(work, api.issue(work)).status == 200
    return work.key


def _heartbeat(key: AttemptKey) -> bytes:
    body = msgspec.json.encode(Heartbeat(key))
    return _request(
        "POST", f"{PREFIX}/heartbeat", body, **{PROTOCOL_HEADER: str(PROTOCOL), "Authorization": f"Bearer {TOKEN}"}
    )


def _request(method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    given = {"Host": "127.0.0.1", "Content-Length": str(len(body)), **headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body


def _answers(connection: socket.socket, count: int) -> list[tuple[int, bytes]]:
    """Status and content of the next answers, whose length is known."""
    found = []
    with connection.makefile("rb") as stream:
        for _ in range(count):
            status = int(stream.readline().split()[1])
            headers = http.client.parse_headers(stream)
            found.append((status, stream.read(int(headers["content-length"]))))
    return found


@pytest.mark.parametrize("cut", [1, 60, 100_000])
def test_requests_for_both_on_one_connection_are_each_answered_in_order(api: RunningApi, cut: int) -> None:
    key = _running_attempt(api)
    asked = b"".join(
        [
            _request("GET", "/version"),
            _heartbeat(key),
            _request("POST", "/api/v1/dags/d/dagRuns", TRIGGER, **{"Content-Type": "application/json"}),
            _request("GET", "/health"),
            _heartbeat(key),
            _request("GET", "/nothing"),
            _heartbeat(AttemptKey("other")),
        ]
    )
    with socket.create_connection(("127.0.0.1", api.port), timeout=20) as connection:
        # sent without a wait for any answer
        for at in range(0, len(asked), cut):
            connection.sendall(asked[at : at + cut])
        found = _answers(connection, 7)
    assert [status for status, _ in found] == [200, 200, 200, 200, 200, 404, 403]
    assert b'"execution_protocol"' in found[0][1]
    assert b'"by_hand"' in found[2][1]
    assert b'"title":"NotFound"' in found[5][1]


def test_request_in_plain_form_passes_the_parser_by_and_is_answered_as_any_other(
    api: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = _heartbeat(_running_attempt(api))
    parsed: list[bytes] = []
    receive = H11Protocol.data_received

    def received(self: H11Protocol, data: bytes) -> None:
        parsed.append(data)
        receive(self, data)

    monkeypatch.setattr(H11Protocol, "data_received", received)
    with socket.create_connection(("127.0.0.1", api.port), timeout=20) as connection:
        connection.sendall(asked)
        [plain] = _answers(connection, 1)
        assert parsed == []
        connection.sendall(asked.replace(b"HTTP/1.1\r\n", b"HTTP/1.1\r\nConnection: keep-alive\r\n"))
        assert _answers(connection, 1) == [plain]
        assert parsed
        # and the connection goes on as before
        connection.sendall(asked)
        assert _answers(connection, 1) == [plain]
    assert plain[0] == 200


def test_body_in_chunks_and_one_that_waits_to_be_wanted_reach_the_web_server(api: RunningApi) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=20)
    headers = {"Content-Type": "application/json"}
    connection.request("POST", "/api/v1/dags/d/dagRuns", iter([TRIGGER[:5], TRIGGER[5:]]), headers, encode_chunked=True)
    answer = connection.getresponse()
    assert (answer.status, b"by_hand" in answer.read()) == (200, True)
    connection.close()
    head = _request("POST", "/api/v1/dags/d/dagRuns", TRIGGER, Expect="100-continue", **headers)[: -len(TRIGGER)]
    with socket.create_connection(("127.0.0.1", api.port), timeout=20) as slow:
        slow.sendall(head)
        assert slow.recv(100).startswith(b"HTTP/1.1 100 ")
        slow.sendall(TRIGGER)
        ((status, _),) = _answers(slow, 1)
    assert status == 200


def test_heartbeat_is_answered_while_a_page_holds_up_all_of_the_web_server(api: RunningApi) -> None:
    key = _running_attempt(api)
    assert api.ask("GET", "/version").status == 200
    held, released = threading.Event(), threading.Event()

    def hold_up() -> None:
        held.set()
        released.wait(30)

    server: Any = api.server.web._server
    loop: asyncio.AbstractEventLoop = server._loop
    loop.call_soon_threadsafe(hold_up)
    assert held.wait(30)
    found: list[int] = []
    page = threading.Thread(target=lambda: found.append(api.ask("GET", "/", Accept="text/html").status))
    page.start()
    assert [api.post(Heartbeat(key), TOKEN).status for _ in range(3)] == [200] * 3
    assert (api.ask("GET", "/ready").status, found) == (200, [])
    released.set()
    page.join(30)
    assert found == [200]


def test_web_server_that_takes_no_connection_is_busy_and_attempts_go_on(
    api: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = _running_attempt(api)
    monkeypatch.setattr(ConnectionTransfer, "give", lambda _self, _connection, _data: False)
    api.server._web_path.unlink()
    answer = api.ask("GET", "/version")
    assert (answer.status, answer.body["title"], answer.headers["retry-after"]) == (503, "Busy", "1")
    assert api.post(Heartbeat(key), TOKEN).status == 200


def test_requests_that_no_parser_agrees_on_are_refused_by_the_first(api: RunningApi) -> None:
    smuggled = _request("GET", "/execution/v1/heartbeat")
    head = b"POST /api/v1/dags/d/dagRuns HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: %d\r\n\r\n" % len(
        smuggled
    )
    with socket.create_connection(("127.0.0.1", api.port), timeout=20) as connection:
        connection.sendall(head + smuggled)
        answered = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answered.startswith(b"HTTP/1.1 400 ")
    assert answered.count(b"HTTP/1.1") == 1


def test_answer_that_is_read_slowly_is_whole(api: RunningApi) -> None:
    paths = api.ask("GET", "/openapi.json").body
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.settimeout(20)
        slow.connect(("127.0.0.1", api.port))
        slow.sendall(_request("GET", "/openapi.json") * 8 + _request("GET", "/health"))
        found = _answers(slow, 9)
    assert [msgspec.json.decode(content) == paths for _, content in found[:8]] == [True] * 8
    assert (found[8][0], msgspec.json.decode(found[8][1])["status"]) == (200, "ok")


def test_server_that_is_asked_nothing_ends_by_itself(tmp_path: Path) -> None:
    async def application(_scope: Any, _receive: Any, _send: Any) -> None:
        """Never asked."""

    with listening() as listener:
        HttpServer(application, WebConnection, idle_seconds=0.01).answer_on(listener, lambda: None)


PROCESSES = """
import os, socket, sys
from trainflow.api.server_processes import ProcessSpec, ServerProcesses

listener = socket.create_server(("127.0.0.1", 0))
said = sys.argv[1:]

def answer():
    connection, _ = listener.accept()
    said = connection.recv(100)
    connection.sendall(str(os.getpid()).encode())
    connection.close()
    if said == b"break":
        raise RuntimeError("broken")

processes = ServerProcesses([ProcessSpec("web server", answer, [listener])], is_over=lambda: "over" in said)
print("ended", os.getpid(), processes.run(lambda: print(listener.getsockname()[1], flush=True)))
"""


def _said(port: int, word: bytes) -> int:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(word)
        return int(b"".join(iter(lambda: connection.recv(100), b"")))


def test_process_is_forked_when_it_is_asked_and_again_after_its_end(tmp_path: Path) -> None:
    script = tmp_path / "processes.py"
    script.write_text(PROCESSES)
    command = [interpreter("x")[0], str(script), "not yet"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        port = int(parent.stdout.readline())
        pids = [_said(port, word) for word in (b"go", b"break", b"go")]
        parent.terminate()
        rest, problems = parent.communicate(timeout=20)
    assert (len({parent.pid, *pids}), rest) == (4, f"ended {parent.pid} False\n")
    assert "the web server ended (exit code 1): started again in 0.5 s" in problems


def test_processes_end_once_it_is_over_which_is_told_from_a_signal(tmp_path: Path) -> None:
    script = tmp_path / "processes.py"
    script.write_text(PROCESSES)
    said = subprocess.run([interpreter("x")[0], str(script), "over"], capture_output=True, text=True, check=True)
    assert said.stdout.endswith(" True\n")


def test_address_of_a_client_and_scheme_reach_the_web_server(api: RunningApi) -> None:
    assert ask(api.port, "POST", "/api/v1/dags/d/dagRuns", TRIGGER, Content_Type="application/json").status == 200
    (event,) = api.ask("GET", "/api/v1/eventLogs").body["event_logs"]
    assert "127.0.0.1" in str(event)


def _asked(connection: socket.socket, request: bytes) -> tuple[int, bytes]:
    connection.sendall(request)
    (found,) = _answers(connection, 1)
    return found


def _given(api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which way connections change hands from now on."""
    ways: list[str] = []
    give = ConnectionTransfer.give

    def gave(self: ConnectionTransfer, connection: int, data: bytes) -> bool:
        done = give(self, connection, data)
        to_web = self._line.fileno() == api.server._line[0].fileno()
        ways.append(("to web" if to_web else "back") if done else "refused")
        return done

    monkeypatch.setattr(ConnectionTransfer, "give", gave)
    return ways


def test_connection_of_people_is_given_away_once_and_one_that_an_attempt_uses_comes_back_for_good(
    api: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, ways = _running_attempt(api), _given(api, monkeypatch)
    with socket.create_connection(("127.0.0.1", api.port), timeout=20) as connection:
        for _ in range(3):
            assert _asked(connection, _request("GET", "/version"))[0] == 200
        assert ways == ["to web"]
        for request in (_heartbeat(key), _request("GET", "/version"), _heartbeat(key), _request("GET", "/version")):
            assert _asked(connection, request)[0] == 200
    assert ways == ["to web", "back"]
    with socket.create_connection(("127.0.0.1", api.port), timeout=20) as connection:
        assert [_asked(connection, each)[0] for each in (_heartbeat(key), _request("GET", "/version"))] == [200, 200]
    assert ways == ["to web", "back"]


@pytest.mark.parametrize("cut", [1, 60, 100_000])
def test_body_that_comes_later_reaches_who_has_the_connection(api: RunningApi, cut: int) -> None:
    request = _request("POST", "/api/v1/dags/d/dagRuns", TRIGGER, **{"Content-Type": "application/json"})
    with socket.create_connection(("127.0.0.1", api.port), timeout=20) as connection:
        for at in range(0, len(request), cut):
            connection.sendall(request[at : at + cut])
        ((status, content),) = _answers(connection, 1)
    assert (status, b'"by_hand"' in content) == (200, True)


def test_what_the_other_process_does_not_take_is_passed_on_or_waits(
    api: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, ways = _running_attempt(api), []
    give = ConnectionTransfer.give

    def takes_the_third(self: ConnectionTransfer, connection: int, data: bytes) -> bool:
        ways.append(data.split(b" ")[1].decode())
        return len(ways) >= 3 and give(self, connection, data)

    with socket.create_connection(("127.0.0.1", api.port), timeout=20) as given:
        assert _asked(given, _request("GET", "/version"))[0] == 200
        monkeypatch.setattr(ConnectionTransfer, "give", takes_the_third)
        # back: there is no other way
        assert _asked(given, _heartbeat(key))[0] == 200
    assert ways == [f"{PREFIX}/heartbeat"] * 3
    ways.clear()
    with socket.create_connection(("127.0.0.1", api.port), timeout=20) as passed_on:
        assert [_asked(passed_on, _request("GET", "/version"))[0] for _ in range(3)] == [200] * 3
    assert ways == ["/version"]


def test_large_request_is_passed_on(api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
    ways = _given(api, monkeypatch)
    body = b'{"dag_run_id": "by_hand", "note": "%s"}' % (b" " * MOST_BYTES)
    request = _request("POST", "/api/v1/dags/d/dagRuns", body, **{"Content-Type": "application/json"})
    with socket.create_connection(("127.0.0.1", api.port), timeout=20) as connection:
        status, _ = _asked(connection, request)
    # too long a note: whichever way it took, who answers has read all of it
    assert status == 422
    assert set(ways) <= {"to web", "refused"}


def test_large_request_of_an_attempt_on_a_connection_of_people_is_to_come_on_another_one(
    api: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = _heartbeat(_running_attempt(api))
    with socket.create_connection(("127.0.0.1", api.port), timeout=20) as connection:
        connection.sendall(_request("GET", "/version"))
        assert _answers(connection, 1)[0][0] == 200
        for module in (connection_transfer, routed_connection):
            monkeypatch.setattr(module, "MOST_BYTES", 100)
        connection.sendall(asked)
        assert _answers(connection, 1)[0][0] == 503
        assert connection.recv(1) == b""
    with socket.create_connection(("127.0.0.1", api.port), timeout=20) as connection:
        connection.sendall(asked)
        assert _answers(connection, 1)[0][0] == 200


def test_connection_of_a_proxy_is_not_given_away(plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    """It mixes what attempts and people ask: an attempt would wait for the process that people keep busy."""
    settings = Settings(api=ApiSettings(trusted_proxies=["127.0.0.1/32"], token="0123456789abcdef"))
    with running_api(plane, settings) as api:
        ways = _given(api, monkeypatch)
        assert api.ask("GET", "/version", Authorization="Bearer 0123456789abcdef").status == 200
    assert ways == []


def test_line_between_takes_a_message_whole_or_not_at_all() -> None:
    ends = line_between()
    here, there = ConnectionTransfer(ends[0]), ends[1]
    with ends[0], there, socket.socket() as any_one:
        assert not here.give(any_one.fileno(), b"x" * (MOST_BYTES + 1))
        given = 0
        while here.give(any_one.fileno(), b"GET / HTTP/1.1\r\n"):
            given += 1
        assert given
        for _ in range(given):
            data, descriptors, _, _ = socket.recv_fds(there, 100, 4)
            assert (data, len(descriptors)) == (b"GET / HTTP/1.1\r\n", 1)
            os.close(descriptors[0])
        with pytest.raises(BlockingIOError):
            there.recv(1)


def test_line_whose_other_end_is_gone_gives_nothing_and_is_not_read_again() -> None:
    async def read() -> list[bytes]:
        here, there = line_between()
        taken: list[bytes] = []
        with here, there:
            loop = asyncio.get_running_loop()
            ConnectionTransfer(here).take_on(loop, lambda _connection, data: taken.append(data))
            there.close()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert not loop.remove_reader(here.fileno())
            assert not ConnectionTransfer(here).give(here.fileno(), b"x")
        return taken

    assert asyncio.run(read()) == []
