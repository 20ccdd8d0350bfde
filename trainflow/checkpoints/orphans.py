"""Orphans: artifacts of attempts that died before they committed.

What is swept must be old, of nobody alive, in no ledger entry, and carry a name that an attempt id can be read from.
Everything else stays, whatever it is.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta

import msgspec

from trainflow.checkpoints.entries import Checkpoint
from trainflow.checkpoints.ledger import Ledger
from trainflow.checkpoints.store import StoredFile

GRACE = timedelta(days=7)
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_ID_LENGTH = 26


class Orphan(msgspec.Struct, frozen=True):
    """A folder of artifacts that nobody needs. `modified` is its newest file's time (or when its attempt was made).

    `pruned`: it was a checkpoint once, and the prune that was to delete it was cut short. Otherwise no entry speaks of
    it.
    """

    path: str
    files: int
    size: int
    modified: datetime
    pruned: bool = False


def artifacts_of_the_dead(ledger: Ledger, before: datetime, living: Collection[str] = ()) -> list[Orphan]:
    """The artifacts of dead attempts that nobody has touched since `before`, and of pruned checkpoints whenever.

    `living` are attempts that may still commit. Raises LedgerCorrupt when the ledger cannot be read whole;
    StoreFailure.
    """
    spoken_of = {entry.id for entry in ledger.entries() if isinstance(entry, Checkpoint)}
    kept = {summary.id for summary in ledger.kept()}
    stop = ledger.state().stopped
    if stop is not None:
        # a person may still accept it
        kept.add(stop.id)
    found: list[Orphan] = []
    for name in ledger.store.folders(ledger.chain.artifacts):
        made = attempt_time(name)
        if made is None or name in kept or name in living:
            continue
        orphan = _orphan(ledger, name, made, pruned=name in spoken_of)
        if orphan.pruned or orphan.modified <= before:
            found.append(orphan)
    return found


def attempt_time(name: str) -> datetime | None:
    """When an attempt id was made (aware UTC); None for a name that is no attempt id."""
    if len(name) != _ID_LENGTH or any(letter not in _ALPHABET for letter in name):
        return None
    value = 0
    for letter in name:
        value = value << 5 | _ALPHABET.index(letter)
    try:
        return datetime.fromtimestamp((value >> 80) / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return None


def _orphan(ledger: Ledger, name: str, made: datetime, *, pruned: bool) -> Orphan:
    path = ledger.chain.attempt(name)
    files: list[StoredFile] = ledger.store.files(path)
    times = [file.modified for file in files if file.modified is not None]
    return Orphan(path, len(files), sum(file.size for file in files), max([made, *times]), pruned)
