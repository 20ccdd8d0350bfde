"""Which systems outside are told of runs, by the outbox of the metadata database: each by a channel of its own."""

from __future__ import annotations

from enum import StrEnum

from trainflow.settings.model import Settings


class OutboxChannel(StrEnum):
    """A system that is told. What one does not take delays no other."""

    MLFLOW = "mlflow"
    OPENLINEAGE = "openlineage"
    OPENTELEMETRY = "opentelemetry"


#: told of every run, once it has ended
_TRACES = OutboxChannel.OPENTELEMETRY

Channels = tuple[OutboxChannel, ...]


def channels_of(settings: Settings) -> Channels:
    """The channels that are switched on."""
    is_on = {
        OutboxChannel.MLFLOW: settings.tracking.enabled,
        OutboxChannel.OPENLINEAGE: settings.openlineage.is_on,
        OutboxChannel.OPENTELEMETRY: settings.telemetry.is_on,
    }
    return tuple(channel for channel, on in is_on.items() if on)


def told_of_start(channels: Channels, *, trains: bool) -> Channels:
    """Channels that are told that a run has begun; `trains`: it works on a chain."""
    return tuple(channel for channel in channels if channel is not _TRACES) if trains else ()


def told_of_end(channels: Channels, *, trains: bool) -> Channels:
    """Channels that are told that a run has ended; `trains`: it works on a chain."""
    return channels if trains else tuple(channel for channel in channels if channel is _TRACES)
