"""Time laid out without overlap and without gap: what a split must be, and what is left of a hole. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from trainflow.checkpoints.ledger.entries import HoleRecord, SplitSummary, TrainedPartition
from trainflow.samples.partitions import label

#: [start, end)
Stretch = tuple[datetime, datetime]


def split_problem(split: SplitSummary) -> str | None:
    """Why a split does not tile its time; None when it does."""
    if not split.partitions:
        return "the split has no partition"
    tiles: list[TrainedPartition | HoleRecord] = sorted(
        [*split.partitions, *split.holes], key=lambda tile: (tile.start, tile.end)
    )
    edge = split.start
    for tile in tiles:
        if tile.start >= tile.end:
            return f"{span(tile.start, tile.end)} in the split is empty or ends before it starts"
        if tile.start != edge:
            what = "overlaps what comes before" if tile.start < edge else "leaves a gap that no hole records"
            return f"{span(tile.start, tile.end)} in the split {what} (expected start {label(edge)})"
        edge = tile.end
    if edge != split.end:
        return f"the split says it ends at {label(split.end)}, its last piece ends at {label(edge)}"
    if tiles[-1] in split.holes:
        return "the split ends with a hole: a watermark may only pass a hole together with a partition after it"
    return None


def without(stretch: Stretch, others: Iterable[Stretch]) -> list[Stretch]:
    """What is left of a stretch when the others are taken away, in order."""
    edge, end = stretch
    left: list[Stretch] = []
    for start, stop in sorted(others):
        if stop <= edge or start >= end:
            continue
        if start > edge:
            left.append((edge, start))
        edge = stop
    if edge < end:
        left.append((edge, end))
    return left


def trained_stretches(split: SplitSummary) -> list[Stretch]:
    """The partitions of a split, neighbours made one."""
    found: list[Stretch] = []
    for each in sorted(split.partitions, key=lambda partition: partition.start):
        if found and found[-1][1] == each.start:
            found[-1] = (found[-1][0], each.end)
        else:
            found.append((each.start, each.end))
    return found


def span(start: datetime, end: datetime) -> str:
    """A stretch for people."""
    return f"[{label(start)}, {label(end)})"
