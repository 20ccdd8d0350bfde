"""Carry the outbox to a collector of OpenTelemetry."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from trainflow.clock import Clock
from trainflow.engine.channel_dispatcher import ChannelAnswer, ChannelDispatcher, ChannelJob
from trainflow.engine.run_traces import run_trace
from trainflow.errors import DeliveryRefused
from trainflow.executors.reactor import Reactor
from trainflow.metadata.database import Database
from trainflow.metadata.queries.dag_queries import Versions
from trainflow.settings.model import Settings
from trainflow.settings.outbox_channels import OutboxChannel
from trainflow.settings.project import Project
from trainflow.telemetry.exporter import TraceExporter
from trainflow.telemetry.otlp import request_of


class TelemetryDispatcher(ChannelDispatcher):
    """The outbox's way to OpenTelemetry."""

    channel = OutboxChannel.OPENTELEMETRY
    system = "OpenTelemetry"

    def __init__(
        self,
        database: Database,
        reactor: Reactor,
        *,
        clock: Clock,
        versions: Versions,
        project: Project,
        settings: Settings,
    ) -> None:
        super().__init__(database, reactor, clock)
        self.drain_seconds = settings.telemetry.drain_seconds
        self._versions = versions
        self._resource = {
            "service.name": settings.telemetry.service_name,
            "trainflow.project": project.root.name,
            **settings.telemetry.resource_attributes,
        }
        self._exporter = TraceExporter(settings.telemetry)

    def _content(self, connection: Connection, row: Any) -> dict[str, Any]:
        return request_of(run_trace(connection, row, self._versions), self._resource)

    def _deliver(self, job: ChannelJob) -> ChannelAnswer:
        try:
            self._exporter.send(job.content)
        except DeliveryRefused as error:
            return ChannelAnswer(str(error), retry=error.retry)
        return ChannelAnswer()
