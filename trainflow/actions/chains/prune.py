"""Delete the files of checkpoints that retention does not keep; the ledger keeps what they were trained on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from trainflow.checkpoints.actions.prune import prune as delete
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.entries import Author
from trainflow.checkpoints.stages.dependents_registry import remove_dependent
from trainflow.checkpoints.upkeep.retention import KeepLatest, Policy
from trainflow.errors import InputError
from trainflow.workspace.pipelines import PipelineChain


class PrunedCheckpoint(msgspec.Struct, frozen=True):
    """A checkpoint whose files go; `bytes`: their size."""

    pipeline: str
    stage: str
    branch: str
    sequence: int
    id: str
    bytes: int


class PruneDone(msgspec.Struct, frozen=True):
    """What was pruned, or with `dry_run` would be; `bytes`: of all."""

    pruned: list[PrunedCheckpoint]
    bytes: int
    dry_run: bool = False


def plan_prune(chains: Sequence[PipelineChain], keep_latest: int | None, *, now: datetime) -> PruneDone:
    """What `prune` would delete. Raises InputError where no chain has a retention and none is given."""
    return _prune(chains, keep_latest, Author(), now, dry_run=True)


def prune(chains: Sequence[PipelineChain], keep_latest: int | None, *, who: Author, now: datetime) -> PruneDone:
    """Delete what `keep_latest` does not keep, or what the retention of each chain does not.

    Never the head, a promoted checkpoint, what another chain was forked or started from, or what a following stage has
    not passed yet. Raises InputError, ChainMoved, StoreFailure.
    """
    return _prune(chains, keep_latest, who, now, dry_run=False)


def _prune(
    chains: Sequence[PipelineChain], keep_latest: int | None, who: Author, now: datetime, *, dry_run: bool
) -> PruneDone:
    if keep_latest is None and not any(chain.access.retention for chain in chains):
        names = ", ".join(str(chain.key) for chain in chains)
        raise InputError(f"{names}: no retention is set, so everything is kept: say --keep-latest N")
    pruned = [each for chain in chains for each in _of_chain(chain, keep_latest, who, now, dry_run=dry_run)]
    return PruneDone(pruned, sum(each.bytes for each in pruned), dry_run)


def _of_chain(
    chain: PipelineChain, keep_latest: int | None, who: Author, now: datetime, *, dry_run: bool
) -> list[PrunedCheckpoint]:
    policies: list[Policy] = [KeepLatest(keep_latest)] if keep_latest is not None else list(chain.access.retention)
    ledger = chain.ledger()
    before = {each.id: each for each in ledger.kept()}
    going = delete(
        ledger,
        policies,
        by=chain.by(who),
        now=now,
        dependents=chain.access.dependents,
        reason="trainflow checkpoints prune",
        dry_run=dry_run,
    )
    return [
        PrunedCheckpoint(**ledger.chain.names, sequence=before[each].sequence, id=each, bytes=before[each].size)
        for each in going
    ]


def forget_dependent(chain: PipelineChain, dependent: str) -> None:
    """Keep no checkpoint any more for `follower`, a chain written as pipeline/stage/branch.

    Its next run lists it again. Raises InputError where it does not follow, StoreFailure.
    """
    ledger = chain.ledger()
    if not remove_dependent(ledger.store, ledger.chain, _named(dependent)):
        raise InputError(
            f"{dependent} does not follow {ledger.chain}: 'trainflow checkpoints dependents' lists who does"
        )


def _named(written: str) -> ChainKey:
    try:
        return ChainKey(*written.split("/"))
    except TypeError:
        raise InputError(f"--forget {written}: write PIPELINE/STAGE/BRANCH") from None
