"""What a person may change about the samples of a chain that lives, and what has to be decided first."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from trainflow.samples.grid import Grid
from trainflow.samples.grid_change import grid_change, sentence_about
from trainflow.samples.splits.split_content import Hole

START = datetime(2024, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
OLD = Grid("t/{start:%Y-%m-%dT%H}/", START, 3600)
EDGE = START + 6 * HOUR


def new(**fields: Any) -> Grid:
    return msgspec.structs.replace(OLD, **fields)


@pytest.mark.parametrize(
    ("changed", "verdict"),
    [
        (new(), set()),
        (new(path="t/{start:%Y-%m-%dT%H}"), set()),
        (new(path="t/{start:%FT%H}/"), set()),
        (new(start=START + 2 * HOUR), set()),
        (new(start=EDGE + 2 * HOUR), set()),
        (new(start=START - 2 * HOUR), {"untrained"}),
        (new(start=START - 0.5 * HOUR), {"recut", "untrained", "misfit"}),
        (new(start=START + 0.5 * HOUR), {"recut", "misfit"}),
        (new(length_seconds=7200), {"recut"}),
        (new(length_seconds=5 * 3600), {"recut", "misfit"}),
        (new(length_seconds=1800), {"recut"}),
        (new(length_seconds=0, length_months=1), {"recut", "misfit"}),
        (new(zone="Europe/Berlin"), {"recut"}),
        (new(length_seconds=5 * 3600, start=EDGE + HOUR), {"recut"}),
        (new(path="/mnt/t/{start:%Y-%m-%dT%H}/"), {"elsewhere"}),
        (new(path="t/{start:%Y-%m-%dT%-H}/"), {"elsewhere"}),
        (new(path="t/{start:%Y-%m-%dT%H}.parquet"), {"elsewhere"}),
        (
            new(path="u/{start:%Y-%m-%dT%H}/", length_seconds=7200, start=START - 2 * HOUR),
            {"elsewhere", "recut", "untrained"},
        ),
    ],
)
def test_change_is_judged_by_what_would_be_trained(changed: Grid, verdict: set[str]) -> None:
    found = grid_change(OLD, changed, EDGE, START)
    said = {name for name in ("elsewhere", "recut") if getattr(found, name)}
    said |= {"untrained"} if found.untrained is not None else set()
    said |= set() if found.fits else {"misfit"}
    assert said == verdict
    assert found.refused == bool(verdict)


def test_grid_earlier_start_matters_only_to_chain_from_table_start() -> None:
    earlier = new(start=START - 2 * HOUR)
    assert grid_change(OLD, earlier, EDGE, START).untrained == Hole(
        START - 2 * HOUR, START, "before where the chain began: the samples start earlier now"
    )
    assert not grid_change(OLD, earlier, EDGE, None).refused
    assert not grid_change(OLD, earlier, EDGE, START - 3 * HOUR).refused


@pytest.mark.parametrize(
    ("changed", "says", "way_out"),
    [
        (
            new(length_seconds=7200),
            "a partition was 1h long and is 2h",
            "'trainflow regrid clicks --branch hot' goes on with",
        ),
        (new(length_seconds=5 * 3600), "is 5h", "'trainflow checkpoints rewind clicks --branch hot --before DATE'"),
        (new(start=START - HOUR), "start at 2023-12-31T23:00Z", "'trainflow repair clicks --branch hot --earlier'"),
        (
            new(path="/m/{start:%FT%H}"),
            "their path was t/",
            "'trainflow regrid clicks --branch hot' where it is the same table",
        ),
    ],
)
def test_sentence_says_what_changed_and_ways_out(changed: Grid, says: str, way_out: str) -> None:
    said = sentence_about(grid_change(OLD, changed, EDGE, START), "clicks --branch hot", "clicks --of hot")
    assert says in said
    assert way_out in said
    assert "'trainflow checkpoints fork clicks --of hot --branch NAME'" in said
