"""The ledger of one chain: read its state, append to it.

Creating entry N+1 is the commit and the fence, both: exactly one writer can, and only on top of entry N.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from trainflow.checkpoints import snapshots
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.entries import Checkpoint, LedgerEntry, decode_entry, encode_entry
from trainflow.checkpoints.fold import SealedEntry, fold, refusal
from trainflow.checkpoints.state import ChainState, CheckpointSummary
from trainflow.checkpoints.store import Store
from trainflow.errors import CheckpointError, CheckpointNotFound, LedgerCorrupt, StoreFailure
from trainflow.identifiers import digest

#: entries asked for at once: few when this object has read the ledger before, then more and more
_NEWS_BATCH = 2
_FIRST_BATCH = 16
_LARGEST_BATCH = 256
#: how many lost races in a row are believable before something else must be wrong
_APPEND_TRIES = 100


class Ledger:
    """One chain's ledger. Remembers what it has read: the next `state()` reads only what is new."""

    def __init__(self, store: Store, chain: ChainKey) -> None:
        self.store = store
        self.chain = chain
        self._known: ChainState | None = None
        self._snapshot_at = 0

    def state(self) -> ChainState:
        """The state now. Raises LedgerCorrupt, StoreFailure."""
        size = _NEWS_BATCH if self._known else _FIRST_BATCH
        state = self._known or self._start()
        for batch in self._batches(state.sequence + 1, size):
            if batch:
                state = fold(state, batch, self._recall)
        self._known = state
        return state

    def entries(self) -> Iterator[LedgerEntry]:
        """Every entry from the first, with the digest chain checked. Raises LedgerCorrupt."""
        previous = ""
        for batch in self._batches(1):
            for sealed in batch:
                if sealed.entry.previous != previous:
                    raise _edited(sealed.location)
                previous = sealed.digest
                yield sealed.entry

    def checkpoint(self, checkpoint_id: str | None = None) -> Checkpoint:
        """A kept checkpoint in full (None: the head). Raises CheckpointNotFound."""
        state = self.state()
        if state.head and checkpoint_id in (None, state.head.id):
            return state.head
        summary = state.find(checkpoint_id) if checkpoint_id else None
        if summary is None:
            raise CheckpointNotFound(
                f"chain {self.chain} in {self.store.url} has no checkpoint {checkpoint_id or 'yet'}"
                + (": it was never committed there, or its files were pruned" if checkpoint_id else "")
            )
        return self._recall(summary)

    def append(self, make: Callable[[ChainState], LedgerEntry]) -> LedgerEntry:
        """Add the entry that `make` builds for the state it is given; called again when another writer was faster.

        Whatever `make` raises ends it and changes nothing. Raises CheckpointError for an entry that may not follow.
        """
        for _ in range(_APPEND_TRIES):
            state = self.state()
            entry = make(state)
            problem = refusal(state, entry)
            if problem:
                raise CheckpointError(f"chain {self.chain} in {self.store.url}: refused to write an entry: {problem}")
            data = self._encode(entry)
            if self._create(entry.sequence, data):
                self._follow(state, entry, data)
                return entry
        raise StoreFailure(
            f"{self._location(state.sequence + 1)}: {_APPEND_TRIES} times in a row the store said that this entry "
            "exists and then did not show it; check the store (is it cached by a proxy?)",
            location=self._location(state.sequence + 1),
        )

    def _encode(self, entry: LedgerEntry) -> bytes:
        data = encode_entry(entry)
        try:
            decode_entry(data, location="to be written")
        except LedgerCorrupt as error:
            # what cannot be read back would stop the chain for ever
            raise CheckpointError(f"chain {self.chain} in {self.store.url}: refused to write {error}") from None
        return data

    def _create(self, sequence: int, data: bytes) -> bool:
        """Whether the entry is ours now. The reply may be lost although the file was created: the bytes decide."""
        path = self.chain.entry(sequence)
        try:
            self.store.create_exclusive(path, data)
        except (FileExistsError, StoreFailure) as error:
            [there] = self.store.read_many([path])
            if there is None and isinstance(error, StoreFailure):
                raise
            return there == data
        return True

    def _follow(self, state: ChainState, entry: LedgerEntry, data: bytes) -> None:
        sealed = SealedEntry(entry, digest(data), self._location(entry.sequence))
        self._known = fold(state, [sealed], self._recall)
        if entry.sequence - self._snapshot_at >= snapshots.INTERVAL:
            snapshots.save(self.store, self.chain, self._known)
            self._snapshot_at = entry.sequence

    def _start(self) -> ChainState:
        state = snapshots.load(self.store, self.chain) or ChainState()
        self._snapshot_at = state.sequence
        return state

    def _batches(self, first: int, size: int = _FIRST_BATCH) -> Iterator[list[SealedEntry]]:
        while True:
            batch = self._read(first, size)
            yield batch
            if len(batch) < size:
                return
            first += size
            size = min(size * 4, _LARGEST_BATCH)

    def _read(self, first: int, count: int) -> list[SealedEntry]:
        """The entries from `first` on, up to the first that is not there."""
        numbers = range(first, first + count)
        contents = self.store.read_many([self.chain.entry(number) for number in numbers])
        found: list[SealedEntry] = []
        for number, data in zip(numbers, contents, strict=True):
            if data is None:
                self._check_nothing_after(number, contents[number - first + 1 :])
                break
            location = self._location(number)
            found.append(SealedEntry(decode_entry(data, location=location), digest(data), location))
        return found

    def _check_nothing_after(self, missing: int, later: list[bytes | None]) -> None:
        # read_many is not one moment: two entries may have come while it read, so look for the missing one again
        if any(data is not None for data in later) and not self.store.exists(self.chain.entry(missing)):
            location = self._location(missing)
            raise LedgerCorrupt(
                f"ledger entry {location} is missing although later ones are there; restore it from a backup or "
                "another copy of the store, then run 'trainflow audit'",
                location=location,
            )

    def _recall(self, summary: CheckpointSummary) -> Checkpoint:
        location = self._location(summary.sequence)
        try:
            data = self.store.read(self.chain.entry(summary.sequence))
        except FileNotFoundError:
            raise _edited(location) from None
        entry = decode_entry(data, location=location)
        if digest(data) != summary.digest or not isinstance(entry, Checkpoint):
            raise _edited(location)
        return entry

    def _location(self, sequence: int) -> str:
        return self.store.uri(self.chain.entry(sequence))


def _edited(location: str) -> LedgerCorrupt:
    return LedgerCorrupt(
        f"ledger entry {location} is missing or is not what the entries after it were written on: the ledger was "
        "edited. Restore it from a backup or another copy of the store, then run 'trainflow audit'",
        location=location,
    )
