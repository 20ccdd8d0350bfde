"""`[telemetry]`, and the environment variables of OpenTelemetry's SDKs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from trainflow.settings.units import Seconds

_EXPORTER = "OTEL_EXPORTER_OTLP_"


class TelemetrySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[telemetry]`: runs as traces of OpenTelemetry, by OTLP over HTTP."""

    #: a collector (`http://localhost:4318`), to which `/v1/traces` is added; without it OTEL_EXPORTER_OTLP_ENDPOINT;
    #: without that nothing is sent
    endpoint: str | None = None
    #: the whole address, instead of `endpoint`; without it OTEL_EXPORTER_OTLP_TRACES_ENDPOINT
    traces_endpoint: str | None = None
    #: `http/protobuf` or `http/json`; without it OTEL_EXPORTER_OTLP_PROTOCOL
    protocol: Literal["http/protobuf", "http/json"] = "http/protobuf"
    #: headers of each request; better kept in the environment, also as OTEL_EXPORTER_OTLP_HEADERS: they hold secrets
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    #: `gzip` or `none`
    compression: Literal["none", "gzip"] = "none"
    #: how long a collector may take to answer
    timeout_seconds: Seconds = 10.0
    #: what traces say of who tells them; without it OTEL_SERVICE_NAME
    service_name: str = "trainflow"
    #: what else they say of it; without it OTEL_RESOURCE_ATTRIBUTES
    resource_attributes: dict[str, str] = msgspec.field(default_factory=dict)
    #: send nothing, whatever else is set; OTEL_SDK_DISABLED and OTEL_TRACES_EXPORTER=none do the same
    disabled: bool = False
    #: how long a `start` that has finished waits for the last traces to be taken
    drain_seconds: Seconds = 10.0

    def __post_init__(self) -> None:
        for name in ("endpoint", "traces_endpoint"):
            url = getattr(self, name)
            if url is not None and not url.startswith(("http://", "https://")):
                raise ValueError(f"{name}: does not begin with http:// or https://")

    @property
    def is_on(self) -> bool:
        """Whether traces are sent."""
        return not self.disabled and (self.endpoint or self.traces_endpoint) is not None

    @property
    def traces_url(self) -> str:
        """Where traces are sent to."""
        return self.traces_endpoint or f"{(self.endpoint or '').rstrip('/')}/v1/traces"


def from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """What the variables say, as a table `[telemetry]`. Those for traces come before those for everything. Where they
    ask for gRPC, which is not spoken here, they name no endpoint."""

    def given(name: str) -> str | None:
        return environ.get(f"{_EXPORTER}TRACES_{name}") or environ.get(f"{_EXPORTER}{name}") or None

    found: dict[str, Any] = {}
    if _is_true(environ.get("OTEL_SDK_DISABLED")) or environ.get("OTEL_TRACES_EXPORTER", "otlp") == "none":
        found["disabled"] = True
    if environ.get("OTEL_SERVICE_NAME"):
        found["service_name"] = environ["OTEL_SERVICE_NAME"]
    if environ.get("OTEL_RESOURCE_ATTRIBUTES"):
        found["resource_attributes"] = _pairs(environ["OTEL_RESOURCE_ATTRIBUTES"])
    protocol = given("PROTOCOL")
    if protocol == "grpc":
        return found
    if protocol is not None:
        found["protocol"] = protocol
    endpoint = environ.get(f"{_EXPORTER}TRACES_ENDPOINT")
    if endpoint:
        found["traces_endpoint"] = endpoint
    elif environ.get(f"{_EXPORTER}ENDPOINT"):
        found["endpoint"] = environ[f"{_EXPORTER}ENDPOINT"]
    if (headers := given("HEADERS")) is not None:
        found["headers"] = _pairs(headers)
    if given("COMPRESSION") == "gzip":
        found["compression"] = "gzip"
    return found


def _is_true(text: str | None) -> bool:
    return (text or "").strip().lower() == "true"


def _pairs(text: str) -> dict[str, str]:
    """`key=value,key2=value2`, percent-encoded."""
    from urllib.parse import unquote  # of those who have such variables alone

    parts = [part.partition("=") for part in text.split(",") if "=" in part]
    return {unquote(name.strip()): unquote(value.strip()) for name, _, value in parts}
