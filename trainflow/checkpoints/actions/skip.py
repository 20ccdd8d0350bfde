"""Skip: step over time after the watermark, for good. The next split records it as a hole."""

from __future__ import annotations

from datetime import datetime

from trainflow.checkpoints.actions.head_fence import raise_if_moved
from trainflow.checkpoints.ledger.entries import Author, Skip
from trainflow.checkpoints.ledger.ledger import Ledger
from trainflow.checkpoints.ledger.state import ChainState


def skip(
    ledger: Ledger,
    start: datetime,
    end: datetime,
    *,
    expected_head: str | None,
    by: Author,
    now: datetime,
    reason: str,
) -> Skip | None:
    """Step over [start, end); None when just that was skipped before, so that a retry may ask again.

    `start` is where the chain ends: its watermark, or the end of the skip before. Raises ChainMoved when the head is
    not `expected_head` any more, CheckpointError for a stretch that does not begin there.
    """

    def make(state: ChainState) -> Skip | None:
        raise_if_moved(ledger, state, expected_head, "nothing was skipped")
        if any((each.start, each.end) == (start, end) for each in state.skips):
            return None
        return Skip(
            **state.header(by, now),
            parent_id=expected_head,
            start=start,
            end=end,
            reason=reason,
        )

    return ledger.append(make)
