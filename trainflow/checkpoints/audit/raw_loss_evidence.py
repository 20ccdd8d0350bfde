"""What an audit finds missing in a ledger: entries and checkpoints that something else knows of."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from trainflow.checkpoints.audit.raw_ledger import RawLedger
from trainflow.checkpoints.ledger import missing_entries, snapshots
from trainflow.checkpoints.ledger.ledger import Ledger
from trainflow.checkpoints.ledger.missing_checkpoints import sentence, traces, unrecorded
from trainflow.checkpoints.ledger.missing_entries import EntryEvidence, NewestEntry
from trainflow.errors import LedgerCorrupt
from trainflow.humanize import agreeing


@dataclass
class LossEvidence:
    """Taken before the entries are read."""

    mark: NewestEntry
    beside: list[EntryEvidence]
    #: number and digest of the entry that a snapshot ends with, by its path
    snapshots: Mapping[str, tuple[int, str]]
    #: of checkpoints, by id
    traces: Mapping[str, str]
    problems: list[str]


def read_loss_evidence(ledger: Ledger) -> LossEvidence:
    """What lies beside the ledger. Raises StoreFailure."""
    store, chain = ledger.store, ledger.chain
    found, problems = {}, []
    try:
        found = traces(ledger)
    except LedgerCorrupt as error:
        problems.append(f"a chain that goes on from this one cannot be read: {error}")
    mark = missing_entries.read_newest_entry(store, chain)
    return LossEvidence(
        mark, missing_entries.entry_evidence(store, chain), snapshots.snapshot_digests(store, chain), found, problems
    )


def missing(known: LossEvidence, raw: RawLedger, committed: Collection[str]) -> list[str]:
    """A sentence about each. `committed` are the checkpoints of the entries that are there."""
    problems = list(known.problems)
    newest = max(known.beside, key=lambda each: each.sequence)
    last = max(raw.digests, default=0)
    if newest.sequence > last:
        lost = range(last + 1, newest.sequence + 1)
        are = agreeing(len(lost), "is", "are")
        problems.append(
            f"{missing_entries.entries_named(lost)} {are} missing: {newest.what} knows of entry {newest.sequence}"
        )
    problems += _others(known, raw)
    gone = unrecorded(known.traces, committed)
    return [*problems, f"{sentence(gone)}: its entries are missing"] if gone else problems


def _others(known: LossEvidence, raw: RawLedger) -> Iterator[str]:
    """Entries that are not what was remembered of them, and that nothing else is said about."""
    store, chain = raw.ledger.store, raw.ledger.chain
    said = {**known.snapshots, chain.mark: (known.mark.sequence, known.mark.digest)}
    for path, (number, digest) in said.items():
        place, found = store.uri(chain.entry(number)), raw.digests.get(number, digest)
        if found != digest and not any(place in problem for problem in raw.problems):
            yield f"{place} is not the entry that was written: {store.uri(path)} says {digest}, found {found}"
