"""Go on with another grid of the samples: an entry of the ledger, from which on it holds.

The chain stays exact: what was trained stays, the new grid begins where the chain ends, which has to be a boundary of
it, and what the table has before where the chain began becomes a hole, which can be repaired like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

import msgspec

from trainflow.checkpoints.ledger.ancestors import TrainedBy, line_from_head, trained_in
from trainflow.checkpoints.ledger.entries import Author, HoleRecord, Regrid
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger.rules import change_of
from trainflow.checkpoints.ledger.state import ChainState
from trainflow.checkpoints.ledger_changes.rewind import raise_if_moved
from trainflow.clock import ensure_utc
from trainflow.errors import InputError
from trainflow.humanize import counted
from trainflow.samples.grid import Grid
from trainflow.samples.grid_change import GridChange, sentence_about
from trainflow.samples.partitions import label

#: so many of the newest trained partitions are compared where a table has moved
COMPARED = 1000

#: the fingerprints that partitions have now, by their starts; None: it is not there
Fingerprints = Callable[[Sequence[datetime]], Sequence[str | None]]


def refuse_change(ledger: Ledger, grid: Grid) -> None:
    """Raise InputError, which names the ways out, for a grid that the chain cannot simply go on with."""
    change = change_of(ledger.state(), grid)
    if change is not None:
        raise InputError(sentence_about(change, ledger.chain.arguments, ledger.chain.fork_arguments))


class RegridComparison(msgspec.Struct, frozen=True):
    """What became of partitions that were trained, in the table as it is now."""

    same: int
    #: starts
    other: list[datetime]
    missing: int


def compare(ledger: Ledger, fingerprints: Fingerprints) -> RegridComparison:
    """The newest partitions that were trained against what is there now. Raises LedgerCorrupt, StoreFailure, and what
    `fingerprints` raises."""
    trained: list[TrainedBy] = []
    for entry in line_from_head(ledger, ledger.state()):
        trained += trained_in(entry)
        if len(trained) >= COMPARED:
            break
    found = list(zip(trained, fingerprints([each.start for each in trained]), strict=True))
    other = sorted(each.start for each, now in found if now is not None and now != each.fingerprint)
    missing = sum(now is None for _, now in found)
    return RegridComparison(len(found) - len(other) - missing, other, missing)


def regrid(
    ledger: Ledger,
    grid: Grid,
    *,
    expected_head: str | None,
    compared: RegridComparison | None = None,
    by: Author,
    now: datetime,
    reason: str = "",
) -> Regrid | None:
    """Record that the chain goes on with `grid`; None: it may anyway. `compared`: of a table that has moved.

    Raises InputError where that would not be exact, ChainMoved when the head is not `expected_head` any more.
    """

    def make(state: ChainState) -> Regrid | None:
        raise_if_moved(ledger, state, expected_head, "the grid was not changed")
        change = change_of(state, grid)
        if change is None:
            return None
        problem = _problem(state, change, compared)
        if problem is not None:
            raise InputError(f"chain {ledger.chain} cannot go on with {grid}: {problem}")
        untrained = change.untrained
        return Regrid(
            **state.header(by, now),
            parent_id=expected_head,
            grid=grid,
            watermark=ensure_utc(change.edge),
            holes=[HoleRecord(untrained.start, untrained.end, untrained.reason)] if untrained else [],
            compared=compared.same if compared else None,
            reason=reason,
        )

    return ledger.append(make)


def _problem(state: ChainState, change: GridChange, compared: RegridComparison | None) -> str | None:
    if state.stopped is not None:
        return (
            f"it is stopped over {state.stopped.id}, trained on the old one: decide first ('trainflow resume PIPELINE')"
        )
    if not change.fits:
        return (
            f"it ends at {label(change.edge)}, where no partition of the new grid begins, so a part of one would come "
            "twice or never; rewind it to where one does ('trainflow checkpoints rewind PIPELINE --before DATE'), or "
            "fork it there"
        )
    if change.elsewhere and compared is not None and compared.other:
        count, first = counted(len(compared.other), "partition"), label(compared.other[0])
        return f"it is another table: {count} that were trained have another content there, the first is {first}"
    if change.elsewhere and (compared is None or not compared.same):
        return (
            "nothing of what was trained is there, so it cannot be told from another table: copy one of the trained "
            "partitions at least, or fork the chain"
        )
    return None
