"""Whether a ledger has lost entries. Nothing is appended or deleted on one that has: a short ledger is a corrupt one.

Entries are never deleted, so each number up to the newest that anything knows of has to be there. Beside the entries
themselves these know of them:

- the mark, renewed by each append: number and digest of the newest entry;
- the names of snapshots and pages: the number of the entry that they end with.

All of them are written after that entry, so they may lag behind it and are never ahead: an entry that they know of and
that cannot be read is lost. A listing may be late: what it does not show is asked for by its number. A tail that is
lost together with all that knew of it is told by the artifacts alone (see `traces`), not here.

In an object store a task does not look at the entries of a long ledger that are before its newest snapshot: the writer
of that has seen all of them, and so has the writer of the next one, 32 entries later at the most, and each command of a
person. What a snapshot holds of an entry that is lost in between is still true, and nothing reads the entry.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import groupby

import msgspec

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.entry_files import ChainListing
from trainflow.errors import LedgerCorrupt, StoreFailure
from trainflow.humanize import agreeing
from trainflow.identifiers import digest as digest_of
from trainflow.storage.store import Store

_AT_ONCE = 1024
_SHOWN = 8


class NewestEntry(msgspec.Struct, frozen=True):
    """The newest entry, as its writer left word of it. 0: there is no mark."""

    sequence: int = 0
    digest: str = ""


class EntryEvidence(msgspec.Struct, frozen=True):
    """`what` knows of entry number `sequence`."""

    sequence: int
    what: str


_DECODER = msgspec.json.Decoder(NewestEntry)


def read_newest_entry(store: Store, chain: ChainKey, listing: ChainListing | None = None) -> NewestEntry:
    """The mark, as a `listing` shows it where there is one; one that is torn is none. Raises StoreFailure."""
    shown = listing.mark if listing is not None else None
    [data] = store.read_many([chain.mark]) if shown is None else store.read_listed([shown], fixed=False)
    try:
        return _DECODER.decode(data) if data else NewestEntry()
    except msgspec.MsgspecError:
        return NewestEntry()


def write_newest_entry(store: Store, chain: ChainKey, sequence: int, digest: str) -> None:
    """Leave word of an entry that was created. Where the store refuses, the next append does it.

    A writer that was faster may have left word of a later one, which is put back with this: looked at where that costs
    nothing; elsewhere the next append renews it."""
    with suppress(StoreFailure):
        store.replace(chain.mark, msgspec.json.encode(NewestEntry(sequence, digest)))
        while not store.remote and (later := store.read_many([chain.entry(sequence + 1)])[0]) is not None:
            sequence, digest = sequence + 1, digest_of(later)
            store.replace(chain.mark, msgspec.json.encode(NewestEntry(sequence, digest)))


def evidence_of_newest_entry(store: Store, chain: ChainKey, mark: NewestEntry) -> EntryEvidence:
    """What the mark knows."""
    return EntryEvidence(mark.sequence, f"the mark {store.uri(chain.mark)}")


def evidence_of_last(last: int) -> EntryEvidence:
    """What the last entry that a listing shows knows of those before it."""
    return EntryEvidence(last, f"entry {last}, which is there,")


def entry_evidence(store: Store, chain: ChainKey, mark: NewestEntry | None = None) -> list[EntryEvidence]:
    """What lies beside the ledger and knows of its entries; the `mark`, where it was read before. Three requests.
    Raises StoreFailure."""
    mark = read_newest_entry(store, chain) if mark is None else mark
    snapshots, pages = store.names(chain.snapshots) or (), store.names(chain.pages) or ()
    return _evidence(store, chain, mark, snapshots, pages)


def listed_evidence(store: Store, chain: ChainKey, mark: NewestEntry, listing: ChainListing) -> list[EntryEvidence]:
    """The same, as a listing shows it."""
    snapshots, pages = (
        [file.path.rpartition("/")[2] for file in files] for files in (listing.snapshots, listing.pages)
    )
    return _evidence(store, chain, mark, snapshots, pages)


def _evidence(
    store: Store, chain: ChainKey, mark: NewestEntry, snapshots: Iterable[str], pages: Iterable[str]
) -> list[EntryEvidence]:
    found = [evidence_of_newest_entry(store, chain, mark)]
    for name in snapshots:
        found += _named(store, f"{chain.snapshots}/{name}", name.removesuffix(".json"))
    for name in pages:
        # {first}-{last}-{digest}.json
        found += _named(store, f"{chain.pages}/{name}", name.split("-")[1] if name.count("-") == 2 else "")
    return found


def evidence_of_snapshot(store: Store, path: str) -> EntryEvidence:
    """What the name of a snapshot knows."""
    number = path.rpartition("/")[2].removesuffix(".json")
    return next(_named(store, path, number), EntryEvidence(0, ""))


def _named(store: Store, path: str, number: str) -> Iterator[EntryEvidence]:
    if number.isdecimal():
        yield EntryEvidence(int(number), store.uri(path))


def raise_unless_whole(
    store: Store,
    chain: ChainKey,
    known: int,
    beside: Iterable[EntryEvidence],
    found: Collection[int] | None = None,
    unseen: range = range(0),
) -> None:
    """Raise LedgerCorrupt when an entry is missing that anything knows of: `beside`, a later entry, or the reader, who
    came as far as entry `known`. Lists the ledger once, unless the numbers that a listing showed are `found`, which was
    not asked about the `unseen` ones. Raises StoreFailure."""
    if found is None:
        found = listed(store, chain)
    last = max(found, default=0)
    everything = [
        EntryEvidence(known, "what was read before"),
        evidence_of_last(last),
        *beside,
    ]
    newest = max(everything, key=lambda each: each.sequence)
    if newest.sequence == last == len(found) + len(unseen):
        return
    doubtful = [n for n in range(1, newest.sequence + 1) if n not in found and n not in unseen]
    lost = list(_unreadable(store, chain, doubtful))
    if lost:
        raise missing_entries_error(store, chain, lost, newest)


def listed(store: Store, chain: ChainKey) -> set[int]:
    """The numbers of the entries that a listing shows. Raises StoreFailure."""
    listed = store.names(chain.ledger) or ()
    names = (name.removesuffix(".json") for name in listed if name.endswith(".json"))
    return {int(name) for name in names if name.isdecimal() and len(name) == 10}


def _unreadable(store: Store, chain: ChainKey, numbers: Sequence[int]) -> Iterator[int]:
    for first in range(0, len(numbers), _AT_ONCE):
        some = numbers[first : first + _AT_ONCE]
        contents = store.read_many([chain.entry(number) for number in some])
        yield from (number for number, data in zip(some, contents, strict=True) if data is None)


def missing_entries_error(
    store: Store, chain: ChainKey, lost: Collection[int], witness: EntryEvidence
) -> LedgerCorrupt:
    """The error of a ledger without these entries."""
    return LedgerCorrupt(
        f"the ledger of chain {chain} in {store.url} is short: {entries_named(lost)} "
        f"{agreeing(len(lost), 'is', 'are')} missing, and {witness.what} knows of entry {witness.sequence}. Nothing "
        f"is appended or deleted meanwhile. Restore what is missing in {store.uri(chain.ledger)} from a backup or "
        f"another copy of the store, then run 'trainflow audit {chain.arguments}'; where it cannot be restored, "
        f"'trainflow repair {chain.arguments} --accept-loss' shows what is left",
        location=store.uri(chain.entry(min(lost))),
    )


def replaced_entry_error(store: Store, chain: ChainKey, mark: NewestEntry, found: str) -> LedgerCorrupt:
    """The error of a ledger whose entry is not the one that its writer left word of."""
    location = store.uri(chain.entry(mark.sequence))
    return LedgerCorrupt(
        f"ledger entry {location} is not the one that was written: {store.uri(chain.mark)} says {mark.digest}, found "
        f"{found}. Entries of another copy or of another chain were put over it. Restore the newest copy of the "
        f"ledger, then run 'trainflow audit {chain.arguments}'",
        location=location,
    )


def entries_named(numbers: Collection[int]) -> str:
    """`entry 3`, `entries 3 to 5, 7`; the first few stretches."""
    stretches = []
    for _, group in groupby(enumerate(sorted(numbers)), key=lambda each: each[1] - each[0]):
        stretch = [number for _, number in group]
        stretches.append(str(stretch[0]) if len(stretch) == 1 else f"{stretch[0]} to {stretch[-1]}")
    more = f" and {len(stretches) - _SHOWN} more stretches" if len(stretches) > _SHOWN else ""
    return f"{'entry' if len(numbers) == 1 else 'entries'} {', '.join(stretches[:_SHOWN])}{more}"
