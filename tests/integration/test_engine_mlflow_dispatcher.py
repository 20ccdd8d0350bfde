"""A promotion's way into the outbox: after its run, once; by hand as often as it is made."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from tests.support.control_plane import ControlPlane, control_plane
from trainflow.engine.mlflow_dispatcher import delivery_of, enqueue_promotion, follow_ups
from trainflow.metadata.queries.dag_queries import Versions
from trainflow.metadata.queries.outbox_queries import OutboxOfChannel
from trainflow.settings.model import Settings
from trainflow.settings.outbox_channels import OutboxChannel
from trainflow.settings.project import project_at
from trainflow.tracking.deliveries import (
    AliasMoved,
    Demoted,
    Promoted,
    RunFinished,
    TrackedChain,
    TrackedCheckpoint,
    TrackedRun,
)

AT = datetime(2026, 1, 1, tzinfo=UTC)
RUN = TrackedRun(TrackedChain("flights"), "flights", "r1", AT)
CHECKPOINT = TrackedCheckpoint("c1", 3, "file:///c/1", AT)
FINISHED = RunFinished(RUN, "success", AT, checkpoint=CHECKPOINT, promoted=["champion", "newest"])
MOVED = AliasMoved("champion", ["c9"], CHECKPOINT)


@pytest.mark.parametrize(
    ("delivery", "aliases"),
    [
        (FINISHED, ["champion", "newest"]),
        (msgspec.structs.replace(FINISHED, promoted=[]), []),
        (msgspec.structs.replace(FINISHED, checkpoint=None), []),
        (Promoted(RUN, "champion", CHECKPOINT), []),
    ],
)
def test_promotion_after_delivery_follows_it(delivery: RunFinished | Promoted, aliases: list[str]) -> None:
    assert follow_ups(delivery) == [Promoted(RUN, alias, CHECKPOINT) for alias in aliases]


def test_promotion_rewound_alias_is_removed_before_new_one_is_set() -> None:
    both = msgspec.structs.replace(FINISHED, moved=[MOVED])
    assert follow_ups(both) == [Demoted(RUN, MOVED), *follow_ups(FINISHED)]
    # also of a run that has committed nothing
    assert follow_ups(msgspec.structs.replace(both, checkpoint=None, state="failed")) == [Demoted(RUN, MOVED)]


def test_promotion_rewound_alias_is_removed_once(tmp_path: Path) -> None:
    by_run, by_hand = Demoted(RUN, MOVED), Demoted(msgspec.structs.replace(RUN, run_id=""), MOVED)
    other = Demoted(RUN, AliasMoved("champion", ["c9", "c1"]))
    with control_plane(tmp_path) as plane:
        for each in (by_run, by_hand, other):
            plane.database.write(lambda connection, each=each: enqueue_promotion(connection, each, AT))
        assert pending(plane, tmp_path) == [by_run, other]


def pending(plane: ControlPlane, root: Path) -> list[object]:
    with plane.database.reading() as connection:
        rows = OutboxOfChannel(OutboxChannel.MLFLOW).pending(connection, plane.clock.now())
        return [delivery_of(connection, row, Versions(), project_at(root), Settings(), AT) for row in rows]


def test_promotion_of_run_is_delivered_once_and_by_hand_each_time(tmp_path: Path) -> None:
    promoted = Promoted(RUN, "champion", CHECKPOINT)
    with control_plane(tmp_path) as plane:
        for _ in range(2):
            plane.database.write(lambda connection: enqueue_promotion(connection, promoted, AT))
        assert pending(plane, tmp_path) == [promoted]

        for second in (1, 2):
            when = AT.replace(second=second)
            plane.database.write(
                lambda connection, when=when: enqueue_promotion(connection, promoted, when, by_hand=True)
            )
        plane.clock.advance(AT.replace(second=5) - AT)

        assert pending(plane, tmp_path) == [promoted] * 3
