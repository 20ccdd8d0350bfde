"""Which partitions the line of a chain was trained on, and by which checkpoint. From the ledger's entries."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from trainflow.checkpoints.ledger.ancestors import TrainedBy, trained_in
from trainflow.checkpoints.ledger.entries import Checkpoint, HoleFilled, LedgerEntry, Regrid, Rewind
from trainflow.checkpoints.ledger.tiling import trained_stretches, without
from trainflow.clock import ensure_utc
from trainflow.samples.split_content import Hole

#: a checkpoint of the line, or a change of its grid
OnLine = Checkpoint | Regrid


def line_of(entries: Iterable[LedgerEntry]) -> list[OnLine]:
    """The checkpoints from the root to the head, those without files any more included, and the changes of the grid
    between them."""
    line: list[OnLine] = []
    for entry in entries:
        match entry:
            case Checkpoint() | Regrid():
                line.append(entry)
            case Rewind(to_checkpoint_id=target):
                while line and not (isinstance(line[-1], Checkpoint) and line[-1].id == target):
                    line.pop()
    return line


def trained_by(line: Iterable[OnLine]) -> dict[datetime, TrainedBy]:
    """Start of a partition (UTC) → the checkpoint that was trained on it."""
    return {each.start: each for entry in line if isinstance(entry, Checkpoint) for each in trained_in(entry)}


def holes_of(line: Iterable[OnLine]) -> list[Hole]:
    """What the line stepped over and has not trained since."""
    line = list(line)
    trained = [stretch for entry in line if isinstance(entry, HoleFilled) for stretch in trained_stretches(entry.split)]
    return [
        Hole(ensure_utc(start), ensure_utc(end), hole.reason)
        for entry in line
        if not isinstance(entry, HoleFilled)
        for hole in (entry.holes if isinstance(entry, Regrid) else entry.split.holes)
        for start, end in without((hole.start, hole.end), trained)
    ]
