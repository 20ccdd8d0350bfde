"""The outbox: each fact once for each channel, and each channel by itself."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import select, text

from tests.support.control_plane import START, ControlPlane
from trainflow.metadata import schema
from trainflow.metadata.database import Database
from trainflow.metadata.queries import outbox_queries
from trainflow.metadata.queries.outbox_queries import OUTBOX, OutboxOfChannel
from trainflow.settings.outbox_channels import OutboxChannel

CHANNELS = tuple(OutboxChannel)


def tell(plane: ControlPlane, *runs: int) -> None:
    with plane.database.transaction() as connection:
        for run in runs:
            row = SimpleNamespace(id=run, clear_number=0)
            outbox_queries.add(connection, CHANNELS, "run_started", row, START)


def waiting(plane: ControlPlane, channel: OutboxChannel) -> list[int]:
    with plane.database.reading() as connection:
        return [row.dag_run_id for row in OutboxOfChannel(channel).pending(connection, START)]


def ids_of(plane: ControlPlane, channel: OutboxChannel) -> list[int]:
    with plane.database.reading() as connection:
        return list(
            connection.execute(
                select(OUTBOX.c.id).where(OUTBOX.c.channel == channel.value).order_by(OUTBOX.c.id)
            ).scalars()
        )


@pytest.mark.parametrize("channel", CHANNELS)
def test_fact_is_told_once_by_each_channel(plane: ControlPlane, channel: OutboxChannel) -> None:
    tell(plane, 1, 2)
    tell(plane, 2)
    assert waiting(plane, channel) == [1, 2]


@pytest.mark.parametrize("channel", CHANNELS)
def test_channel_that_fails_holds_up_what_comes_behind_it_and_no_other_channel(
    plane: ControlPlane, channel: OutboxChannel
) -> None:
    tell(plane, 1, 2)
    first = ids_of(plane, channel)[0]
    with plane.database.transaction() as connection:
        outbox_queries.failed(connection, first, reason="away", delay=timedelta(minutes=5), now=START)
    others = [each for each in CHANNELS if each is not channel]
    assert waiting(plane, channel) == []
    assert [waiting(plane, each) for each in others] == [[1, 2]] * len(others)
    with plane.database.reading() as connection:
        assert OutboxOfChannel(channel).undelivered(connection)[:2] == (2, "away")


@pytest.mark.parametrize("channel", CHANNELS)
def test_prune_forgets_what_arrived_long_ago_of_its_channel_alone(plane: ControlPlane, channel: OutboxChannel) -> None:
    tell(plane, 1, 2, 3, 4)
    later = START + timedelta(days=40)
    for each in CHANNELS:
        arrived, refused, lately, _waits = ids_of(plane, each)
        with plane.database.transaction() as connection:
            outbox_queries.delivered(connection, arrived, START)
            outbox_queries.given_up(connection, refused, "too long", START)
            outbox_queries.delivered(connection, lately, later)
    before = {each: ids_of(plane, each) for each in CHANNELS}
    with plane.database.transaction() as connection:
        assert OutboxOfChannel(channel).prune(connection, later - timedelta(days=30)) == 1
    for each in CHANNELS:
        assert ids_of(plane, each) == before[each][1 if each is channel else 0 :]


def test_delivery_of_an_older_database_waits_for_mlflow(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/a.db")
    with database.transaction() as connection:
        connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)"))
    schema.upgrade(database, "0018")
    with database.transaction() as connection:
        connection.execute(
            text(
                "INSERT INTO outbox (key, kind, created_at, failures, next_attempt_at) VALUES ('k', 'run', :at, 0, :at)"
            ),
            {"at": "2026-01-01 00:00:00.000000"},
        )
    schema.ensure_schema(database)
    with database.reading() as connection:
        assert [row.key for row in OutboxOfChannel(OutboxChannel.MLFLOW).pending(connection, START)] == ["k"]
    database.close()
