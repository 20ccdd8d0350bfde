"""What a trace tells of a run, that as an `ExportTraceServiceRequest` of OTLP in its JSON form, and the request by
which a collector is sent it."""

from __future__ import annotations

import base64
import importlib.util
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from trainflow.bootstrap import version
from trainflow.errors import EngineError
from trainflow.observability.http_delivery import post
from trainflow.observability.redaction import redact_text
from trainflow.settings.telemetry import TelemetrySettings
from trainflow.telemetry.trace_context import TracedRun, TraceParent


class TracedAttempt(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt, from when it was handed to the executor. `waits`: in the triggerer."""

    task_id: str
    role: str | None
    map_index: int
    try_number: int
    attempt_id: str
    outcome: str
    queued_at: datetime
    started_at: datetime | None
    ended_at: datetime
    hostname: str = ""
    problem: str = ""
    waits: list[tuple[datetime, datetime]] = []


class RunTrace(msgspec.Struct, frozen=True, kw_only=True):
    """One run. `parent`: the span that it was asked for in; `attributes`: what else is known of it, by name."""

    dag_id: str
    run_id: str
    clear_number: int
    state: str
    started_at: datetime
    ended_at: datetime
    note: str = ""
    attributes: dict[str, str | int | float] = {}
    #: of the commit, where there was one
    commit: dict[str, str | int | float] = {}
    attempts: list[TracedAttempt] = []
    parent: TraceParent | None = None

    @property
    def named(self) -> TracedRun:
        """The run by its name, from which all ids follow."""
        return TracedRun(self.dag_id, self.run_id, self.clear_number, self.parent)


Attributes = Mapping[str, str | int | float]

_INTERNAL = 1
_OK, _ERROR = 1, 2
_WELL = frozenset({"success", "skipped", "deferred", "rescheduled"})
_EPOCH_ORDINAL = datetime(1970, 1, 1).toordinal()  # noqa: DTZ001


def request_of(run: RunTrace, resource: Attributes) -> dict[str, Any]:
    """The request; empty of a run that is not told. `resource`: attributes of the service that tells it."""
    if not run.named.is_sampled:
        return {"resourceSpans": []}
    scope = {"name": "trainflow", "version": version()}
    return {
        "resourceSpans": [
            {
                "resource": {"attributes": _attributes(resource)},
                "scopeSpans": [{"scope": scope, "spans": spans_of(run)}],
            }
        ]
    }


def spans_of(run: RunTrace) -> list[dict[str, Any]]:
    """The run's own span, then those of its attempts and their waits."""
    spans = [_run_span(run)]
    for attempt in run.attempts:
        spans += _attempt_spans(run, attempt)
    return spans


def _run_span(run: RunTrace) -> dict[str, Any]:
    known: Attributes = {"trainflow.dag_id": run.dag_id, "trainflow.run_id": run.run_id, "trainflow.state": run.state}
    return {
        **_span(run, "trainflow.run", run.named.span_id(), run.started_at, run.ended_at, {**known, **run.attributes}),
        **({"parentSpanId": run.parent.span_id} if run.parent is not None else {}),
        "status": _status(run.state == "success", run.note),
    }


def _attempt_spans(run: RunTrace, attempt: TracedAttempt) -> list[dict[str, Any]]:
    named = run.named
    own = named.span_id(attempt.attempt_id)
    commits = attempt.role == "commit" and attempt.outcome == "success"
    attributes: dict[str, str | int | float] = {
        "trainflow.dag_id": run.dag_id,
        "trainflow.task_id": attempt.task_id,
        "trainflow.try_number": attempt.try_number,
        "trainflow.attempt_id": attempt.attempt_id,
        "trainflow.outcome": attempt.outcome,
        **({"trainflow.map_index": attempt.map_index} if attempt.map_index >= 0 else {}),
        **({"host.name": attempt.hostname} if attempt.hostname else {}),
        **(run.commit if commits else {}),
    }
    name = "trainflow.commit" if commits else "trainflow.attempt"
    span = {
        **_span(run, name, own, attempt.queued_at, attempt.ended_at, attributes),
        "parentSpanId": named.span_id(),
        "status": _status(attempt.outcome in _WELL, attempt.problem),
    }
    begun = attempt.started_at or attempt.ended_at
    waits = [("slot", attempt.queued_at, begun), *(("trigger", first, last) for first, last in attempt.waits)]
    return [
        span,
        *(
            {
                **_span(run, "trainflow.wait", named.span_id(attempt.attempt_id, number), first, last, {_FOR: what}),
                "parentSpanId": own,
            }
            for number, (what, first, last) in enumerate(waits)
            if last > first
        ),
    ]


#: of a wait: `slot` (of the executor) or `trigger`
_FOR = "trainflow.wait.for"


def _span(
    run: RunTrace, name: str, span_id: str, first: datetime, last: datetime, attributes: Attributes
) -> dict[str, Any]:
    return {
        "traceId": run.named.trace_id,
        "spanId": span_id,
        "name": name,
        "kind": _INTERNAL,
        "startTimeUnixNano": _nanoseconds(first),
        "endTimeUnixNano": _nanoseconds(max(first, last)),
        "attributes": _attributes(attributes),
    }


def _status(well: bool, why: str) -> dict[str, Any]:
    if well:
        return {"code": _OK}
    return {"code": _ERROR, "message": redact_text(why)[:1000]}


def _nanoseconds(moment: datetime) -> str:
    # by whole numbers: a float keeps no microseconds of this century
    offset = moment.utcoffset()
    seconds = (moment.toordinal() - _EPOCH_ORDINAL) * 86_400 + moment.hour * 3600 + moment.minute * 60 + moment.second
    seconds -= int(offset.total_seconds()) if offset is not None else 0
    return str(seconds * 1_000_000_000 + moment.microsecond * 1000)


def _attributes(values: Attributes) -> list[dict[str, Any]]:
    return [{"key": name, "value": _value(value)} for name, value in values.items()]


def _value(value: str | int | float) -> dict[str, Any]:
    if isinstance(value, int):
        return {"intValue": str(value)}
    return {"doubleValue": value} if isinstance(value, float) else {"stringValue": redact_text(value)}


JSON, PROTOBUF = "http/json", "http/protobuf"
_TYPES = {JSON: "application/json", PROTOBUF: "application/x-protobuf"}
#: fields that JSON has in hexadecimal, and protobuf's own JSON in base64
_IDS = frozenset({"traceId", "spanId", "parentSpanId"})


class TraceExporter:
    """The way to one collector. Raises EngineError where the protocol needs a library that is not installed."""

    def __init__(self, settings: TelemetrySettings) -> None:
        if settings.protocol == PROTOBUF and importlib.util.find_spec("opentelemetry.proto") is None:
            raise EngineError(
                "telemetry.protocol: http/protobuf needs opentelemetry-proto: pip install 'trainflow[otel]', "
                "or set http/json"
            )
        self._settings = settings

    def send(self, request: Mapping[str, Any]) -> None:
        """Send one request. Raises DeliveryRefused."""
        settings = self._settings
        body = msgspec.json.encode(request) if settings.protocol == JSON else protobuf_of(request)
        headers = {**settings.headers, "Content-Type": _TYPES[settings.protocol]}
        compress = settings.compression == "gzip"
        post(settings.traces_url, body, headers, timeout_seconds=settings.timeout_seconds, compress=compress)


def protobuf_of(request: Mapping[str, Any]) -> bytes:
    """The same request as protobuf writes it."""
    # loaded when there is something to send
    from google.protobuf.json_format import ParseDict
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    made: bytes = ParseDict(_with_base64(request), ExportTraceServiceRequest()).SerializeToString()
    return made


def _with_base64(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {
            name: base64.b64encode(bytes.fromhex(each)).decode() if name in _IDS else _with_base64(each)
            for name, each in value.items()
        }
    return [_with_base64(each) for each in value] if isinstance(value, list) else value
