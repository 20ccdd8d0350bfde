"""Orphans: artifacts of attempts that died before they committed, and temporary files of writers that died.

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
    """A folder that no ledger entry speaks of. `modified` is its newest file's time (or when its attempt was made)."""

    path: str
    files: int
    size: int
    modified: datetime


def sweep_orphans(
    ledger: Ledger,
    now: datetime,
    *,
    grace: timedelta = GRACE,
    living: Collection[str] = (),
    dry_run: bool = True,
) -> list[Orphan]:
    """Find (and unless `dry_run` delete) the artifacts of dead attempts that are older than `grace`.

    `living` are attempts that may still commit. Raises LedgerCorrupt before anything is deleted when the ledger cannot
    be read whole.
    """
    if grace < timedelta(0):
        raise ValueError("grace must not be negative")
    spoken_of = {entry.id for entry in ledger.entries() if isinstance(entry, Checkpoint)}
    kept = {summary.id for summary in ledger.kept()}
    pruned = spoken_of - kept
    found: list[Orphan] = []
    for name in ledger.store.folders(ledger.chain.artifacts):
        made = attempt_time(name)
        if made is None or name in kept or name in living:
            continue
        orphan = _orphan(ledger, name, made)
        if name in pruned or orphan.modified <= now - grace:
            found.append(orphan)
    if not dry_run:
        for orphan in found:
            ledger.store.delete_folder(orphan.path)
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


def _orphan(ledger: Ledger, name: str, made: datetime) -> Orphan:
    path = ledger.chain.attempt(name)
    files: list[StoredFile] = ledger.store.files(path)
    times = [file.modified for file in files if file.modified is not None]
    return Orphan(path, len(files), sum(file.size for file in files), max([made, *times]))
