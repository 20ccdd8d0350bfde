"""Samples that changed after the chain was trained: partitions published again, or gone, and holes that have arrived.

A look costs the partitions it compares: one listing each. Files are opened only where the listing is another one than
when they were trained on: after a copy, a `touch`, or because they were published again. What to do is a pure rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import takewhile
from pathlib import Path

import msgspec

from trainflow.checkpoints.ledger.ancestors import KeptLine, TrainedBy, trained_in, trained_since
from trainflow.checkpoints.ledger.entries import Checkpoint, Replayed, Rewind
from trainflow.checkpoints.ledger.state import ChainState, CheckpointSummary, without
from trainflow.clock import ensure_utc
from trainflow.humanize import agreeing, counted
from trainflow.samples.partitions import at_or_after, end_of, label, origin, place_of, shift
from trainflow.samples.spec import Samples
from trainflow.samples.splits.split_content import Hole
from trainflow.samples.table.inventory import open_inventory

#: so many partitions before the watermark are compared where nothing else is said
PARTITIONS = 24
#: a partition that is written again and again is replayed so often within a day, and then it is told instead
MOST_REPLAYS = 3
_REPLAYS_WITHIN = timedelta(days=1)


class Republication(msgspec.Struct, frozen=True):
    """A partition, the fingerprint that was trained, and the one it has now."""

    start: datetime
    end: datetime
    trained: str
    found: str
    checkpoint_id: str
    number: int


class Replay(msgspec.Struct, frozen=True):
    """Rewind to checkpoint `to` (None: to before the first)."""

    to: str | None
    partitions: list[Republication]


class ReplayRefused(msgspec.Struct, frozen=True):
    """Refusal to rewind, with the reason for people."""

    reason: str


def republished(line: KeptLine, samples: Samples, root: Path | None, now: datetime) -> list[Republication]:
    """The partitions of a line, from its head as far back as policy looks, that have another content now; oldest first.

    One that is gone, or is being written, is not compared. Raises SampleUnreadable, LedgerCorrupt, StoreFailure.
    """
    head = next(iter(line), None) if samples.republished.policy != "ignore" else None
    if head is None:
        return []
    trained = trained_since(line, comparison_start(samples, head.watermark))
    inventory = open_inventory(comparable(samples), root, now)
    inventory.states([each.start for each in trained])
    return list(changed(trained, inventory.fingerprint))


def vanished(
    line: Iterable[Checkpoint], samples: Samples, root: Path | None, now: datetime, to: str | None
) -> list[datetime]:
    """Starts of partitions that a line was trained on after checkpoint `to` (None: at all) and that are not there any
    more, oldest first: after a rewind to it they cannot be trained on again. Costs as many listings as it takes to see
    which partitions there are. Raises SampleUnreadable, LedgerCorrupt, StoreFailure."""
    undone = takewhile(lambda entry: entry.id != to, line)
    # those of another grid, before a regrid, are not found by this one
    starts = sorted(
        each.start for entry in undone for each in trained_in(entry) if end_of(samples, each.start) == each.end
    )
    if not starts:
        return []
    there = open_inventory(samples, root, now).later(starts[0] - timedelta.resolution)
    existing = set(takewhile(lambda start: start <= starts[-1], there))
    return [start for start in starts if start not in existing]


def comparison_start(samples: Samples, watermark: datetime) -> datetime:
    """The first moment that policy looks at."""
    window = samples.republished.window_seconds
    if window is not None:
        return ensure_utc(watermark) - timedelta(seconds=window)
    return shift(samples, origin(samples), place_of(samples, watermark) - PARTITIONS)


def comparable(samples: Samples) -> Samples:
    """The table with what it takes a listing to know: no rows and no checks."""
    ready = samples.ready
    if ready.min_rows is not None:
        ready = msgspec.structs.replace(ready, min_rows=None, min_files=ready.min_files or 1)
    return msgspec.structs.replace(samples, checks=None, ready=ready)


def changed(
    trained: Iterable[TrainedBy], fingerprint: Callable[[datetime, TrainedBy], str | None]
) -> Iterator[Republication]:
    """Partitions that have another fingerprint now (None: it is not there, or not ready)."""
    for each in trained:
        found = fingerprint(each.start, each)
        if found is not None and found != each.fingerprint:
            yield Republication(each.start, each.end, each.fingerprint, found, each.checkpoint_id, each.number)


def replay_of(
    found: Sequence[Republication],
    kept: Sequence[CheckpointSummary],
    parent_of: Callable[[str], str | None],
    earlier: Iterable[Rewind],
    now: datetime,
    gone_after: Callable[[str | None], Sequence[datetime]],
) -> Replay | ReplayRefused:
    """What to rewind to so that `found` is trained again.

    `kept` are the kept checkpoints of the chain; `parent_of` a checkpoint that trained one of `found`; `earlier`: the
    rewinds so far; `gone_after` a rewind to a checkpoint: see `vanished`. A content that was there before counts like a
    new one: what was trained is another. A partition that changes each time is replayed `MOST_REPLAYS` times a day, and
    no more.
    """
    before = [(each, entry.at) for entry in earlier if entry.cause == "replay" for each in entry.replayed]
    for each in found:
        times = sum(ensure_utc(past.start) == each.start and now - at < _REPLAYS_WITHIN for past, at in before)
        if times >= MOST_REPLAYS:
            return ReplayRefused(
                f"{_named([each])} was replayed {times} times within a day: it is written again and again"
            )
    first = min(found, key=lambda each: each.number)
    target = parent_of(first.checkpoint_id)
    if target is not None and not any(each.id == target for each in kept):
        return ReplayRefused(
            f"the files of checkpoint {target}, before {_named([first])}, were pruned: keep more checkpoints "
            "(retention), or rewind further back by hand"
        )
    gone = gone_after(target)
    if gone:
        return ReplayRefused(
            f"{_named([first])} can only be trained on again together with {counted(len(gone), 'partition')} that "
            f"{agreeing(len(gone), 'is', 'are')} not there any more, the first is {label(gone[0])}"
        )
    return Replay(target, list(found))


def replayed_partitions(found: Iterable[Republication]) -> list[Replayed]:
    """Text of the replayed partitions, as the ledger records it."""
    return [Replayed(each.start, each.trained, each.found) for each in found]


def _named(found: Sequence[Republication]) -> str:
    return f"partition {label(found[0].start)}" if len(found) == 1 else counted(len(found), "partition")


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
    return sum(state.has_samples for state in states)
