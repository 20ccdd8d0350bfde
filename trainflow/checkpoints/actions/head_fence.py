"""The fence of what is decided about a head: a chain that has moved on since is left alone."""

from __future__ import annotations

from trainflow.checkpoints.ledger.ledger import Ledger
from trainflow.checkpoints.ledger.state import ChainState
from trainflow.errors import ChainMoved


def raise_if_moved(ledger: Ledger, state: ChainState, expected_head: str | None, outcome: str) -> None:
    """Raises ChainMoved when the head is not the one that was looked at; `outcome` says what was not done."""
    head = state.head.id if state.head else None
    if head == expected_head:
        return
    expected = state.recently(expected_head) if expected_head else None
    raise ChainMoved(
        f"chain {ledger.chain}: the head is {head or 'none'} now, not {expected_head or 'none'}; {outcome}. Look again",
        expected_sequence=expected.sequence if expected else 0,
        head_sequence=state.head_sequence,
    )
