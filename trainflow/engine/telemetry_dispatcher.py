"""Carry the outbox to a collector of OpenTelemetry."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from trainflow.engine.channel_dispatcher import ChannelDispatcher
from trainflow.engine.run_traces import run_trace
from trainflow.settings.outbox_channels import OutboxChannel
from trainflow.telemetry.exporter import TraceExporter
from trainflow.telemetry.otlp import request_of


class TelemetryDispatcher(ChannelDispatcher):
    """The outbox's way to OpenTelemetry."""

    channel = OutboxChannel.OPENTELEMETRY
    system = "OpenTelemetry"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        telemetry = self._settings.telemetry
        self.drain_seconds = telemetry.drain_seconds
        self._resource = {
            "service.name": telemetry.service_name,
            "trainflow.project": self._project.root.name,
            **telemetry.resource_attributes,
        }
        self._exporter = TraceExporter(telemetry)

    def _content(self, connection: Connection, row: Any) -> dict[str, Any]:
        return request_of(run_trace(connection, row, self._versions), self._resource)

    def _send(self, content: Any) -> None:
        # nothing of a run whose trace is not kept by who began it
        if content["resourceSpans"]:
            self._exporter.send(content)
