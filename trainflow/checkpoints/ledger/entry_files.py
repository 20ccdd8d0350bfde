"""Entries of a ledger and pages of its older checkpoints as files: the bytes of one, how it is sealed, what is wrong
with one that was edited or is torn; and how they are read, in order and many at once.

What lies in the folder of a chain, as one listing shows it: for stores in which each look is a request. The names
alone prove which entries there have to be, and the marks of their contents which of them were read before.

The artifacts of a chain may be many files, or few: where one request shows them with everything else they are looked at
too, and nothing about them has to be asked for afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import get_args

import msgspec

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.entries import FORMAT, Checkpoint, LedgerEntry, Stop
from trainflow.checkpoints.ledger.fold import SealedEntry
from trainflow.checkpoints.ledger.state import CheckpointSummary, Page, decode_page, numbered
from trainflow.errors import LedgerCorrupt, LedgerTooNew
from trainflow.humanize import counted
from trainflow.identifiers import digest
from trainflow.storage.store import SEAL, Store, StoreFile

#: the folder of the artifacts, which may hold many files, sorts before everything else that is looked at here
_FIRST = "artifacts0"
#: and that of the entries before those that may grow without end
_AFTER_ENTRIES = "ledger0"


class ChainListing(msgspec.Struct, frozen=True):
    """Files by what they are. `entries` by their number."""

    entries: dict[int, StoreFile]
    mark: StoreFile | None
    snapshots: list[StoreFile]
    pages: list[StoreFile]
    others: list[StoreFile]
    #: files below the folder of the artifacts; None: they were not looked at
    artifacts: list[StoreFile] | None = None
    #: numbers of entries that were not looked at: what wrote the newest snapshot had seen them all
    unseen: range = range(0)

    def below(self, folder: str, *, empty: bool = True) -> Iterator[str]:
        """The paths, from there, of files in one of the other folders of the chain; without the `empty` ones unless
        they are asked for."""
        found = (each for each in self.others if each.path.startswith(f"{folder}/"))
        return (each.path[len(folder) + 1 :] for each in found if empty or each.size_bytes)

    def of_attempt(self, chain: ChainKey, name: str) -> list[str]:
        """The paths of the artifacts of an attempt and, as the last, of their seal; of what was looked at."""
        folder = chain.attempt(name)
        found = [each.path for each in self.artifacts or () if each.path.startswith(f"{folder}/")]
        return [*found, *(each.path for each in self.artifacts or () if each.path == f"{folder}{SEAL}")]


def list_chain(
    store: Store, chain: ChainKey, *, with_artifacts: bool = False, every_entry: bool = True
) -> ChainListing:
    """Look, at the artifacts only where one request shows all files of the chain. Without `every_entry` a ledger that
    is longer than a request shows is looked at from its newest snapshot on: so many requests however long it is. Raises
    StoreFailure."""
    everything = store.files_if_few(chain.prefix) if with_artifacts else None
    if everything is not None:
        artifacts = [file for file in everything if file.path.startswith(f"{chain.artifacts}/")]
        others = [file for file in everything if file.path > f"{chain.prefix}/{_FIRST}"]
        return msgspec.structs.replace(listing_of(chain, others), artifacts=artifacts)
    if not every_entry:
        first, more = store.first_files_after(chain.prefix, _FIRST)
        found = _around_snapshot(store, chain, first) if more else listing_of(chain, first)
        if found is not None:
            return found
    return listing_of(chain, store.files_after(chain.prefix, _FIRST))


def _around_snapshot(store: Store, chain: ChainKey, first: Sequence[StoreFile]) -> ChainListing | None:
    """The chain without the entries between the `first` files and the newest snapshot; None: it has no such."""
    before = listing_of(chain, first)
    if not before.entries:
        return None
    after = listing_of(chain, store.files_after(chain.prefix, _AFTER_ENTRIES))
    names = (file.path.rpartition("/")[2].removesuffix(".json") for file in after.snapshots)
    newest = max((int(name) for name in names if name.isdecimal()), default=0)
    unseen = range(max(before.entries) + 1, newest)
    if not unseen:
        return None
    # the entry that the snapshot ends with, too
    recent = listing_of(chain, store.files_after(chain.ledger, f"{newest - 1:010d}.json"))
    return msgspec.structs.replace(
        after, entries={**before.entries, **recent.entries}, others=[*before.others, *after.others], unseen=unseen
    )


def listing_of(chain: ChainKey, files: Sequence[StoreFile]) -> ChainListing:
    """Sort what a listing showed."""
    found = ChainListing({}, next((each for each in files if each.path == chain.mark), None), [], [], [])
    for each in files:
        folder, _, name = each.path.rpartition("/")
        if folder == chain.ledger:
            number = name.removesuffix(".json")
            if name.endswith(".json") and number.isdecimal() and len(number) == 10:
                found.entries[int(number)] = each
        elif folder == chain.snapshots:
            found.snapshots.append(each)
        elif folder == chain.pages:
            found.pages.append(each)
        else:
            found.others.append(each)
    return found


class _KindHeader(msgspec.Struct):
    kind: str = ""
    format: int = 0


_DECODER = msgspec.json.Decoder(LedgerEntry)
_HEADER = msgspec.json.Decoder(_KindHeader)
#: what to do about one that is not what was written
RESTORE_ENTRY = (
    "Restore the file from a backup or another copy of the store, then run 'trainflow audit PIPELINE'; where there is "
    "none, 'trainflow repair PIPELINE --accept-loss' shows what can be put back"
)
_ENCODER = msgspec.json.Encoder(order="deterministic")
KINDS = frozenset(str(each.__struct_config__.tag) for each in get_args(LedgerEntry))


def encode_entry(entry: LedgerEntry) -> bytes:
    """The bytes of an entry's file, sealed."""
    data = _ENCODER.encode(msgspec.structs.replace(entry, seal="")) + b"\n"
    # the first of this name: what a person can name comes later in the file
    return data.replace(b'"seal":""', b'"seal":"%b"' % digest(data).encode(), 1)


def seal_holds(data: bytes, seal: str) -> bool:
    """Whether an entry's bytes are those that were sealed."""
    return digest(data.replace(seal.encode(), b"", 1)) == seal


def decode_entry(data: bytes, *, location: str) -> LedgerEntry:
    """The entry in a file. Raises LedgerCorrupt that says where, and whether it is torn or edited; LedgerTooNew."""
    try:
        entry: LedgerEntry = _DECODER.decode(data)
    except msgspec.MsgspecError as error:
        raise _undecodable(data, error, location) from None
    if entry.format > FORMAT:
        raise _too_new(f"format {entry.format}", location)
    if entry.seal and not seal_holds(data, entry.seal):
        raise LedgerCorrupt(
            f"ledger entry {location}: it is not what was written: it was edited. {RESTORE_ENTRY}", location=location
        )
    return entry


def _undecodable(data: bytes, error: msgspec.MsgspecError, location: str) -> LedgerCorrupt:
    try:
        header = _HEADER.decode(data)
    except msgspec.MsgspecError:
        problem = f"not a whole JSON document ({error}; {counted(len(data), 'byte')}): it is torn or was edited"
        return LedgerCorrupt(f"ledger entry {location}: {problem}. {RESTORE_ENTRY}", location=location)
    if header.format > FORMAT:
        return _too_new(f"format {header.format}", location)
    if header.kind and header.kind not in KINDS:
        return _too_new(f"kind {header.kind!r}", location)
    problem = f"not a valid entry ({error}): it was edited"
    return LedgerCorrupt(f"ledger entry {location}: {problem}. {RESTORE_ENTRY}", location=location)


def _too_new(what: str, location: str) -> LedgerTooNew:
    problem = f"{what} is unknown here: it was written by a newer trainflow. Upgrade this one"
    return LedgerTooNew(f"ledger entry {location}: {problem}", location=location)


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


def read_checkpoint(store: Store, chain: ChainKey, sequence: int, digest_of_entry: str) -> Checkpoint | None:
    """A checkpoint of which is known which entry it is, without a look at its chain; None where it is not that entry
    (any more). Raises StoreFailure."""
    path = chain.entry(sequence)
    try:
        data = store.read_digested(path, digest_of_entry)
    except FileNotFoundError:
        return None
    if digest(data) != digest_of_entry:
        return None
    entry = decode_entry(data, location=store.uri(path))
    return entry if isinstance(entry, Checkpoint) else None


def batches(store: Store, chain: ChainKey, first: int, size: int = FIRST_BATCH) -> Iterator[list[SealedEntry]]:
    """The entries from number `first` to the last there is. Raises LedgerCorrupt, StoreFailure."""
    while True:
        batch = _read(store, chain, first, size)
        yield batch
        if len(batch) < size:
            return
        first += size
        size = min(size * 4, LARGEST_BATCH)


def checked_entries(following: Iterable[list[SealedEntry]]) -> Iterator[LedgerEntry]:
    """The entries of batches that begin with the first one. Raises LedgerCorrupt where one was not written on the one
    before it."""
    previous = ""
    for batch in following:
        for sealed in batch:
            if sealed.entry.previous != previous:
                raise edited_entry_error(sealed.location)
            previous = sealed.digest
            yield sealed.entry


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
            "'trainflow audit PIPELINE'",
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


class PageLost(Exception):
    """A page is not there (any more) or not what it was: fold the ledger from its beginning."""


class StorePages:
    """`made` are the pages that the fold has made and no snapshot has saved yet; `listing` shows, in a store in which
    each look is a request, what was read before."""

    def __init__(self, store: Store, chain: ChainKey) -> None:
        self._store = store
        self._chain = chain
        self.made: dict[str, bytes] = {}
        self.listing: ChainListing | None = None

    def checkpoint(self, summary: CheckpointSummary) -> Checkpoint:
        """Raises LedgerCorrupt when the entry is not the one that was folded."""
        location = self._store.uri(self._chain.entry(summary.sequence))
        [data] = read_entries(self._store, self._chain, [summary.sequence], self.listing)
        if data is None:
            raise edited_entry_error(location)
        entry = decode_entry(data, location=location)
        if digest(data) != summary.digest or not isinstance(entry, Checkpoint):
            raise edited_entry_error(location)
        return numbered(entry, summary.number - 1)

    def page(self, page: Page) -> list[CheckpointSummary]:
        """Raises PageLost."""
        return self.pages([page])

    def pages(self, pages: Sequence[Page]) -> list[CheckpointSummary]:
        """The lines of several pages, read at once. Raises PageLost."""
        away = [page.name for page in pages if page.name not in self.made]
        read = dict(zip(away, self._store.read_many([self._chain.page(name) for name in away]), strict=True))
        found: list[CheckpointSummary] = []
        for page in pages:
            data = self.made.get(page.name) or read[page.name]
            if data is None:
                raise PageLost(page.name)
            try:
                found += decode_page(page, data)
            except (ValueError, msgspec.MsgspecError):
                raise PageLost(page.name) from None
        return found

    def put(self, page: Page, data: bytes) -> None:
        """Hold a new page until its writer has stored it."""
        self.made[page.name] = data


def edited_entry_error(location: str) -> LedgerCorrupt:
    """An entry that later ones contradict."""
    return LedgerCorrupt(
        f"ledger entry {location} is missing or is not what the entries after it were written on: the ledger was "
        "edited. Restore it from a backup or another copy of the store, then run 'trainflow audit PIPELINE'",
        location=location,
    )
