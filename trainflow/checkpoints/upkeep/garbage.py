"""Sweep: take away what the dead left behind. Never what cannot be parsed, and nothing that is young.

- the artifacts of attempts that died before they committed: old, of no living attempt, in no ledger entry, and with a
  name that is an attempt id,
- what a prune had recorded and was killed before it deleted,
- files that a writer had begun,
- saves inside a split that no attempt will go on from,
- splits that were too large for an XCom, and are trained or left behind. A split is made for the head that its run has
  read, and only a child of the head can be committed: what was handed over before the head was committed can never be
  committed any more. Tasks after the commit may still read it for a while, which is what the grace is for.

Each deletion stands for itself: killed anywhere, the next sweep goes on.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Literal

import msgspec

from trainflow.checkpoints.ledger.entries import Checkpoint
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger.missing_checkpoints import raise_if_unrecorded
from trainflow.checkpoints.saves.intermediate_saves import old_saves
from trainflow.checkpoints.upkeep.shared_files import SharedFiles, delete_artifacts, shared_files
from trainflow.identifiers import attempt_time
from trainflow.storage.store import StoreFile

GRACE = timedelta(days=7)
_NOTHING_SHARED = SharedFiles(set(), set())
_SPLIT = re.compile(r"split-[0-9a-f]{64}\.parquet")

GarbageKind = Literal["orphan", "pruned", "temporary", "partial", "split"]


class Garbage(msgspec.Struct, frozen=True):
    """A file or folder nothing needs. `modified` is its newest file's time (or when its attempt was made), UTC.

    `pruned`: it was a checkpoint once, and the prune that was to delete it was cut short. `orphan`: no entry speaks of
    it.
    """

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
    ended: Collection[str] = (),
    dry_run: bool = False,
) -> list[Garbage]:
    """Find (and unless `dry_run` delete) what is older than `grace`, in the order of its deletion.

    `living` are attempts that may still commit, `ended` those of the same runs that they took the place of: what one of
    those has trained they may commit, and nothing writes into its output any more. Raises LedgerCorrupt before anything
    is deleted when the ledger cannot be read whole, or anything knows of an entry that is not there; StoreFailure.
    """
    if grace < timedelta(0):
        raise ValueError("grace must not be negative")
    ledger.raise_unless_whole()
    before = now - grace
    found = [
        *orphaned_artifacts(ledger, before, {*living, *ended}, shared_files(ledger, now)),
        *_orphaned_outputs(ledger, before, living),
        *_files("temporary", ledger.store.temporary(ledger.chain.prefix), before),
        *_files("split", _splits(ledger), _last_use(ledger, before)),
        *_saves(ledger, before),
    ]
    if not dry_run:
        # after it was read what is pruned
        shared = shared_files(ledger, now)
        for each in found:
            _delete(ledger, each, shared)
    return found


def orphaned_artifacts(
    ledger: Ledger, before: datetime, living: Collection[str] = (), shared: SharedFiles = _NOTHING_SHARED
) -> list[Garbage]:
    """The artifacts of dead attempts that were not touched since `before`, and of pruned checkpoints whenever.

    `living` are attempts that may still commit, `shared` the files that stay: a chain that is about to begin names none
    of an attempt that never committed. Raises LedgerCorrupt when the ledger cannot be read whole, or does not speak of
    a checkpoint that was committed; StoreFailure.
    """
    spoken_of = {entry.id for entry in ledger.entries() if isinstance(entry, Checkpoint)}
    state = ledger.state()
    raise_if_unrecorded(ledger, spoken_of.union(state.lost))
    # what was lost was committed once: it is for a person to delete
    kept = {*(summary.id for summary in ledger.kept()), *state.lost, *living}
    if state.stopped is not None:
        # a person may still accept it
        kept.add(state.stopped.id)
    names = (name for name in ledger.store.folders(ledger.chain.artifacts) if name not in kept)
    found = (
        _orphan(ledger, ledger.chain.attempt(name), shared.of_checkpoints, pruned=True)
        if name in spoken_of
        else _orphan(ledger, ledger.chain.attempt(name), shared.named)
        for name in names
    )
    return [each for each in found if each and (each.kind == "pruned" or each.modified <= before)]


def _orphaned_outputs(ledger: Ledger, before: datetime, living: Collection[str]) -> list[Garbage]:
    """Folders that dead attempts wrote into, untouched since `before`: what was committed lies elsewhere."""
    names = (name for name in ledger.store.folders(ledger.chain.outputs) if name not in living)
    found = (_orphan(ledger, f"{ledger.chain.outputs}/{name}") for name in names)
    return [each for each in found if each and each.modified <= before]


def _orphan(ledger: Ledger, path: str, shared: Collection[str] = (), *, pruned: bool = False) -> Garbage | None:
    """The folder of an attempt, without files that are in use; None for what has a name that no attempt has, and where
    all that is left is in use."""
    made = attempt_time(path.rpartition("/")[2])
    there = ledger.store.files(path)
    files = [file for file in there if file.path not in shared]
    if made is None or (there and not files):
        return None
    return _folder("pruned" if pruned else "orphan", path, files, [made])


def _folder(kind: GarbageKind, path: str, files: Sequence[StoreFile], times: Sequence[datetime] = ()) -> Garbage:
    newest = max([*times, *(file.modified for file in files if file.modified is not None)])
    return Garbage(kind, path, len(files), sum(file.size_bytes for file in files), newest)


def _files(kind: GarbageKind, files: Sequence[StoreFile], before: datetime | None) -> list[Garbage]:
    """Files that were written at or before then (None: none was). Never one whose age the store does not tell."""
    return [
        Garbage(kind, file.path, 1, file.size_bytes, file.modified)
        for file in files
        if before is not None and file.modified is not None and file.modified <= before
    ]


def _splits(ledger: Ledger) -> list[StoreFile]:
    """Files that have the name of a split."""
    folder = ledger.chain.splits
    return [file for file in ledger.store.files(folder) if _SPLIT.fullmatch(file.path.removeprefix(f"{folder}/"))]


def _last_use(ledger: Ledger, before: datetime) -> datetime | None:
    """The moment up to which no split is of use any more; None: any may be."""
    head = ledger.state().head
    return None if head is None else min(before, head.at)


def clear_splits(ledger: Ledger, now: datetime) -> None:
    """Delete the splits that were handed over before the head was committed, and longer ago than the grace. Raises
    StoreFailure."""
    for each in _files("split", _splits(ledger), _last_use(ledger, now - GRACE)):
        ledger.store.delete(each.path)


def _saves(ledger: Ledger, before: datetime) -> Iterator[Garbage]:
    head = ledger.state().head
    for path, files in old_saves(ledger.store, ledger.chain, head.id if head else None, before):
        yield _folder("partial", path, files)


def _delete(ledger: Ledger, garbage: Garbage, shared: SharedFiles) -> None:
    store, path = ledger.store, garbage.path
    folder, _, name = path.rpartition("/")
    if garbage.kind in ("temporary", "split"):
        store.delete(path)
    elif garbage.kind == "partial":
        store.delete_folder(path)
    # an attempt that was given up may have committed since the ledger was read
    elif folder != ledger.chain.artifacts:
        store.delete_sealed(path)
    elif garbage.kind == "pruned":
        delete_artifacts(ledger, [name], shared.of_checkpoints)
    elif ledger.state().recently(name) is None:
        delete_artifacts(ledger, [name], shared.named)
