"""Promote: give a checkpoint of the line a name. Its files are kept for as long as it has it."""

from __future__ import annotations

from datetime import datetime

from trainflow.checkpoints.entries import Author, Promotion
from trainflow.checkpoints.ledger import Ledger
from trainflow.checkpoints.state import ChainState


class _PromotedAlready(Exception):
    pass


def promote(
    ledger: Ledger, checkpoint_id: str, alias: str, *, by: Author, now: datetime, reason: str = ""
) -> Promotion | None:
    """Make `alias` name a checkpoint; None when it does already, so that a retry may ask again.

    Raises CheckpointError for a checkpoint that is not on the line or has no files any more.
    """

    def make(state: ChainState) -> Promotion:
        if state.promoted.get(alias) == checkpoint_id:
            raise _PromotedAlready
        return Promotion(
            sequence=state.sequence + 1,
            previous=state.digest,
            at=now,
            by=by,
            checkpoint_id=checkpoint_id,
            alias=alias,
            reason=reason,
        )

    try:
        entry = ledger.append(make)
    except _PromotedAlready:
        return None
    assert isinstance(entry, Promotion)
    return entry
