"""Which stages of other pipelines start from checkpoints of a chain, and what is kept for them."""

from __future__ import annotations

import msgspec

from trainflow.checkpoints.ledger.ledger import Ledger
from trainflow.checkpoints.stages.dependents import still_needed
from trainflow.checkpoints.stages.dependents_registry import declared_dependents
from trainflow.workspace.pipelines import PipelineChain


class DependentStage(msgspec.Struct, frozen=True):
    """A stage. `at`: which checkpoint its runs start from; `once`: only its first run does; `held`: how many
    checkpoints are kept for it."""

    chain: str
    at: str
    once: bool
    held: int


class Dependents(msgspec.Struct, frozen=True):
    """All of them."""

    dependents: list[DependentStage]


def dependents_of(chain: PipelineChain) -> Dependents:
    """The stages that have run at least once. Raises StoreFailure, LedgerCorrupt."""
    ledger = chain.ledger()
    kept = ledger.kept()
    return Dependents(
        [
            DependentStage(
                str(each.chain),
                each.at,
                each.once,
                len(still_needed(each, Ledger(ledger.store, each.chain).state(), kept)),
            )
            for each in declared_dependents(ledger.store, ledger.chain)
        ]
    )
