"""Send a trace to a collector, by OTLP over HTTP."""

from __future__ import annotations

import base64
import importlib.util
from collections.abc import Mapping
from typing import Any

import msgspec

from trainflow.errors import EngineError
from trainflow.observability.http_delivery import post
from trainflow.settings.telemetry import TelemetrySettings

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
