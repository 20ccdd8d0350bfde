"""Carry the outbox to a server of OpenLineage, or into a file."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from trainflow.engine.channel_dispatcher import ChannelDispatcher
from trainflow.engine.lineage_facts import LineageFacts
from trainflow.openlineage.events import event_of
from trainflow.openlineage.transport import transport_of
from trainflow.settings.outbox_channels import OutboxChannel


class OpenLineageDispatcher(ChannelDispatcher):
    """The outbox's way to OpenLineage."""

    channel = OutboxChannel.OPENLINEAGE
    system = "OpenLineage"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.drain_seconds = self._settings.openlineage.drain_seconds
        self._facts = LineageFacts(self._project, self._settings, self._versions)
        self._transport = transport_of(self._settings.openlineage.transport, self._project.root)

    def _content(self, connection: Connection, row: Any) -> dict[str, Any]:
        return event_of(self._facts.of(connection, row, self._clock.now()))

    def _send(self, content: Any) -> None:
        self._transport.emit(content, self._clock.now())
