"""The numbers of checkpoints: what people call them, 1, 2, 3 … Pure, and a function of the ledger alone.

- The first checkpoint of a chain is number 1, each one that is committed later has the next number.
- Nothing takes a number back: not a rewind, whose undone checkpoints keep theirs, nor a prune.
- A branch counts on from the checkpoint it was forked from, so along its line each number is there once.
- What a lost ledger may have numbered is left out, except for checkpoints that are committed again: they keep theirs.

So a number means one checkpoint of a chain for ever, and grows along every line.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from trainflow.checkpoints.ledger.entries import Checkpoint, Fork, LedgerEntry, Loss


def numbered(checkpoint: Checkpoint, last: int) -> Checkpoint:
    """The checkpoint with its number, where its entry does not say it; `last` is the highest number before it."""
    return checkpoint if checkpoint.number else msgspec.structs.replace(checkpoint, number=last + 1)


def last_number(last: int, entry: LedgerEntry) -> int:
    """The highest number in a chain after `entry`, when it was `last` before it."""
    match entry:
        case Checkpoint(number=number):
            return max(last, number or last + 1)
        case Fork(number=number):
            return number
        case Loss():
            return last + entry.last - entry.first + 1
        case _:
            return last


def with_numbers(entries: Iterable[LedgerEntry], last: int = 0) -> Iterator[LedgerEntry]:
    """The entries that follow where the highest number is `last`, with the numbers of their checkpoints."""
    for entry in entries:
        yield numbered(entry, last) if isinstance(entry, Checkpoint) else entry
        last = last_number(last, entry)


def number_problem(checkpoint: Checkpoint, head: int, last: int) -> str | None:
    """Why a checkpoint cannot have its number behind a head of number `head`, where `last` is the highest; None when it
    can."""
    first = head + 1 if checkpoint.recovered else last + 1
    if checkpoint.number == 0 or first <= checkpoint.number <= last + 1:
        return None
    return f"it calls itself checkpoint {checkpoint.number}, checkpoint {last + 1} is due"
