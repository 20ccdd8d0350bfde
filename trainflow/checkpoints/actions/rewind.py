"""Rewind: move the head back to an ancestor. An entry; nothing is deleted, training goes forward again from there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import dropwhile

from trainflow.checkpoints.actions.head_fence import raise_if_moved
from trainflow.checkpoints.ledger.entries import Author, Checkpoint, Replayed, Rewind
from trainflow.checkpoints.ledger.ledger import Ledger
from trainflow.checkpoints.ledger.state import ChainState, CheckpointSummary


def rewind(
    ledger: Ledger,
    to_checkpoint_id: str | None,
    *,
    expected_head: str | None,
    by: Author,
    now: datetime,
    reason: str = "",
    cause: str = "person",
    replayed: Sequence[Replayed] = (),
) -> Rewind:
    """Make an ancestor of the head the head (None: begin again with an empty chain). Rewinding to the head itself
    takes back the skips after it.

    `expected_head` is the head that was looked at when it was decided: a chain that has moved on since is left alone.
    `cause` is `person`, `gate` or `replay`, for which `replayed` says why. Raises ChainMoved, CheckpointError when the
    target is no kept ancestor of the head.
    """

    def make(state: ChainState) -> Rewind:
        raise_if_moved(ledger, state, expected_head, "nothing was rewound")
        return Rewind(
            **state.header(by, now),
            to_checkpoint_id=to_checkpoint_id,
            reason=reason,
            cause=cause,
            replayed=list(replayed),
            promoted=ledger.aliases_after_rewind(state, to_checkpoint_id),
        )

    return ledger.append(make)


def nearest_kept(ledger: Ledger, line: Iterable[Checkpoint], target: str | None) -> CheckpointSummary | None:
    """The checkpoint that a person's rewind to `target` goes back to: itself, or where its files were pruned the newest
    of its ancestors that is kept. None: to before the first. `line`: from the head back to the root."""
    kept = {each.id: each for each in ledger.line()} if target else {}
    ancestors = dropwhile(lambda entry: entry.id != target, line) if target else iter(())
    return next((kept[entry.id] for entry in ancestors if entry.id in kept), None)


def rewound_checkpoints(ledger: Ledger, target: CheckpointSummary | None) -> set[str]:
    """The checkpoints that a rewind to `target` (None: to before the first) takes off the line."""
    last = target.sequence if target else 0
    return {summary.id for summary in ledger.line() if summary.sequence > last}
