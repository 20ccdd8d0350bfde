"""The channels of the outbox that are switched on, beside MLflow's. Each is imported only where it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trainflow.executors.reactor import Reactor
from trainflow.metadata.database import Database
from trainflow.settings.model import Settings

if TYPE_CHECKING:
    from trainflow.engine.channel_dispatcher import ChannelDispatcher


def channel_dispatchers(
    settings: Settings, database: Database, reactor: Reactor, **about: Any
) -> list[ChannelDispatcher]:
    """One for each. Raises EngineError where a library is missing that one needs."""
    found: list[ChannelDispatcher] = []
    about = {**about, "settings": settings}
    if settings.openlineage.is_on:
        from trainflow.engine.openlineage_dispatcher import OpenLineageDispatcher

        found.append(OpenLineageDispatcher(database, reactor, **about))
    if settings.telemetry.is_on:
        from trainflow.engine.telemetry_dispatcher import TelemetryDispatcher

        found.append(TelemetryDispatcher(database, reactor, **about))
    return found
