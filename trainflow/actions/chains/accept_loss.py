"""Go on with a ledger of which a part is lost for good."""

from __future__ import annotations

from datetime import datetime

from trainflow.checkpoints.actions.accept_loss import Damage, put_right
from trainflow.checkpoints.ledger.entries import Author, Loss
from trainflow.errors import InputError
from trainflow.workspace.pipelines import PipelineChain
from trainflow.workspace.under_way import active_runs


def accept_loss(chain: PipelineChain, damage: Damage, *, who: Author, now: datetime, reason: str = "") -> Loss | None:
    """Put right what can be, and record what is lost; None where nothing is. Raises InputError while a run of the chain
    has not ended, ChainMoved, StoreFailure."""
    runs = active_runs(chain.workspace, chain.dag_id)
    if runs:
        raise InputError(
            f"run {runs[0]} of {chain.dag_id} has not ended: nothing was changed; end it with 'trainflow runs cancel "
            f"{chain.dag_id} {runs[0]}', or wait for it"
        )
    return put_right(chain.ledger(), damage, by=chain.by(who), now=now, reason=reason)
