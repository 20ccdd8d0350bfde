"""Go on with a ledger of which a part is lost for good."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

import msgspec

from trainflow.checkpoints.ledger.entries import Author, Checkpoint, Loss
from trainflow.checkpoints.ledger_changes.accept_loss import Damage, damage_of, put_right
from trainflow.errors import InputError
from trainflow.workspace.pipelines import PipelineChain


class LostCheckpoint(msgspec.Struct, frozen=True):
    """A checkpoint whose entry is lost. `evidence`: how it is known."""

    id: str
    evidence: str


class LossDone(msgspec.Struct, frozen=True, kw_only=True):
    """What was put right and accepted, or would be. `whole`: nothing is missing; `restored`, `untied`: numbers of
    entries; `recovered`: ids of checkpoints that are committed again; `first`, `last`: of the entries that are lost,
    None: none; `head_id`, `watermark`: after it; `entry`: the number of the one that accepts it, None: not done, or not
    needed."""

    chain: str
    whole: bool
    restored: list[int]
    recovered: list[str]
    first: int | None
    last: int | None
    untied: list[int]
    lost: list[LostCheckpoint]
    head_id: str | None
    watermark: datetime | None
    entry: int | None


class LossPlan(NamedTuple):
    """What is wrong with the ledger of a chain; `damage`: None where nothing is missing."""

    chain: PipelineChain
    damage: Damage | None

    @property
    def head(self) -> Checkpoint | None:
        """What the chain goes on from; None: it begins anew."""
        if self.damage is None:
            return self.chain.ledger().state().head
        return self.damage.recovered[-1] if self.damage.recovered else self.damage.state.head

    def outcome(self, entry: Loss | None) -> LossDone:
        """What people and programs are told of it. `entry`: the one that accepts the loss."""
        damage, head = self.damage, self.head
        first = None if damage is None or not damage.is_lossy else damage.state.sequence + 1
        return LossDone(
            chain=str(self.chain.key),
            whole=damage is None,
            restored=[copy.entry.sequence for copy in damage.restored] if damage else [],
            recovered=[each.id for each in damage.recovered] if damage else [],
            first=first,
            last=None if first is None or damage is None else max(first, damage.newest.sequence),
            untied=damage.untied if damage else [],
            lost=[LostCheckpoint(name, what) for name, what in damage.lost.items()] if damage else [],
            head_id=head.id if head else None,
            watermark=head.watermark if head else None,
            entry=entry.sequence if entry else None,
        )


def plan_accept_loss(chain: PipelineChain) -> LossPlan:
    """Look at what is left of the ledger. Raises StoreFailure."""
    return LossPlan(chain, damage_of(chain.ledger()))


def accept_loss(plan: LossPlan, *, who: Author, now: datetime, reason: str = "") -> LossDone:
    """Put right what can be, and record what is lost. Raises InputError while a run of the chain has not ended,
    ChainMoved, StoreFailure."""
    chain, damage = plan
    if damage is None:
        return plan.outcome(None)
    runs = chain.workspace.active_runs(chain.dag_id)
    if runs:
        raise InputError(
            f"run {runs[0]} of {chain.dag_id} has not ended: nothing was changed; end it with 'trainflow runs cancel "
            f"{chain.dag_id} {runs[0]}', or wait for it"
        )
    return plan.outcome(put_right(chain.ledger(), damage, by=chain.by(who), now=now, reason=reason))
