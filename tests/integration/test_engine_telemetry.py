"""Traces on their way: from the end of a run to a collector, which reads them by OpenTelemetry's own protobuf."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from sqlalchemy import select

from tests.integration.execution_requests import DEFERRAL, O
from tests.support.control_plane import ControlPlane, control_plane, empty_task
from tests.support.http_servers import serving
from trainflow.engine.telemetry_dispatcher import TelemetryDispatcher
from trainflow.executors.reactor import Reactor
from trainflow.metadata.queries import trigger_queries
from trainflow.metadata.queries.outbox_queries import OutboxOfChannel
from trainflow.metadata.queries.trigger_queries import TRIGGER
from trainflow.settings.load import load_settings
from trainflow.settings.model import Settings, TrackingSettings
from trainflow.settings.outbox_channels import OutboxChannel
from trainflow.settings.telemetry import TelemetrySettings
from trainflow.telemetry.otlp import protobuf_of


class Collector:
    """A small receiver of OTLP over HTTP; it answers the next requests with `refuse`'s codes first."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.spans: list[Span] = []
        self.refuse: list[int] = []

    def take(self, path: str, headers: dict[str, str], body: bytes) -> int:
        if self.refuse:
            return self.refuse.pop(0)
        if headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        if headers["content-type"] == "application/json":
            body = protobuf_of(json.loads(body))
        request = ExportTraceServiceRequest()
        request.ParseFromString(body)
        self.paths.append(path)
        self.headers.append(headers)
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.spans += scope.spans
        return 200

    @property
    def names(self) -> list[str]:
        return [span.name.removeprefix("trainflow.") for span in self.spans]


@contextmanager
def collecting() -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            self.send_response(collector.take(self.path, headers, body))
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            return None

    server = HTTPServer(("127.0.0.1", 0), Handler)
    collector = Collector(server.server_port)
    with serving(server):
        yield collector


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as found:
        yield found


@contextmanager
def telling(root: Path, settings: TelemetrySettings) -> Iterator[tuple[ControlPlane, TelemetryDispatcher]]:
    given = Settings(tracking=TrackingSettings(enabled=False), telemetry=settings)
    with control_plane(root, settings=given) as plane:
        reactor = Reactor(plane.clock)
        dispatcher = TelemetryDispatcher(
            plane.database,
            reactor,
            clock=plane.clock,
            versions=plane.versions,
            project=plane.project,
            settings=given,
        )
        plane.add_dag("d", empty_task("a"))
        yield plane, dispatcher
        dispatcher.close()
        reactor.close()


def play(plane: ControlPlane, run_id: str = "r1") -> None:
    """A run whose task waits in the triggerer for a minute."""
    plane.add_run("d", run_id)
    (work,) = plane.tick()
    plane.clock.advance(timedelta(seconds=2))
    plane.play(work, O.DEFERRED, deferral=DEFERRAL)
    plane.clock.advance(timedelta(minutes=1))
    with plane.database.transaction() as connection:
        waiting = connection.execute(select(TRIGGER.c.id)).scalar_one()
        trigger_queries.fire(connection, waiting, msgspec.Raw(b"null"), plane.clock.now())
    plane.scheduler.sweep()
    (again,) = plane.tick()
    plane.claim(again)
    plane.clock.advance(timedelta(seconds=3))
    plane.report(again)
    plane.tick()


def drain(dispatcher: TelemetryDispatcher) -> None:
    dispatcher.drain(30, lambda: False)


@pytest.mark.parametrize("protocol", ["http/protobuf", "http/json"])
def test_run_is_traced_with_its_attempts_and_waits(tmp_path: Path, collector: Collector, protocol: Any) -> None:
    settings = TelemetrySettings(endpoint=collector.url, protocol=protocol, compression="gzip", headers={"x-key": "k"})
    with telling(tmp_path, settings) as (plane, dispatcher):
        play(plane)
        drain(dispatcher)
    assert collector.paths == ["/v1/traces"]
    assert collector.headers[0]["x-key"] == "k"
    assert collector.names == ["run", "attempt", "wait", "wait"]
    seconds = [(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9 for span in collector.spans]
    assert seconds == [65, 65, 2, 60]


def test_collector_that_is_away_is_told_later_in_order(tmp_path: Path, collector: Collector) -> None:
    with telling(tmp_path, TelemetrySettings(endpoint=collector.url)) as (plane, dispatcher):
        collector.refuse = [503]
        play(plane, "r1")
        play(plane, "r2")
        drain(dispatcher)
        assert collector.names == []
        plane.clock.advance(timedelta(minutes=1))
        drain(dispatcher)
        with plane.database.reading() as connection:
            assert OutboxOfChannel(OutboxChannel.OPENTELEMETRY).undelivered(connection).waiting == 0
    told = [
        attribute.value.string_value
        for span in collector.spans
        if span.name == "trainflow.run"
        for attribute in span.attributes
        if attribute.key == "trainflow.run_id"
    ]
    assert told == ["r1", "r2"]


def test_task_is_told_the_span_that_its_attempt_becomes(tmp_path: Path, collector: Collector) -> None:
    with telling(tmp_path, TelemetrySettings(endpoint=collector.url)) as (plane, dispatcher):
        plane.add_run("d", "r1")
        (work,) = plane.tick()
        plane.play(work)
        plane.tick()
        drain(dispatcher)
    run, attempt = collector.spans[:2]
    assert work.traceparent == f"00-{attempt.trace_id.hex()}-{attempt.span_id.hex()}-01"
    assert attempt.parent_span_id == run.span_id


@pytest.mark.parametrize("flags", ["01", "00"])
def test_trace_in_which_a_run_was_asked_for_is_continued(tmp_path: Path, collector: Collector, flags: str) -> None:
    trace, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    with telling(tmp_path, TelemetrySettings(endpoint=collector.url)) as (plane, dispatcher):
        plane.add_run("d", "r1", traceparent=f"00-{trace}-{span}-{flags}")
        (work,) = plane.tick()
        assert (work.traceparent[:35], work.traceparent[-2:]) == (f"00-{trace}", flags)
        plane.play(work)
        plane.tick()
        drain(dispatcher)
        with plane.database.reading() as connection:
            assert OutboxOfChannel(OutboxChannel.OPENTELEMETRY).undelivered(connection).waiting == 0
    # whose beginning is not kept is not told
    assert {each.trace_id.hex() for each in collector.spans} == ({trace} if flags == "01" else set())
    assert [each.parent_span_id.hex() for each in collector.spans][:1] == ([span] if flags == "01" else [])


def test_task_of_runs_that_are_not_traced_is_told_no_span(tmp_path: Path) -> None:
    with control_plane(tmp_path) as plane:
        plane.add_dag("d", empty_task("a"))
        plane.add_run("d")
        (work,) = plane.tick()
        assert work.traceparent == ""


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, "http://c:4318/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/t"}, "http://c/t"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "true"}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_EXPORTER": "none"}, None),
    ],
)
def test_opentelemetrys_own_variables_are_understood(
    tmp_path: Path, environ: dict[str, str], expected: str | None
) -> None:
    with control_plane(tmp_path) as plane:
        found = load_settings(plane.project, environ).telemetry
    assert (found.traces_url if found.is_on else None) == expected


def test_headers_and_resource_of_the_environment_are_decoded(tmp_path: Path) -> None:
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318",
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Basic%20abc,x=1",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=prod",
        "OTEL_SERVICE_NAME": "trainer",
    }
    with control_plane(tmp_path) as plane:
        found = load_settings(plane.project, environ).telemetry
    assert found.headers == {"authorization": "Basic abc", "x": "1"}
    assert (found.service_name, found.resource_attributes) == ("trainer", {"deployment.environment": "prod"})


def test_engine_without_telemetry_imports_none_of_it() -> None:
    import subprocess

    code = (
        "import sys, trainflow.engine.engine, trainflow.engine.channels;"
        "print([name for name in sys.modules if name.split('.')[0] in ('opentelemetry', 'openlineage', 'google')"
        " or name.startswith(('trainflow.telemetry', 'trainflow.openlineage'))])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
