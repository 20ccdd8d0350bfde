"""What the checkpoint task does when the base of its stage has undone what the stage was trained from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainflow.errors import ChainMoved
from trainflow.operators.ledger_author import author_of

if TYPE_CHECKING:
    from trainflow.authoring.context import TaskInstance
    from trainflow.checkpoints.ledger.entries import UpstreamSeen
    from trainflow.checkpoints.ledger.ledger import Ledger
    from trainflow.checkpoints.stages.init_from import InitFrom


def observe_upstream(ledger: Ledger, init: InitFrom | None) -> UpstreamSeen | None:
    """What a checkpoint that is committed now records of the base; None: the stage has none that it follows, or stands
    on its own from the moment it was forked or was given one certain checkpoint."""
    from trainflow.checkpoints.ledger.entries import UpstreamSeen
    from trainflow.checkpoints.ledger.ledger import Ledger

    if init is None or init.checkpoint_id is not None or init.chain.is_same_stage(ledger.chain):
        return None
    return UpstreamSeen(init.chain, Ledger(ledger.store, init.chain).state().generation)


def rewind_after_upstream(ledger: Ledger, ti: TaskInstance) -> str:
    """Rewind the chain to before what came from undone checkpoints of its base. Returns a clause for the note; empty:
    there is nothing of that. One entry: an attempt after a kill finds nothing to do. Raises LedgerCorrupt,
    StoreFailure."""
    from trainflow.checkpoints.actions.rewind import rewind
    from trainflow.checkpoints.stages.upstream_rewinds import upstream_rewind

    back = upstream_rewind(ledger)
    if back is None:
        return ""
    why = f"{back.base} was rewound to before what checkpoint {back.first} was trained from"
    if back.pruned:
        said = f"{why}, and the checkpoint before that was pruned: it stays. To train it again, rewind further back"
        ti.log.warning("%s", said)
        return said
    head = ledger.state().head
    assert head is not None
    try:
        rewind(
            ledger, back.to_id, expected_head=head.id, by=author_of(ti), now=ti.clock.now(), reason=why, cause="base"
        )
    except ChainMoved:
        return ""
    ti.log.warning("%s: rewound, and trained forward again", why)
    return f"rewound, and trained forward again: {why}"
