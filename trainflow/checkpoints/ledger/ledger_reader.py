"""The ledger of one chain, read: its state, its entries, its checkpoints, and what lies beside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Self, cast

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger import missing_entries, snapshots
from trainflow.checkpoints.ledger.entries import Checkpoint, LedgerEntry
from trainflow.checkpoints.ledger.entry_files import (
    FIRST_BATCH,
    LARGEST_BATCH,
    NEWS_BATCH,
    ChainListing,
    PageLost,
    StorePages,
    batches,
    checked_entries,
    list_chain,
    listed_batches,
    read_entries,
)
from trainflow.checkpoints.ledger.fold import SealedEntry, fold
from trainflow.checkpoints.ledger.missing_entries import NewestEntry
from trainflow.checkpoints.ledger.state import ChainState, CheckpointSummary, with_numbers
from trainflow.errors import CheckpointNotFound
from trainflow.storage.store import Store, StoreFile

#: so many of the newest entries are remembered, unless they name more files than that: who looks back from the head
#: reads these only once
_REMEMBERED, _FEW_FILES = 32, 100


class LedgerReader:
    """One chain's ledger, read. Remembers what it has read: the next `state()` reads only what is new.

    `of_one_task`: in a store where each look is a request it is read at one moment, and again where another writer was
    faster than an append. The listing of that moment also shows whether the ledger is whole, for one append, and the
    artifacts, unless the chain is known to have too many files (`has_few_files`).
    """

    def __init__(
        self,
        store: Store,
        chain: ChainKey,
        *,
        of_one_task: bool = False,
        has_few_files: bool = True,
        dry_run: bool = False,
    ) -> None:
        self.store = store
        self.chain = chain
        self.dry_run = dry_run
        #: False once a listing was too long to show the artifacts, too
        self.has_few_files = has_few_files
        self._known: ChainState | None = None
        self._looks_again = not (of_one_task and store.remote)
        #: of a remote store, the newest, with its mark; `_fresh`: it is of this task, and nothing was appended since
        self._listing: ChainListing | None = None
        self._mark = NewestEntry()
        self._fresh = False
        self._snapshot_at = 0
        self._page_source = StorePages(store, chain)
        self._entries: dict[int, LedgerEntry] = {}
        #: of the other chains that this task has asked about
        self._others: dict[ChainKey, LedgerReader] = {chain: self}

    def other(self, chain: ChainKey) -> Self:
        """The ledger of another chain in the store. For one task in a store in which each look is a request it is read
        at one moment, however often it is asked for."""
        if self._looks_again:
            return type(self)(self.store, chain, dry_run=self.dry_run)
        if chain not in self._others:
            # its artifacts are not asked about
            self._others[chain] = type(self)(self.store, chain, of_one_task=True, has_few_files=False)
            self._others[chain]._others = self._others
        return cast("Self", self._others[chain])  # of the same class: made here

    def forget_others(self) -> None:
        """Look at the other chains anew when they are asked about next."""
        for each in self._others.values():
            each._others = {each.chain: each}
        self._others = {self.chain: self}

    def state(self) -> ChainState:
        """The state now. Raises LedgerCorrupt, StoreFailure."""
        try:
            return self._read_on()
        except PageLost:
            return self._read_all()

    def kept_in(self, state: ChainState) -> list[CheckpointSummary]:
        """The lines of `kept`, in a state that this ledger is in or would be in."""
        return [*self._page_source.pages(state.pages), *state.recent]

    def kept(self) -> list[CheckpointSummary]:
        """A line about each checkpoint that was not pruned, in the order of their sequence; those a rewind left behind
        included. Reads the pages of a long chain; `state().recent` are the newest at no cost."""
        state = self.state()
        try:
            return self.kept_in(state)
        except PageLost:
            return self.kept_in(self._read_all())

    def line(self) -> list[CheckpointSummary]:
        """The kept checkpoints from the root to the head."""
        return [summary for summary in self.kept() if summary.on_line]

    def find(self, checkpoint_id: str) -> CheckpointSummary | None:
        """The kept checkpoint of this id."""
        return next((each for each in self.back() if each.id == checkpoint_id), None)

    def back(self) -> Iterator[CheckpointSummary]:
        """The lines of `kept` from the newest back: a caller that stops early has read few pages."""
        state = self.state()
        yield from reversed(state.recent)
        for page in reversed(state.pages):
            try:
                older = self._page_source.page(page)
            except PageLost:
                yield from (each for each in reversed(self.kept()) if each.sequence <= page.last)
                return
            yield from reversed(older)

    def _read_on(self) -> ChainState:
        if self._known is None:
            return self._begin()
        if self._looks_again:
            self._known = self._news(self._known)
        return self._known

    def _news(self, state: ChainState) -> ChainState:
        """What was added to a state that was read before."""
        size = 1 if self.store.remote else NEWS_BATCH
        return self._fold(state, batches(self.store, self.chain, state.sequence + 1, size))

    def _begin(self) -> ChainState:
        """Read for the first time: up to the mark and one further, which is the end unless its writer has not left word
        yet. What the mark or a snapshot knows of has to be there."""
        listing = self._look() if self.store.remote else None
        state, snapshot = snapshots.load_snapshot(self.store, self.chain, listing)
        if listing is not None and (0 if state is None else state.sequence) + 1 in listing.unseen:
            # the newest snapshot is of no use
            listing = self._look(every_entry=True)
            state, snapshot = snapshots.load_snapshot(self.store, self.chain, listing)
        state = state or ChainState()
        self._snapshot_at = state.sequence
        mark = missing_entries.read_newest_entry(self.store, self.chain) if listing is None else self._mark
        if state.sequence == mark.sequence:
            self._check_mark(mark, state.digest)
        witnesses = [snapshot, missing_entries.evidence_of_newest_entry(self.store, self.chain, mark)]
        if listing is None:
            ahead = mark.sequence - state.sequence + 1
            size = min(max(ahead, NEWS_BATCH), LARGEST_BATCH) if mark.sequence else FIRST_BATCH
            following = batches(self.store, self.chain, state.sequence + 1, size)
        else:
            last = max(listing.entries, default=0)
            witnesses.append(missing_entries.evidence_of_last(last))
            following = listed_batches(self.store, self.chain, state.sequence + 1, listing, mark.sequence)
        state = self._fold(state, following, mark)
        witness = max(witnesses, key=lambda each: each.sequence)
        if witness.sequence > state.sequence:
            lost = range(state.sequence + 1, witness.sequence + 1)
            raise missing_entries.missing_entries_error(self.store, self.chain, lost, witness)
        self._known = state
        return state

    def _look(self, *, every_entry: bool = False) -> ChainListing:
        """Take the listing of the chain, and read its mark."""
        with_artifacts, every = self.has_few_files and not self._looks_again, every_entry or self._looks_again
        self._listing = list_chain(self.store, self.chain, with_artifacts=with_artifacts, every_entry=every)
        if with_artifacts:
            self.has_few_files = self._listing.artifacts is not None
        self._mark = missing_entries.read_newest_entry(self.store, self.chain, self._listing)
        self._page_source.listing = self._listing
        self._fresh = not self._looks_again
        return self._listing

    def _fold(
        self, state: ChainState, following: Iterable[list[SealedEntry]], mark: NewestEntry | None = None
    ) -> ChainState:
        for batch in following:
            for sealed in batch:
                self._remember(sealed.entry)
                if mark is not None and sealed.entry.sequence == mark.sequence:
                    self._check_mark(mark, sealed.digest)
            if batch:
                state = fold(state, batch, self._page_source)
        return state

    def _remember(self, entry: LedgerEntry) -> None:
        self._entries.pop(entry.sequence - _REMEMBERED, None)
        if not isinstance(entry, Checkpoint) or len(entry.artifacts.files) <= _FEW_FILES:
            self._entries[entry.sequence] = entry

    def remembered(self, number: int) -> LedgerEntry | None:
        """An entry by its number, if it was read for the newest state; None: it has to be read."""
        return self._entries.get(number)

    def _check_mark(self, mark: NewestEntry, found: str) -> None:
        if mark.sequence and mark.digest != found:
            raise missing_entries.replaced_entry_error(self.store, self.chain, mark, found)

    def _read_all(self) -> ChainState:
        """Read from the first entry, whatever the snapshots say: pages are made again on the way."""
        self._known, self._snapshot_at, self._entries = ChainState(), 0, {}
        self._page_source = StorePages(self.store, self.chain)
        return self._read_on()

    def entries(self) -> Iterator[LedgerEntry]:
        """Every entry from the first, with the digest chain checked. Raises LedgerCorrupt."""
        return with_numbers(checked_entries(self._batches(1, FIRST_BATCH)))

    def since(self, sequence: int) -> Iterator[LedgerEntry]:
        """The entries after number `sequence`. Raises LedgerCorrupt."""
        for batch in self._batches(sequence + 1, NEWS_BATCH):
            yield from (sealed.entry for sealed in batch)

    def _batches(self, first: int, size: int) -> Iterator[list[SealedEntry]]:
        if not self.store.remote:
            return batches(self.store, self.chain, first, size)
        last = self.state().sequence
        listing = self._listing or self._look()
        if first < listing.unseen.stop:
            listing = self._look(every_entry=True)
        return listed_batches(self.store, self.chain, first, listing, last)

    def read_entries(self, numbers: Sequence[int]) -> list[bytes | None]:
        """The contents of entries by their numbers; None for one that is not there. Raises StoreFailure."""
        return read_entries(self.store, self.chain, numbers, self._listing)

    def listing(self) -> ChainListing:
        """What lies beside the artifacts of the chain, as it was looked at for the newest state or since. Raises
        StoreFailure."""
        if not self._fresh:
            self._look()
        assert self._listing is not None
        return self._listing

    def checkpoint(self, checkpoint_id: str | None = None) -> Checkpoint:
        """A kept checkpoint in full (None: the head). Raises CheckpointNotFound."""
        state = self.state()
        if state.head and checkpoint_id in (None, state.head.id):
            return state.head
        summary = self.find(checkpoint_id) if checkpoint_id else None
        if summary is None:
            raise CheckpointNotFound(
                f"chain {self.chain} in {self.store.url} has no checkpoint {checkpoint_id or 'yet'}"
                + (": it was never committed there, or its files were pruned" if checkpoint_id else "")
            )
        return self._page_source.checkpoint(summary)

    def files_in(self, folder: str, *, empty: bool = True) -> list[str]:
        """The paths, from there, of the files in a folder of the chain that is no artifacts', without the `empty` ones
        unless they are asked for: of a remote store as it was looked at for the newest state or since. Raises
        StoreFailure."""
        if self.store.remote:
            return list(self.listing().below(folder, empty=empty))
        return [file.path[len(folder) + 1 :] for file in self.store.files(folder) if empty or file.size_bytes]

    def artifact_files(self) -> list[StoreFile] | None:
        """The files below the folder of the artifacts, as they were looked at for the newest state or since; None where
        that is more than a look. Raises StoreFailure."""
        return None if self._looks_again else self.listing().artifacts

    def artifact_names(self) -> set[str]:
        """The names in the folder of the artifacts: of attempts, and of the seals of those that are committed. Raises
        StoreFailure."""
        files, folder = self.artifact_files(), self.chain.artifacts
        if files is None:
            return set(self.store.names(folder) or ())
        return {file.path[len(folder) + 1 :].partition("/")[0] for file in files}

    @property
    def last_listing(self) -> ChainListing | None:
        """What a task has seen when it looked last, before it appended perhaps. None: it has not looked, or the store
        is on this machine."""
        return None if self._looks_again else self._listing
