"""Carry the outbox to a server of OpenLineage, or into a file."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from trainflow.clock import Clock
from trainflow.engine.channel_dispatcher import ChannelAnswer, ChannelDispatcher, ChannelJob
from trainflow.engine.lineage_facts import LineageFacts
from trainflow.errors import DeliveryRefused
from trainflow.executors.reactor import Reactor
from trainflow.metadata.database import Database
from trainflow.metadata.queries.dag_queries import Versions
from trainflow.openlineage.events import event_of
from trainflow.openlineage.transport import transport_of
from trainflow.settings.model import Settings
from trainflow.settings.outbox_channels import OutboxChannel
from trainflow.settings.project import Project


class OpenLineageDispatcher(ChannelDispatcher):
    """The outbox's way to OpenLineage."""

    channel = OutboxChannel.OPENLINEAGE
    system = "OpenLineage"

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
        self.drain_seconds = settings.openlineage.drain_seconds
        self._facts = LineageFacts(project, settings, versions)
        self._transport = transport_of(settings.openlineage.transport, project.root)

    def _content(self, connection: Connection, row: Any) -> dict[str, Any]:
        return event_of(self._facts.of(connection, row, self._clock.now()))

    def _deliver(self, job: ChannelJob) -> ChannelAnswer:
        try:
            self._transport.emit(job.content, self._clock.now())
        except DeliveryRefused as error:
            return ChannelAnswer(str(error), retry=error.retry)
        return ChannelAnswer()
