"""The client of an API server: what is an answer and what is none, how it asks again, what it shows of itself."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from tests.support.ports import free_port
from trainflow.clock import ManualClock
from trainflow.errors import EngineError, InputError
from trainflow.execution.http_api_client import (
    LAST_WORDS_SECONDS,
    OTHER_INSTALLATION,
    ApiUnreachable,
    HttpApiClient,
    _in_words,
)
from trainflow.messages.execution_api import (
    Done,
    Failed,
    Heartbeat,
    MeetRanks,
    Outcome,
    OutcomeState,
    ProcessEnded,
    Refused,
    Start,
)
from trainflow.messages.http_protocol import BY_REQUEST, HttpProblem
from trainflow.messages.workload import AttemptKey, ProcessExit

KEY = AttemptKey("a1")
SECRET = "tfclaim_" + "s" * 43
OURS = {"X-Trainflow-Protocol": "1"}


def answer(status: int, body: object = None, headers: dict[str, str] = OURS) -> bytes:
    content = body if isinstance(body, bytes) else msgspec.json.encode(body)
    head = [f"HTTP/1.1 {status} X", f"Content-Length: {len(content)}", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join([*head, "", ""]).encode() + content


DONE = answer(200, Done())


class Scripted:
    """A server that gives these answers, one after the other, and remembers what it was asked. An empty one: it hangs
    up."""

    def __init__(self) -> None:
        self.answers: list[bytes] = []
        self.asked: list[str] = []
        self.connections = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                self.connections += 1
                with connection:
                    self._talk(connection)

    def _talk(self, connection: socket.socket) -> None:
        while True:
            data = b""
            while b"\r\n\r\n" not in data or not data.endswith(b"}"):
                received = connection.recv(1 << 16)
                if not received:
                    return
                data += received
            self.asked.append(data.decode())
            given = self.answers.pop(0)
            connection.sendall(given)
            if b"\r\n\r\n" not in given:
                return


@pytest.fixture
def server() -> Iterator[Scripted]:
    server = Scripted()
    yield server
    server.listener.shutdown(socket.SHUT_RDWR)
    server.listener.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 1, 1, tzinfo=UTC))


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
def client(server: Scripted, clock: ManualClock, pauses: list[float]) -> Iterator[HttpApiClient]:
    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        clock.advance(timedelta(seconds=seconds))

    client = HttpApiClient(server.url, SECRET, clock=clock, sleep=sleep, outage_seconds=3600.0)
    yield client
    client.close()


@pytest.mark.parametrize(
    "no_answer",
    [
        b"",
        b"HTTP/1.1 200",
        answer(200, Done())[:-3].replace(b"Content-Length: 15", b"Content-Length: 12"),
        answer(200, Done(), {}),
        answer(404, b"<p>no such host</p>", {}),
        answer(401, b"log in to the proxy", {}),
        answer(410, b"gone", {}),
        answer(500, HttpProblem("InternalError", "x")),
        answer(503, HttpProblem("DatabaseUnavailable", "x")),
        answer(429, HttpProblem("Busy", "x")),
    ],
)
def test_what_is_no_answer_is_asked_again(server: Scripted, client: HttpApiClient, no_answer: bytes) -> None:
    server.answers = [no_answer, no_answer, DONE]
    assert client.ask(Heartbeat(KEY)) == Done()
    assert len(server.asked) == 3
    # sent again as it was
    assert len(set(server.asked)) == 1


@pytest.mark.parametrize("status", [401, 403, 409, 410])
def test_explicit_refusal_ends_it(server: Scripted, client: HttpApiClient, pauses: list[float], status: int) -> None:
    server.answers = [answer(status, HttpProblem("X", "why"))]
    assert client.ask(Heartbeat(KEY)) == Refused("why")
    assert pauses == []


@pytest.mark.parametrize(
    ("given", "reply"),
    [
        (answer(410, Refused("stale")), Refused("stale")),
        (answer(422, Failed("DagNotFound", "no")), Failed("DagNotFound", "no")),
        (answer(413, HttpProblem("TooLarge", "no")), Failed("TooLarge", "no")),
        (answer(400, HttpProblem("ProtocolVersion", "upgrade")), Failed("ProtocolVersion", "upgrade")),
    ],
)
def test_reply_is_that_of_the_server(server: Scripted, client: HttpApiClient, given: bytes, reply: object) -> None:
    server.answers = [given]
    assert client.handle(Outcome(KEY, OutcomeState.SUCCESS)) == reply


def test_request_that_no_server_takes_is_refused_before_it_is_sent(
    server: Scripted, client: HttpApiClient, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that refuses it hangs up before all of it was sent: that would be asked again for ever."""
    monkeypatch.setitem(BY_REQUEST, Outcome, BY_REQUEST[Outcome]._replace(most_bytes=20))
    server.answers = [DONE]
    reply = client.handle(Outcome(KEY, OutcomeState.SUCCESS))
    assert reply == Failed("TooLarge", "outcome: the request is larger than 20 bytes")
    assert (server.connections, pauses) == (0, [])


def test_outage_is_waited_for_with_growing_pauses_and_no_longer_than_said(
    server: Scripted, client: HttpApiClient, pauses: list[float]
) -> None:
    server.answers = [b""] * 10_000
    with pytest.raises(EngineError, match=r"the API server at http://127.0.0.1:\d+ was away for 36\d\d s"):
        client.ask(Heartbeat(KEY))
    assert max(pauses) <= 10.0
    assert 360 < len(pauses) < 800


def test_pause_that_server_asks_for_is_made(server: Scripted, client: HttpApiClient, pauses: list[float]) -> None:
    busy = HttpProblem("Busy", "x")
    server.answers = [answer(503, busy, {**OURS, "Retry-After": seconds}) for seconds in ("7", "100000", "soon")]
    server.answers.append(DONE)
    client.ask(Heartbeat(KEY))
    assert pauses[:2] == [7.0, 60.0]
    assert pauses[2] < 1.0


def test_connection_is_kept_and_made_again_when_server_closed_it(
    server: Scripted, client: HttpApiClient, pauses: list[float]
) -> None:
    server.answers = [DONE, DONE, b"", DONE]
    for _ in range(3):
        assert client.ask(Heartbeat(KEY)) == Done()
    assert (server.connections, pauses) == (2, [])


def test_claim_shows_secret_and_token_and_everything_else_the_token(server: Scripted, client: HttpApiClient) -> None:
    server.answers = [answer(409, HttpProblem("AttemptTaken", "x")), DONE]
    client.handle(Start(KEY, 1, 1.0, "here"))
    client.ask(Heartbeat(KEY))
    start, beat = server.asked
    assert f"Authorization: Bearer {SECRET}\r\n" in start
    token = start.partition("X-Trainflow-Token: ")[2].partition("\r\n")[0]
    assert len(token) > 40
    assert f"Authorization: Bearer {token}\r\n" in beat
    assert SECRET not in beat
    assert "X-Trainflow-Token" not in beat


def test_tokens_of_two_clients_differ(server: Scripted, clock: ManualClock) -> None:
    def token() -> str:
        server.answers = [answer(409, HttpProblem("AttemptTaken", "x"))]
        client = HttpApiClient(server.url, SECRET, clock=clock, sleep=lambda _seconds: None)
        client.handle(Start(KEY, 1, 1.0, "here"))
        client.close()
        return server.asked[-1].partition("X-Trainflow-Token: ")[2].partition("\r\n")[0]

    assert token() != token()


@pytest.mark.parametrize("url", ["", "localhost:8080", "ftp://x", "http://", "http://x:port"])
def test_address_that_is_none_is_refused(url: str, clock: ManualClock) -> None:
    with pytest.raises(InputError, match="the address of the API server"):
        HttpApiClient(url, SECRET, clock=clock, sleep=lambda _seconds: None)


def test_authorities_that_cannot_be_read_are_told(clock: ManualClock) -> None:
    with pytest.raises(InputError, match=r"api\.tls_ca: /nowhere cannot be used"):
        HttpApiClient("https://x", SECRET, clock=clock, sleep=lambda _seconds: None, ca_file="/nowhere")


def test_unreachable_server_is_told(clock: ManualClock) -> None:
    client = HttpApiClient(f"http://127.0.0.1:{free_port()}", SECRET, clock=clock, sleep=lambda _seconds: None)
    with pytest.raises(ApiUnreachable, match="ConnectionRefusedError"):
        client.ask_once(Heartbeat(KEY))


@pytest.fixture
def of_first(server: Scripted, clock: ManualClock) -> Iterator[HttpApiClient]:
    """The client of an attempt that the control plane `first` has handed out."""
    client = HttpApiClient(server.url, SECRET, clock=clock, sleep=lambda _seconds: None, installation="first")
    yield client
    client.close()


def of(installation: str, status: int = 401, body: object = None) -> bytes:
    given = HttpProblem("Unauthorized", "this token is not that of any attempt") if body is None else body
    return answer(status, given, {**OURS, "X-Trainflow-Installation": installation})


def test_claim_at_another_control_plane_fails_and_says_so(server: Scripted, of_first: HttpApiClient) -> None:
    server.answers = [of("second")]
    found = of_first.ask(Start(KEY, 1, 1.0, "here"))
    assert isinstance(found, Failed)
    assert f"the API server at {server.url} is that of another installation" in found.message


def test_answer_of_another_control_plane_stops_attempt(server: Scripted, of_first: HttpApiClient) -> None:
    server.answers = [of("first", 200, Done()), of("second")]
    assert of_first.ask_once(Heartbeat(KEY)) == Done()
    assert not of_first.is_misled
    refused = of_first.ask_once(Heartbeat(KEY))
    assert isinstance(refused, Refused)
    assert "another installation" in refused.reason
    assert of_first.is_misled


@pytest.mark.parametrize("said", [Outcome(KEY, OutcomeState.PREEMPTED), ProcessEnded(KEY, ProcessExit(code=1))])
def test_end_of_attempt_is_told_to_another_control_plane_for_a_minute_and_not_for_ever(
    server: Scripted, of_first: HttpApiClient, clock: ManualClock, said: Outcome | ProcessEnded
) -> None:
    server.answers = [of("second"), of("first", 200, Done()), of("second"), of("second")]
    with pytest.raises(ApiUnreachable, match="another installation"):
        of_first.ask_once(said)
    assert of_first.ask_once(said) == Done()
    with pytest.raises(ApiUnreachable):
        of_first.ask_once(said)
    clock.advance(timedelta(seconds=LAST_WORDS_SECONDS))
    failed = of_first.ask_once(said)
    assert isinstance(failed, Failed)
    assert failed.error == OTHER_INSTALLATION


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize(
    ("request_", "expected"),
    [(Start(KEY, 1, 1.0, "here"), Failed), (MeetRanks(KEY), Failed), (Heartbeat(KEY), Refused)],
    ids=["claim", "ranks", "running"],
)
def test_secret_that_is_refused_fails_a_claim_and_ends_an_attempt(
    server: Scripted, of_first: HttpApiClient, status: int, request_: Any, expected: type[Any]
) -> None:
    server.answers = [of("first", status)]
    assert isinstance(of_first.ask_once(request_), expected)


def test_server_that_does_not_say_which_one_it_is_is_believed(server: Scripted, of_first: HttpApiClient) -> None:
    server.answers = [DONE, of("", 200, Done())]
    assert [of_first.ask_once(Heartbeat(KEY)) for _ in range(2)] == [Done(), Done()]


def test_client_that_is_given_up_waits_for_no_answer(clock: ManualClock) -> None:
    asks: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        client = HttpApiClient(url, SECRET, clock=clock, sleep=lambda _seconds: None)

        def ask() -> None:
            try:
                client.ask(Heartbeat(KEY))
            except EngineError as error:
                asks.append(str(error))

        thread = threading.Thread(target=ask)
        thread.start()
        connection, _ = silent.accept()
        with connection:
            assert connection.recv(100)
            client.give_up()
            thread.join(10)
    assert len(asks) == 1
    assert "is not waited for any more" in asks[0]


def test_certificate_that_is_not_believed_is_told_in_one_sentence() -> None:
    error = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed (_ssl.c:1006)")
    error.verify_message = "certificate has expired"
    assert _in_words(error) == (
        "its certificate is not believed, certificate has expired: renew it (api.tls_cert), or have workers believe "
        "its authority (api.tls_ca)"
    )
