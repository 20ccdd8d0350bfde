"""Sweep: take away what the dead left behind. Never what cannot be parsed, and nothing that is young.

- the artifacts of attempts that died before they committed,
- what a prune had recorded and was killed before it deleted,
- files that a writer had begun,
- saves inside a split that no attempt will go on from,
- splits that were too large for an XCom, and are trained or left behind.

Each deletion stands for itself: killed anywhere, the next sweep goes on.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Literal

import msgspec

from trainflow.checkpoints.commit.saves import sweep_saves
from trainflow.checkpoints.ledger.ledger import Ledger
from trainflow.checkpoints.upkeep.orphans import GRACE, Orphan, orphaned_artifacts, orphaned_outputs
from trainflow.checkpoints.upkeep.spilled_splits import spent_splits

GarbageKind = Literal["orphan", "pruned", "temporary", "partial", "split"]


class Garbage(msgspec.Struct, frozen=True):
    """A file or folder nothing needs. `modified` is its newest file's time (or when its attempt was made), UTC."""

    kind: GarbageKind
    path: str
    files: int
    size: int
    modified: datetime


def sweep_garbage(
    ledger: Ledger,
    now: datetime,
    *,
    grace: timedelta = GRACE,
    living: Collection[str] = (),
    dry_run: bool = False,
) -> list[Garbage]:
    """Find (and unless `dry_run` delete) what is older than `grace`, in the order of its deletion.

    `living` are attempts that may still commit. Raises LedgerCorrupt before anything is deleted when the ledger cannot
    be read whole, or anything knows of an entry that is not there; StoreFailure.
    """
    if grace < timedelta(0):
        raise ValueError("grace must not be negative")
    ledger.raise_unless_whole()
    found = [*_artifacts(ledger, now - grace, living), *_temporary(ledger, now - grace), *_splits(ledger, now, grace)]
    if not dry_run:
        for leftover in found:
            _delete(ledger, leftover)
    return [*found, *_partials(ledger, now, grace, dry_run=dry_run)]


def _artifacts(ledger: Ledger, before: datetime, living: Collection[str]) -> list[Garbage]:
    orphans: list[Orphan] = [
        *orphaned_artifacts(ledger, before, living),
        *orphaned_outputs(ledger, before, living),
    ]
    return [
        Garbage("pruned" if orphan.pruned else "orphan", orphan.path, orphan.files, orphan.size, orphan.modified)
        for orphan in orphans
    ]


def _temporary(ledger: Ledger, before: datetime) -> list[Garbage]:
    return [
        Garbage("temporary", file.path, 1, file.size_bytes, file.modified)
        for file in ledger.store.temporary(ledger.chain.prefix)
        if file.modified is not None and file.modified <= before
    ]


def _splits(ledger: Ledger, now: datetime, grace: timedelta) -> list[Garbage]:
    return [
        Garbage("split", file.path, 1, file.size_bytes, file.modified)
        for file in spent_splits(ledger.store, ledger.chain, ledger.state(), now, grace=grace)
        if file.modified is not None
    ]


def _partials(ledger: Ledger, now: datetime, grace: timedelta, *, dry_run: bool) -> list[Garbage]:
    head = ledger.state().head
    found = sweep_saves(ledger.store, ledger.chain, head.id if head else None, now, grace=grace, dry_run=dry_run)
    return [Garbage("partial", each.path, each.files, each.size, each.modified) for each in found]


def _delete(ledger: Ledger, leftover: Garbage) -> None:
    if leftover.kind in ("temporary", "split"):
        ledger.store.delete(leftover.path)
        return
    folder, _, name = leftover.path.rpartition("/")
    # an attempt that was given up may have committed since the ledger was read
    if leftover.kind == "pruned" or folder != ledger.chain.artifacts or ledger.state().recently(name) is None:
        ledger.store.delete_sealed(leftover.path)
