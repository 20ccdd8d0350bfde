"""Give back space: files of checkpoints that retention does not keep, and what dead attempts left behind in the store.

The ledger keeps what a pruned checkpoint was trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec

from trainflow.checkpoints.chain import ChainKey, OfChain
from trainflow.checkpoints.ledger.entries import Author
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger_changes.prune import chains_of
from trainflow.checkpoints.ledger_changes.prune import prune as delete
from trainflow.checkpoints.stages.dependents import remove_dependent
from trainflow.checkpoints.upkeep.garbage import Garbage, sweep_garbage
from trainflow.checkpoints.upkeep.retention import KeepLatest, Policy
from trainflow.errors import InputError
from trainflow.insight.chains.checkpoints import DependentStage, dependents_of
from trainflow.workspace.pipelines import OpenedPipeline, PipelineChain


class PrunedCheckpoint(OfChain, frozen=True, kw_only=True):
    """A checkpoint whose files go; `bytes`: their size."""

    number: int
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
        PrunedCheckpoint(**ledger.chain.names, number=before[each].number, id=each, bytes=before[each].size)
        for each in going
    ]


def plan_forget_dependent(chain: PipelineChain, dependent: str) -> DependentStage:
    """The stage that `forget_dependent` would forget, and how much is kept for it. Raises InputError where it does not
    follow, StoreFailure, LedgerCorrupt."""
    name = str(_named(dependent))
    found = next((each for each in dependents_of(chain).dependents if each.chain == name), None)
    if found is None:
        raise InputError(
            f"{dependent} does not follow {chain.key}: 'trainflow checkpoints dependents {chain.key.arguments}' lists "
            "what does"
        )
    return found


def forget_dependent(chain: PipelineChain, dependent: str) -> DependentStage:
    """Keep no checkpoint any more for a stage, a chain written as pipeline/stage/branch.

    Its next run lists it again. Raises InputError where it does not follow, StoreFailure, LedgerCorrupt.
    """
    found, ledger = plan_forget_dependent(chain, dependent), chain.ledger()
    remove_dependent(ledger.store, ledger.chain, _named(dependent))
    return found


def _named(written: str) -> ChainKey:
    try:
        return ChainKey(*written.split("/"))
    except TypeError:
        raise InputError(f"--forget {written}: write PIPELINE/STAGE/BRANCH") from None


class SweptFile(Garbage, frozen=True, kw_only=True):
    """A file or folder that goes; `path` is where it is, with the store."""

    chain: str


class SweepDone(msgspec.Struct, frozen=True):
    """What was deleted, or with `dry_run` would be; `bytes`: of all."""

    swept: list[SweptFile]
    bytes: int
    dry_run: bool = False


def plan_sweep(
    file: OpenedPipeline, stage: str | None, branch: str | None, *, grace: timedelta, now: datetime
) -> SweepDone:
    """What `sweep` would delete."""
    return _sweep(file, stage, branch, grace, now, dry_run=True)


def sweep(file: OpenedPipeline, stage: str | None, branch: str | None, *, grace: timedelta, now: datetime) -> SweepDone:
    """Delete what is older than `grace`, in every chain of the file's pipelines, or in the one that is named.

    What belongs to a run that has not ended stays, however old; what trainflow cannot have written stays too. A sweep
    that was killed is finished by the next. Raises InputError, StoreFailure.
    """
    return _sweep(file, stage, branch, grace, now, dry_run=False)


def _sweep(
    file: OpenedPipeline, stage: str | None, branch: str | None, grace: timedelta, now: datetime, *, dry_run: bool
) -> SweepDone:
    living, ended = file.workspace.living_attempts(), file.workspace.ended_attempts()
    swept = [
        _described(ledger, each)
        for ledger in _ledgers(file, stage, branch)
        for each in sweep_garbage(ledger, now, grace=grace, living=living, ended=ended, dry_run=dry_run)
    ]
    return SweepDone(swept, sum(each.size for each in swept), dry_run)


def _described(ledger: Ledger, found: Garbage) -> SweptFile:
    facts = msgspec.structs.asdict(found) | {"path": ledger.store.uri(found.path)}
    return SweptFile(**facts, chain=str(ledger.chain))


def _ledgers(file: OpenedPipeline, stage: str | None, branch: str | None) -> list[Ledger]:
    """The chain that is meant, or every chain of the file's pipelines that the store has."""
    if stage or branch:
        return [chain.ledger() for chain in file.chosen(stage, branch)]
    found: dict[tuple[str, str], Ledger] = {}
    for chain in file.some_chains():
        ledger = chain.ledger()
        for key in [ledger.chain, *chains_of(ledger.store, ledger.chain.pipeline)]:
            found.setdefault((ledger.store.url, str(key)), chain.ledger(key))
    return list(found.values())
