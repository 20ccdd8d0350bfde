"""The files of a ledger, read in order and many at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.chain_listing import ChainListing
from trainflow.checkpoints.ledger.entries import Checkpoint, LedgerEntry, Stop
from trainflow.checkpoints.ledger.entry_encoding import RESTORE_ENTRY, decode_entry
from trainflow.checkpoints.ledger.fold import SealedEntry
from trainflow.errors import LedgerCorrupt
from trainflow.identifiers import digest
from trainflow.storage.store import Store

#: entries asked for at once: few when the ledger was read before, then more and more
NEWS_BATCH = 2
FIRST_BATCH = 16
LARGEST_BATCH = 1024


def listed_batches(
    store: Store, chain: ChainKey, first: int, listing: ChainListing, last: int
) -> Iterator[list[SealedEntry]]:
    """The entries from number `first` to the last that a listing shows, or number `last` where that is later. A listing
    may be late: what it does not show is asked for by its number. Raises LedgerCorrupt, StoreFailure."""
    last = max(last, max(listing.entries, default=0))
    for begin in range(first, last + 1, LARGEST_BATCH):
        numbers = range(begin, min(begin + LARGEST_BATCH, last + 1))
        contents = read_entries(store, chain, numbers, listing)
        yield _decoded(store, chain, numbers, contents)
        if None in contents:
            return


def read_entries(
    store: Store, chain: ChainKey, numbers: Sequence[int], listing: ChainListing | None
) -> list[bytes | None]:
    """The contents of entries by their numbers; None for one that is not there. Raises StoreFailure."""
    if listing is None:
        return store.read_many([chain.entry(number) for number in numbers])
    shown = [listing.entries[number] for number in numbers if number in listing.entries]
    others = [chain.entry(number) for number in numbers if number not in listing.entries]
    found = dict(zip([file.path for file in shown], store.read_listed(shown), strict=True))
    found |= dict(zip(others, store.read_many(others), strict=True))
    return [found[chain.entry(number)] for number in numbers]


def batches(store: Store, chain: ChainKey, first: int, size: int = FIRST_BATCH) -> Iterator[list[SealedEntry]]:
    """The entries from number `first` to the last there is. Raises LedgerCorrupt, StoreFailure."""
    while True:
        batch = _read(store, chain, first, size)
        yield batch
        if len(batch) < size:
            return
        first += size
        size = min(size * 4, LARGEST_BATCH)


def _read(store: Store, chain: ChainKey, first: int, count: int) -> list[SealedEntry]:
    """The entries from `first` on, up to the first that is not there."""
    numbers = range(first, first + count)
    return _decoded(store, chain, numbers, store.read_many([chain.entry(number) for number in numbers]))


def _decoded(
    store: Store, chain: ChainKey, numbers: Sequence[int], contents: Sequence[bytes | None]
) -> list[SealedEntry]:
    found: list[SealedEntry] = []
    for number, data in zip(numbers, contents, strict=True):
        location = store.uri(chain.entry(number))
        if data is None:
            later = contents[number - numbers[0] + 1 :]
            _check_nothing_after(store, chain.entry(number), later)
            break
        entry = decode_entry(data, location=location)
        _check_chain(chain, entry, location)
        found.append(SealedEntry(entry, digest(data), location))
    return found


def _check_chain(chain: ChainKey, entry: LedgerEntry, location: str) -> None:
    """Entries do not name their chain, but where the files lie that they speak of."""
    if isinstance(entry, Checkpoint | Stop) and not entry.artifacts.path.startswith(f"{chain.artifacts}/"):
        raise LedgerCorrupt(
            f"ledger entry {location} speaks of {entry.artifacts.path}, which belongs to another chain: it was copied "
            "here. Restore this chain's own entry from a backup or another copy of the store, then run "
            "'trainflow audit'",
            location=location,
        )


def _check_nothing_after(store: Store, missing: str, later: Sequence[bytes | None]) -> None:
    # read_many is not one moment: two entries may have come while it read, so look for the missing one again
    if any(data is not None for data in later) and not store.exists(missing):
        location = store.uri(missing)
        raise LedgerCorrupt(
            f"ledger entry {location} is missing although later ones are there. {RESTORE_ENTRY}",
            location=location,
        )
