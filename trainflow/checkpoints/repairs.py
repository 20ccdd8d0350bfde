"""Which holes of a chain are to be repaired."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from trainflow.checkpoints.entries import Checkpoint, LedgerEntry, Rewind, Skip
from trainflow.checkpoints.ledger import Ledger
from trainflow.checkpoints.republished import PARTITIONS, comparable
from trainflow.checkpoints.state import ChainState
from trainflow.checkpoints.tiling import Stretch, without
from trainflow.clock import ensure_utc
from trainflow.samples.inventory import open_inventory
from trainflow.samples.partitions import at_or_after, length_of
from trainflow.samples.readiness import Presence
from trainflow.samples.spec import Samples
from trainflow.samples.split import Hole


def open_holes(ledger: Ledger, *, skipped: bool = False) -> list[Hole]:
    """What the line stepped over and has not trained since; without what a gate or a person skipped, whose samples
    were there, unless `skipped`.

    Reads every entry where something is to be left out. Raises LedgerCorrupt, StoreFailure.
    """
    holes = [each.hole for each in ledger.state().holes]
    left_out = [] if skipped or not holes else skipped_stretches(ledger.entries())
    return [
        Hole(ensure_utc(start), ensure_utc(end), hole.reason)
        for hole in holes
        for start, end in without((hole.start, hole.end), left_out)
    ]


def newest_arrived(state: ChainState, samples: Samples, root: Path | None, now: datetime) -> int:
    """How many of the last partitions that the line stepped over are there now: one listing each, of a few of them.

    Raises SampleUnreadable.
    """
    length = length_of(samples)
    starts: list[datetime] = []
    for hole in reversed(state.holes):
        end, first = ensure_utc(hole.hole.end), at_or_after(samples, hole.hole.start)
        count = min((end - first) // length, PARTITIONS - len(starts))
        starts += [end - number * length for number in range(1, count + 1)]
    if not starts:
        return 0
    states = open_inventory(comparable(samples), root, now).states(starts)
    return sum(state.presence is Presence.READY for state in states)


def skipped_stretches(entries: Iterable[LedgerEntry]) -> list[Stretch]:
    """What was skipped on purpose on the line."""
    skips: list[tuple[int, Stretch]] = []
    sequences: dict[str, int] = {}
    for entry in entries:
        match entry:
            case Checkpoint():
                sequences[entry.id] = entry.sequence
            case Skip():
                skips.append((entry.sequence, (entry.start, entry.end)))
            case Rewind():
                last = sequences.get(entry.to_checkpoint_id or "", 0)
                skips = [each for each in skips if each[0] < last]
    return [stretch for _, stretch in skips]
