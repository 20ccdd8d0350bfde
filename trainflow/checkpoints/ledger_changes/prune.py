"""Prune: record first, delete then. A prune killed between the two is finished by the next one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.entries import Author, Prune
from trainflow.checkpoints.ledger.entry_files import ChainListing
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger.missing_checkpoints import raise_if_unrecorded
from trainflow.checkpoints.ledger.state import ChainState, CheckpointSummary
from trainflow.checkpoints.stages.dependents import declared_dependents, references, still_needed
from trainflow.checkpoints.stages.init_from import Dependent
from trainflow.checkpoints.stages.upstream_rewinds import state_after_rewind
from trainflow.checkpoints.upkeep.retention import Policy, keeps_all, removable
from trainflow.checkpoints.upkeep.shared_files import delete_artifacts, delete_freed, shared_files
from trainflow.checkpoints.verified_artifacts import still_verified
from trainflow.identifiers import is_name
from trainflow.storage.store import SEAL, Store


def prune(
    ledger: Ledger,
    policies: Iterable[Policy],
    *,
    by: Author,
    now: datetime,
    pinned: Collection[str] = (),
    dependents: Collection[Dependent] = (),
    reason: str = "retention",
    dry_run: bool = False,
) -> list[str]:
    """Delete the files of checkpoints that no policy keeps and nothing refers to; their ids.

    `pinned` are checkpoints to keep besides; those that other chains of the store started from are found here, and so
    are stages of other pipelines. `dependents` are the stages that start from this chain: what they have not passed yet
    stays.
    Raises StoreFailure; LedgerCorrupt, also when anything knows of an entry that is not there. Both leave a ledger that
    is as true as before.
    """
    policies = tuple(policies)
    if keeps_all(policies):
        return []
    state, kept = ledger.state(), ledger.kept()
    if not removable(state, kept, policies, pinned):
        if not dry_run and state.last_pruned:
            _finish(ledger, state.last_pruned, ledger.last_listing, now)
        return []
    ledger.raise_unless_whole()
    listed, said = ledger.files_in(ledger.chain.dependents), ledger.files_in(ledger.chain.dependents, empty=False)
    ledger.forget_others()
    referenced = references(ledger.store, ledger.chain, listed, ledger.other)
    there, seen = ledger.artifact_names(), ledger.last_listing
    raise_if_unrecorded(ledger, {each.id for each in kept}, referenced, there)
    every_dependent = {
        each.chain: each for each in (*declared_dependents(ledger.store, ledger.chain, said), *dependents)
    }
    keep = {*pinned, *referenced, *_for(every_dependent.values(), ledger, kept)}
    if dry_run:
        return removable(state, kept, policies, keep)
    # of what was deleted before neither files nor a seal are there
    _finish(ledger, [each for each in state.last_pruned if {each, f"{each}{SEAL}"} & there], seen, now)

    def make(state: ChainState) -> Prune | None:
        going = removable(state, ledger.kept(), policies, keep)
        return Prune(**state.header(by, now), checkpoint_ids=going, reason=reason) if going else None

    entry = ledger.append(make)
    if entry is None:
        return []
    _delete(ledger, entry.checkpoint_ids, kept, seen, now)
    return entry.checkpoint_ids


def _delete(
    ledger: Ledger,
    going: Sequence[str],
    before: Sequence[CheckpointSummary],
    seen: ChainListing | None,
    now: datetime,
) -> None:
    """Delete the files of what was pruned just now that nothing has any more. `before`: what was kept."""
    # of the state after the entry: what is committed meanwhile has the files of what is kept
    shared = shared_files(ledger, now).of_checkpoints
    gone = [each for each in before if each.id in {*going}]
    head = ledger.state().head
    with still_verified(ledger.store, head.artifacts if head else None):
        delete_artifacts(ledger, going, shared, seen)
        delete_freed(ledger, gone, {each.id for each in before}.difference(going), shared)


def _for(dependents: Collection[Dependent], ledger: Ledger, kept: Sequence[CheckpointSummary]) -> set[str]:
    needed: set[str] = set()
    for dependent in dependents:
        theirs = ledger.other(dependent.chain)
        needed |= still_needed(dependent, state_after_rewind(theirs), kept)
        seen = theirs.state().head
        if seen is None or (seen.upstream is not None and seen.upstream.rewinds < ledger.state().generation):
            # it may be working with what was undone, until it looks again
            needed |= {each.id for each in kept if not each.on_line}
    return needed


def chains_of(store: Store, pipeline: str) -> list[ChainKey]:
    """The chains of a pipeline that have a folder in the store. What no chain can be called is no folder of one."""
    return [
        ChainKey(pipeline, stage, branch)
        for stage in store.folders(pipeline)
        if is_name(stage)
        for branch in store.folders(f"{pipeline}/{stage}")
        if is_name(branch)
    ]


def _finish(ledger: Ledger, pruned: Sequence[str], seen: ChainListing | None, now: datetime) -> None:
    """Delete what an earlier prune has left of the files of checkpoints."""
    left = [each for each in pruned if seen is None or seen.artifacts is None or seen.of_attempt(ledger.chain, each)]
    if left:
        delete_artifacts(ledger, left, shared_files(ledger, now).of_checkpoints, seen)
