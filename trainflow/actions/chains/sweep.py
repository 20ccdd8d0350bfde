"""Delete what dead attempts left behind in the store: artifacts never committed, files never finished."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from trainflow.checkpoints.actions.prune import chains_of
from trainflow.checkpoints.ledger.ledger import Ledger
from trainflow.checkpoints.upkeep.garbage import Garbage
from trainflow.checkpoints.upkeep.garbage import sweep_garbage as delete
from trainflow.workspace.pipelines import OpenedPipeline
from trainflow.workspace.under_way import living_attempts


class SweptFile(msgspec.Struct, frozen=True):
    """A file or folder that goes. `kind`: orphan | pruned | temporary | split | partial; `size` in bytes; `modified`:
    when it was touched last."""

    chain: str
    kind: str
    path: str
    files: int
    size: int
    modified: datetime


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
    living = living_attempts(file.workspace)
    swept = [
        _described(ledger, each)
        for ledger in _ledgers(file, stage, branch)
        for each in delete(ledger, now, grace=grace, living=living, dry_run=dry_run)
    ]
    return SweepDone(swept, sum(each.size for each in swept), dry_run)


def _described(ledger: Ledger, found: Garbage) -> SweptFile:
    path = ledger.store.uri(found.path)
    return SweptFile(str(ledger.chain), found.kind, path, found.files, found.size, found.modified)


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
