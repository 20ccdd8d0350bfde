"""Rewind: move the head back to an ancestor. An entry; nothing is deleted, training goes forward again from there."""

from __future__ import annotations

from datetime import datetime

from trainflow.checkpoints.entries import Author, Rewind
from trainflow.checkpoints.fold import ChainState
from trainflow.checkpoints.ledger import Ledger
from trainflow.errors import ChainMoved


def rewind(
    ledger: Ledger, to_checkpoint_id: str | None, *, expected_head: str, by: Author, now: datetime, reason: str = ""
) -> Rewind:
    """Make an ancestor of the head the head (None: begin again with an empty chain).

    `expected_head` is the head a person looked at when they decided: a chain that has moved on since is left alone.
    Raises ChainMoved, CheckpointError when the target is no kept ancestor of the head.
    """

    def make(state: ChainState) -> Rewind:
        head = state.head.id if state.head else "none"
        if head != expected_head:
            raise ChainMoved(
                f"chain {ledger.chain}: the head is {head} now, not {expected_head}; nothing was rewound. Look again",
                expected_sequence=0,
                head_sequence=state.head_sequence,
            )
        return Rewind(
            sequence=state.sequence + 1,
            previous=state.digest,
            at=now,
            by=by,
            to_checkpoint_id=to_checkpoint_id,
            reason=reason,
        )

    entry = ledger.append(make)
    assert isinstance(entry, Rewind)
    return entry
