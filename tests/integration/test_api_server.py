"""The API server: what answers beside the execution API, who may ask, where it listens, TLS, and that it stops."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import ssl
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy.exc import DBAPIError

from tests.support.api import RunningApi, running_api
from tests.support.control_plane import ControlPlane, control_plane, empty_task
from trainflow.api.connection_limits import allow_many_connections
from trainflow.api.rest.application import RestApplication
from trainflow.api.server import ApiServer
from trainflow.api.web_application import web_application
from trainflow.errors import DatabaseUnavailable, InputError, SettingsError
from trainflow.execution.http_api_client import ApiUnreachable, HttpApiClient
from trainflow.messages.execution_api import Heartbeat, Refused
from trainflow.messages.http_protocol import OLDEST_PROTOCOL, PROTOCOL
from trainflow.messages.workload import AttemptKey
from trainflow.metadata.queries import service_list_queries, service_queries
from trainflow.observability.store_requests import BOUNDS, StoreUse
from trainflow.settings.api_address import check_address, listen
from trainflow.settings.model import ApiSettings, Settings
from trainflow.testing.processes import DEADLINE_SECONDS

SECRET = "0123456789abcdef"


def _lost_connection() -> DBAPIError:
    return DBAPIError("SELECT 1", None, Exception("the server has hung up"), connection_invalidated=True)


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[ControlPlane]:
    with control_plane(tmp_path) as plane:
        yield plane


def _settings(**api: Any) -> Settings:
    return Settings(api=ApiSettings(**api))


def test_health_version_and_document_are_answered(plane: ControlPlane) -> None:
    with running_api(plane) as api:
        with plane.database.reading() as connection:
            installation = service_queries.installation(connection)
        health = api.ask("GET", "/health")
        assert (health.status, health.body["status"], health.body["installation"]) == (200, "ok", installation)
        assert api.ask("GET", "/version").body["installation"] == installation
        assert len(installation) == 32
        assert api.ask("GET", "/version").body["execution_protocol"] == {"newest": PROTOCOL, "oldest": OLDEST_PROTOCOL}
        document = api.ask("GET", "/openapi.json").body
        assert "/execution/v1/start" in document["paths"]
        assert document["openapi"] == "3.1.0"


def test_metrics_are_what_prometheus_reads(plane: ControlPlane) -> None:
    plane.add_dag("d", empty_task("a"))
    plane.add_run("d")
    (work,) = plane.tick()
    plane.play(work, store_use=[StoreUse("s3://a", "read", 2, calls=(1, *[0] * len(BOUNDS)))])
    with running_api(plane) as api, urllib.request.urlopen(f"{api.url}/metrics") as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert 'trainflow_store_requests_total{op="read",store="s3://a"} 2' in answer.read().decode().splitlines()


def test_ready_says_whether_a_scheduler_is_alive(plane: ControlPlane) -> None:
    with running_api(plane) as api:
        lease = api.server.execution.lease
        assert api.ask("GET", "/ready").status == 200
        for _ in range(12):
            plane.clock.advance(timedelta(seconds=5))
            lease.look()
        answer = api.ask("GET", "/ready")
        assert (answer.status, answer.body["status"]) == (503, "not ready")
        assert "no scheduler is alive: run 'trainflow standalone'" in answer.body["reason"]
        with plane.database.transaction() as connection:
            service_queries.renew_lease(connection, plane.service_id, plane.clock.now())
        lease.look()
        assert api.ask("GET", "/ready").status == 200


def test_lease_of_server_ends_with_it(plane: ControlPlane) -> None:
    def living() -> list[str]:
        with plane.database.reading() as connection:
            return [row.kind for row in service_list_queries.not_stopped(connection)]

    with running_api(plane):
        assert living() == ["engine", "api_server"]
    assert living() == ["engine"]


class TestToken:
    @pytest.fixture
    def api(self, plane: ControlPlane) -> Iterator[RunningApi]:
        with running_api(plane, _settings(token=SECRET)) as api:
            yield api

    @pytest.mark.parametrize("path", ["/version", "/openapi.json", "/metrics"])
    def test_what_is_not_for_attempts_needs_token(self, api: RunningApi, path: str) -> None:
        for header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {SECRET}"}):
            answer = api.ask("GET", path, **header)
            assert (answer.status, answer.body["title"]) == (401, "Unauthorized")
        assert api.ask("GET", path, Authorization=f"Bearer {SECRET}").status == 200

    def test_health_and_ready_need_none(self, api: RunningApi) -> None:
        assert api.ask("GET", "/health").status == 200
        assert api.ask("GET", "/ready").status == 200


class TestAddress:
    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])
    def test_address_that_others_reach_needs_token(self, host: str) -> None:
        with pytest.raises(SettingsError, match=r"api\.token is not set\. Set the environment variable TRAINFLOW__API"):
            check_address(ApiSettings(host=host))
        check_address(ApiSettings(host=host, token=SECRET))

    @pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "::1", "localhost"])
    def test_loopback_needs_none(self, host: str) -> None:
        check_address(ApiSettings(host=host))

    def test_port_that_is_taken_is_told(self) -> None:
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]
            with pytest.raises(InputError, match=rf"cannot listen on 127.0.0.1 port {port}: Address already in use"):
                listen(ApiSettings(port=port))

    def test_address_of_another_host_is_told(self) -> None:
        with pytest.raises(InputError, match=r"cannot listen on 192\.0\.2\.1"):
            listen(ApiSettings(host="192.0.2.1", token=SECRET))

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ({"token": "short"}, "fewer than 16 characters"),
            ({"tls_cert": "a.pem"}, "without api.tls_key"),
            ({"tls_key": "a.pem"}, "without api.tls_cert"),
            ({"url": "example.org"}, "does not begin with http"),
        ],
    )
    def test_settings_that_do_not_fit_are_refused(self, given: dict[str, str], said: str) -> None:
        with pytest.raises(ValueError, match=said):
            ApiSettings(**given)

    @pytest.mark.parametrize(
        ("given", "address"),
        [
            ({}, "http://127.0.0.1:8080"),
            ({"host": "::1", "port": 81}, "http://[::1]:81"),
            ({"tls_cert": "a", "tls_key": "b"}, "https://127.0.0.1:8080"),
            ({"url": "https://x.example/trainflow/"}, "https://x.example/trainflow"),
        ],
    )
    def test_address_is_that_which_workers_are_told(self, given: dict[str, Any], address: str) -> None:
        assert ApiSettings(**given).address == address


class TestTls:
    def test_https_is_spoken_with_the_certificate_of_the_settings(
        self, plane: ControlPlane, certificate: tuple[Path, Path]
    ) -> None:
        cert, key = certificate
        with running_api(plane, _settings(tls_cert=str(cert), tls_key=str(key))) as api:
            trusted = ssl.create_default_context(cafile=str(cert))
            with urllib.request.urlopen(f"https://localhost:{api.port}/health", context=trusted) as answer:
                assert msgspec.json.decode(answer.read())["status"] == "ok"

    def test_worker_believes_the_authority_of_the_settings_alone(
        self, plane: ControlPlane, certificate: tuple[Path, Path]
    ) -> None:
        cert, key = certificate
        with running_api(plane, _settings(tls_cert=str(cert), tls_key=str(key))) as api:
            url, beat = f"https://localhost:{api.port}", Heartbeat(AttemptKey("a"))

            def client(ca_file: str | None) -> HttpApiClient:
                return HttpApiClient(url, "secret", clock=plane.clock, sleep=lambda _seconds: None, ca_file=ca_file)

            believing = client(str(cert))
            assert believing.ask_once(beat) == Refused("this token is not that of any attempt")
            believing.close()
            with pytest.raises(ApiUnreachable, match=r"its certificate is not believed, .*: renew it \(api.tls_cert\)"):
                client(None).ask_once(beat)

    def test_worker_finds_the_server_below_the_prefix_of_a_proxy(
        self, plane: ControlPlane, certificate: tuple[Path, Path]
    ) -> None:
        cert, key = certificate
        settings = _settings(tls_cert=str(cert), tls_key=str(key), root_path="/trainflow")
        with running_api(plane, settings) as api:
            url = f"https://localhost:{api.port}/trainflow"
            client = HttpApiClient(url, "secret", clock=plane.clock, sleep=lambda _seconds: None, ca_file=str(cert))
            assert client.ask_once(Heartbeat(AttemptKey("a"))) == Refused("this token is not that of any attempt")
            client.close()

    @pytest.mark.parametrize("broken", ["missing", "text"])
    def test_file_that_is_no_certificate_is_told(self, plane: ControlPlane, tmp_path: Path, broken: str) -> None:
        if broken == "text":
            (tmp_path / "a.pem").write_text("no certificate")
        with socket.socket() as listener, pytest.raises(SettingsError, match=r"api\.tls_cert.*a\.pem"):
            ApiServer(plane.project, _settings(tls_cert="a.pem", tls_key="a.pem"), plane.clock, listener)


@pytest.mark.parametrize("path", ["/metrics/", "/execution/v1", "/execution/v1/", "/execution/v1/start/", "/nothing"])
def test_path_that_is_none_is_never_answered_by_redirect_to_host_of_request(plane: ControlPlane, path: str) -> None:
    with running_api(plane) as api:
        answer = api.ask("GET", path, Host="elsewhere.example")
    of_attempts = path.startswith("/execution/v1/")
    # what is not for attempts is not even looked up for who calls the server by another name
    assert (answer.status, answer.headers.get("location")) == (404 if of_attempts else 421, None)
    assert ("x-trainflow-protocol" in answer.headers) is of_attempts


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"POST /execution/v1/heartbeat HTTP/1.1\r\nHost: x\r\n",
        # the answer is given without the body, which never comes to its end
        b"POST /execution/v1/heartbeat HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\n{",
    ],
)
def test_connection_that_never_completes_its_request_is_closed(
    plane: ControlPlane, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr("trainflow.api.connection_limits.HEAD_SECONDS", 0.05)
    with running_api(plane) as api, socket.create_connection(("127.0.0.1", api.port), timeout=DEADLINE_SECONDS) as slow:
        slow.sendall(said)
        with suppress(ConnectionError):  # what is sent to a connection that is closed may be refused
            while slow.recv(4096):
                if b"99999" in said:
                    slow.sendall(b"{")


def test_server_may_open_as_many_connections_as_its_limit_allows() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(900, hard), hard))
    try:
        allow_many_connections()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_what_is_made_before_processes_are_forked_has_no_thread_and_no_connection(plane: ControlPlane) -> None:
    def held() -> tuple[int, list[str]]:
        return threading.active_count(), sorted(os.readlink(f"/proc/self/fd/{each}") for each in _descriptors())

    server = ApiServer(plane.project, _settings(), plane.clock, listen(ApiSettings(port=0)))
    try:
        # SQLite closes a file later while another connection of this process has locks on it
        plane.database.close()
        before = held()
        server.prepare()
        assert held() == before
        # what was rehearsed has not happened
        assert [row.kind for row in plane.database.read(service_list_queries.everyone)] == ["engine"]
    finally:
        server.close()


def _descriptors() -> list[str]:
    return [each for each in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{each}")]


@pytest.mark.parametrize("path", ["/metrics", "/version"])
@pytest.mark.parametrize("error", [DatabaseUnavailable("it is away"), _lost_connection()], ids=["given up", "lost"])
def test_database_that_is_away_is_told_by_what_is_no_endpoint_of_rest(path: str, error: Exception) -> None:
    def fail() -> str:
        raise error

    nothing: Any = None
    rest = RestApplication(nothing, nothing, threads=1)
    try:
        application = web_application(rest, installation=fail, metrics=fail)
        status, headers = asyncio.run(_asked(application, path))
    finally:
        rest.close()
    assert (status, headers[b"retry-after"]) == (503, b"1")
    assert headers[b"content-type"] == b"application/problem+json"


async def _asked(application: Any, path: str) -> tuple[int, dict[bytes, bytes]]:
    told: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        told.append(message)

    scope = {"type": "http", "method": "GET", "path": path, "headers": [], "query_string": b"", "root_path": ""}
    await application(scope, receive, send)
    return told[0]["status"], dict(told[0]["headers"])
