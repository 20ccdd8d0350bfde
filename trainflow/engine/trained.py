"""Which partitions the line of a chain was trained on, and by which checkpoint. From the ledger's entries."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from trainflow.checkpoints.entries import Checkpoint, HoleFilled, LedgerEntry, Rewind
from trainflow.checkpoints.recent import TrainedBy, trained_in
from trainflow.checkpoints.tiling import trained_stretches, without
from trainflow.clock import ensure_utc
from trainflow.samples.split import Hole


def line_of(entries: Iterable[LedgerEntry]) -> list[Checkpoint]:
    """The checkpoints from the root to the head, those without files any more included."""
    line: list[Checkpoint] = []
    for entry in entries:
        match entry:
            case Checkpoint():
                line.append(entry)
            case Rewind():
                while line and line[-1].id != entry.to_checkpoint_id:
                    line.pop()
    return line


def trained_by(line: Iterable[Checkpoint]) -> dict[datetime, TrainedBy]:
    """Start of a partition (UTC) → the checkpoint that was trained on it."""
    return {each.start: each for entry in line for each in trained_in(entry)}


def holes_of(line: Iterable[Checkpoint]) -> list[Hole]:
    """What the line stepped over and has not trained since."""
    line = list(line)
    trained = [stretch for entry in line if isinstance(entry, HoleFilled) for stretch in trained_stretches(entry.split)]
    return [
        Hole(ensure_utc(start), ensure_utc(end), hole.reason)
        for entry in line
        if not isinstance(entry, HoleFilled)
        for hole in entry.split.holes
        for start, end in without((hole.start, hole.end), trained)
    ]
