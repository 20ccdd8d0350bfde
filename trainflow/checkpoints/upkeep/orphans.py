"""Orphans: artifacts of attempts that died before they committed.

What is swept must be old, of no living attempt, in no ledger entry, and carry a name that is an attempt id.
Everything else stays, whatever it is.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

import msgspec

from trainflow.checkpoints.ledger.entries import Checkpoint
from trainflow.checkpoints.ledger.ledger import Ledger
from trainflow.checkpoints.ledger.loss_evidence import raise_if_unrecorded
from trainflow.identifiers import attempt_time
from trainflow.storage.store import StoreFile

GRACE = timedelta(days=7)


class Orphan(msgspec.Struct, frozen=True):
    """A folder of artifacts that nothing needs. `modified` is its newest file's time (or when its attempt was made).

    `pruned`: it was a checkpoint once, and the prune that was to delete it was cut short. Otherwise no entry speaks of
    it.
    """

    path: str
    files: int
    size: int
    modified: datetime
    pruned: bool = False


def orphaned_outputs(ledger: Ledger, before: datetime, living: Collection[str] = ()) -> list[Orphan]:
    """Folders that dead attempts wrote into, untouched since `before`: what was committed lies elsewhere."""
    made = {name: attempt_time(name) for name in ledger.store.folders(ledger.chain.outputs) if name not in living}
    found = [
        _orphan(ledger, f"{ledger.chain.outputs}/{name}", at, pruned=False)
        for name, at in made.items()
        if at is not None
    ]
    return [orphan for orphan in found if orphan.modified <= before]


def orphaned_artifacts(ledger: Ledger, before: datetime, living: Collection[str] = ()) -> list[Orphan]:
    """The artifacts of dead attempts that were not touched since `before`, and of pruned checkpoints whenever.

    `living` are attempts that may still commit. Raises LedgerCorrupt when the ledger cannot be read whole, or does not
    speak of a checkpoint that was committed; StoreFailure.
    """
    spoken_of = {entry.id for entry in ledger.entries() if isinstance(entry, Checkpoint)}
    state = ledger.state()
    raise_if_unrecorded(ledger, spoken_of.union(state.lost))
    # what was lost was committed once: it is for a person to delete
    kept = {*(summary.id for summary in ledger.kept()), *state.lost}
    stop = state.stopped
    if stop is not None:
        # a person may still accept it
        kept.add(stop.id)
    found: list[Orphan] = []
    for name in ledger.store.folders(ledger.chain.artifacts):
        made = attempt_time(name)
        if made is None or name in kept or name in living:
            continue
        orphan = _orphan(ledger, ledger.chain.attempt(name), made, pruned=name in spoken_of)
        if orphan.pruned or orphan.modified <= before:
            found.append(orphan)
    return found


def _orphan(ledger: Ledger, path: str, made: datetime, *, pruned: bool) -> Orphan:
    files: list[StoreFile] = ledger.store.files(path)
    times = [file.modified for file in files if file.modified is not None]
    return Orphan(path, len(files), sum(file.size_bytes for file in files), max([made, *times]), pruned)
