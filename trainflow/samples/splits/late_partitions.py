"""Holes that have samples by now: what can be trained of them, one stretch at a time.

Pure rules over holes and what an inventory says; nothing is remembered, so every caller gets the same answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from trainflow.clock import ensure_utc
from trainflow.errors import SampleCheckFailed, SampleDamaged, SampleFileMissing, SampleUnreadable
from trainflow.samples.partitions import end_of, shift
from trainflow.samples.spec import Samples, SplitLimits
from trainflow.samples.splits.gap_policy import TableView
from trainflow.samples.splits.split import Split, SplitBuilder
from trainflow.samples.splits.split_content import Columns, Hole


def arrived(samples: Samples, holes: Iterable[Hole], seen: TableView) -> Iterator[datetime]:
    """Starts of the partitions inside `holes` that are ready now and have a file, ascending: nothing is trained on no
    rows alone. Costs what is there, not what is not."""
    for hole in merged(holes):
        for start in seen.later(shift(samples, hole.start, -1)):
            if end_of(samples, start) > hole.end:
                break
            if start >= hole.start and seen.state(start).has_samples:
                yield start


def next_repair(
    samples: Samples, holes: Iterable[Hole], limits: SplitLimits, seen: TableView, columns: Columns = ()
) -> Split | None:
    """The first partitions in a hole that have arrived and are good: neighbours, up to the limits. None: there are
    none. `columns` are those of the split that the chain was trained on last.

    A partition that a check refuses, or that is damaged, stays a hole. Raises SampleUnreadable where one could not be
    read for another reason, and no other has arrived: then it is not known whether there is something to train.
    """
    building: SplitBuilder | None = None
    unreadable: SampleUnreadable | None = None
    for start in arrived(samples, holes, seen):
        if building is not None and (start != building.end or building.full(limits)):
            break
        begun = building or SplitBuilder(samples, start, seen.unified(columns))
        try:
            taken = begun.take(seen.content(start), limits)
        except (SampleCheckFailed, SampleUnreadable) as error:
            if building is not None:
                break
            if not isinstance(error, SampleCheckFailed | SampleDamaged | SampleFileMissing):
                unreadable = unreadable or error
            continue
        if not taken:
            break
        building = begun
    if building is None and unreadable is not None:
        raise unreadable
    return building.split() if building is not None else None


def without_stretch(holes: Iterable[Hole], start: datetime, end: datetime) -> list[Hole]:
    """What is left of the holes when a stretch is trained."""
    left: list[Hole] = []
    for hole in holes:
        parts = ((hole.start, min(hole.end, start)), (max(hole.start, end), hole.end))
        left += (Hole(first, last, hole.reason) for first, last in parts if first < last)
    return left


def merged(holes: Iterable[Hole]) -> list[Hole]:
    """Holes in order of time, neighbours made one: a partition knows nothing of why each was stepped over."""
    found: list[Hole] = []
    for hole in sorted(holes, key=lambda each: each.start):
        start, end = ensure_utc(hole.start), ensure_utc(hole.end)
        last = found[-1] if found else None
        if last is not None and start <= last.end:
            found[-1] = Hole(last.start, max(last.end, end), last.reason)
        else:
            found.append(Hole(start, end, hole.reason))
    return found
