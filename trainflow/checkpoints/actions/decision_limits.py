"""What persons have decided about the newest part of a line: gates do not take it back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from trainflow.checkpoints.ledger.entries import Checkpoint, LedgerEntry, Rewind, Skip
from trainflow.checkpoints.ledger.state import CheckpointSummary


def rewind_floor(line: Sequence[CheckpointSummary], since: int, entries: Iterable[LedgerEntry]) -> int:
    """The place of the checkpoint that holds the newest decision after entry `since`: one that was accepted, or the one
    after a split that a person skipped (the head, where it is not there yet); 0: no person has decided anything.

    `entries` are those after number `since`, `line` the kept checkpoints of the line. Pure.
    """
    decisions: list[int] = []
    sequences: dict[str, int] = {}
    for entry in entries:
        match entry:
            case Checkpoint():
                sequences[entry.id] = entry.sequence
                if entry.accepted is not None:
                    decisions.append(entry.sequence)
            case Skip() if entry.by.person:
                decisions.append(entry.sequence)
            case Rewind():
                last = sequences.get(entry.to_checkpoint_id or "", since)
                decisions = [each for each in decisions if each <= last]
    if not decisions or not line:
        return 0
    return next((each.number for each in line if each.sequence >= decisions[-1]), line[-1].number)
