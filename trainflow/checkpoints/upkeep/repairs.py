"""Which holes of a chain are to be repaired."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from trainflow.checkpoints.ledger.state import ChainState
from trainflow.checkpoints.ledger.tiling import without
from trainflow.checkpoints.upkeep.republished import PARTITIONS, comparable
from trainflow.clock import ensure_utc
from trainflow.samples.partitions import at_or_after, place_of, shift
from trainflow.samples.spec import Samples
from trainflow.samples.splits.split_content import Hole
from trainflow.samples.table.inventory import open_inventory
from trainflow.samples.table.readiness import Readiness


def open_holes(state: ChainState, *, skipped: bool = False) -> list[Hole]:
    """What the line stepped over and has not trained since; without what a gate or a person left out, whose samples
    were there, unless `skipped`."""
    left_out = [] if skipped else [(each.start, each.end) for each in state.left_out]
    return [
        Hole(ensure_utc(start), ensure_utc(end), each.hole.reason)
        for each in state.holes
        for start, end in without((each.hole.start, each.hole.end), left_out)
    ]


def newest_arrived(state: ChainState, samples: Samples, root: Path | None, now: datetime) -> int:
    """How many of the last partitions that were missing are there now: one listing each, of a few of them.

    Raises SampleUnreadable.
    """
    starts: list[datetime] = []
    for hole in reversed(open_holes(state)):
        first, end = place_of(samples, at_or_after(samples, hole.start)), place_of(samples, hole.end)
        places = range(end - 1, max(first, end - (PARTITIONS - len(starts))) - 1, -1)
        starts += [shift(samples, samples.start, place) for place in places]
    if not starts:
        return 0
    states = open_inventory(comparable(samples), root, now).states(starts)
    return sum(state.presence is Readiness.READY for state in states)
