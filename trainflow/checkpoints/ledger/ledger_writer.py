"""The ledger of one chain: append to it.

Creating entry N+1 is the commit and the fence, both: exactly one writer can, and only on top of entry N.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

import msgspec

from trainflow.checkpoints.ledger import missing_entries, snapshots
from trainflow.checkpoints.ledger.entries import Author, LedgerEntry, Rewind
from trainflow.checkpoints.ledger.entry_files import (
    PageLost,
    decode_entry,
    encode_entry,
)
from trainflow.checkpoints.ledger.fold import SealedEntry, fold, restored_aliases
from trainflow.checkpoints.ledger.ledger_reader import LedgerReader
from trainflow.checkpoints.ledger.rules import refusal
from trainflow.checkpoints.ledger.state import ChainState
from trainflow.errors import CheckpointError, LedgerCorrupt, StoreFailure
from trainflow.identifiers import digest
from trainflow.observability.redaction import redact_text
from trainflow.storage.exclusive_creation import created

#: what a writer adds; None where it finds that there is nothing to add
Addition = TypeVar("Addition", bound=LedgerEntry | None)
#: how many lost races in a row are believable before something else must be wrong
_APPEND_TRIES = 100
#: of an entry that is never written
_NO_TIME = datetime.min.replace(tzinfo=UTC)


class Ledger(LedgerReader):
    """One chain's ledger. `dry_run`: nothing is added, `append` returns what it would add, or raises what it would
    raise."""

    def append(self, make: Callable[[ChainState], Addition]) -> Addition:
        """Add the entry that `make` builds for the state it is given; called again when another writer was faster.

        Where `make` returns None nothing is added; whatever it raises ends it and changes nothing. Raises
        CheckpointError for an entry that may not follow.
        """
        for number in range(_APPEND_TRIES):
            state = self.state()
            if number == 0:
                # a snapshot vouches for all entries before it
                self.raise_unless_whole(every_entry=self._saves_with(state.sequence + 1))
            made = make(state)
            if made is None:
                return made
            made = _without_secrets(made)
            problem = self._refusal(state, made)
            if problem:
                raise CheckpointError(f"chain {self.chain} in {self.store.url}: refused to write an entry: {problem}")
            data, entry = self._encode(made)
            if self.dry_run:
                return cast("Addition", entry)
            self._fresh = False
            if created(self.store, self.chain.entry(entry.sequence), data):
                self._follow(state, entry, data)
                return cast("Addition", entry)  # of the same kind: it was only sealed
            if not self._looks_again:
                self._known = self._news(state)
        raise StoreFailure(
            f"{self._location(state.sequence + 1)}: {_APPEND_TRIES} times in a row the store said that this entry "
            "exists and then did not show it; check the store (is it cached by a proxy?)",
            location=self._location(state.sequence + 1),
        )

    def raise_unless_whole(self, *, every_entry: bool = False) -> None:
        """Raise LedgerCorrupt when an entry is missing that anything knows of; asked before each append and deletion.
        Lists the ledger and what lies beside it: names only, 60 ms for 100,000 entries on a local disk, a request for
        each 1,000 in an object store, where the listing that the state was read with does, up to the next append. For
        one task, entries of a long ledger there before its newest snapshot are listed with `every_entry` alone: the
        writer of the snapshot has seen them, and that of the next one does. Raises StoreFailure."""
        state = self.state()
        if not self.store.remote:
            mark = missing_entries.read_newest_entry(self.store, self.chain)
            beside, found, unseen = missing_entries.entry_evidence(self.store, self.chain, mark), None, range(0)
        else:
            listing = self.listing()
            if every_entry and listing.unseen:
                listing = self._look(every_entry=True)
            mark, found, unseen = self._mark, listing.entries, listing.unseen
            beside = missing_entries.listed_evidence(self.store, self.chain, mark, listing)
        if mark.sequence == state.sequence:
            # who knows of entries that were given up as lost since must not add to those that came instead
            self._check_mark(mark, state.digest)
        missing_entries.raise_unless_whole(self.store, self.chain, state.sequence, beside, found, unseen)

    def _refusal(self, state: ChainState, entry: LedgerEntry) -> str | None:
        try:
            return refusal(state, entry, self._page_source)
        except PageLost:
            return refusal(self._read_all(), entry, self._page_source)

    def _encode(self, entry: LedgerEntry) -> tuple[bytes, LedgerEntry]:
        data = encode_entry(entry)
        try:
            return data, decode_entry(data, location="to be written")
        except LedgerCorrupt as error:
            # what cannot be read back would stop the chain for ever
            raise CheckpointError(f"chain {self.chain} in {self.store.url}: refused to write {error}") from None

    def _follow(self, state: ChainState, entry: LedgerEntry, data: bytes) -> None:
        sealed = SealedEntry(entry, digest(data), self._location(entry.sequence))
        missing_entries.write_newest_entry(self.store, self.chain, entry.sequence, sealed.digest)
        try:
            self._known = fold(state, [sealed], self._page_source)
        except (PageLost, StoreFailure):
            # the entry is written; what it comes to is read again when it is asked for
            self._known = None
            return
        if self._saves_with(entry.sequence) and snapshots.save_snapshot(
            self.store, self.chain, self._known, self._page_source.made
        ):
            self._snapshot_at = entry.sequence
            self._page_source.made.clear()

    def _saves_with(self, sequence: int) -> bool:
        return sequence - self._snapshot_at >= snapshots.SNAPSHOT_INTERVAL

    def _location(self, sequence: int) -> str:
        return self.store.uri(self.chain.entry(sequence))

    def if_rewound(self, to_checkpoint_id: str | None) -> ChainState:
        """The state that a rewind to a kept ancestor of the head would make of this one; nothing is written."""
        state = self.state()
        promoted = self.aliases_after_rewind(state, to_checkpoint_id)
        entry = Rewind(**state.header(Author(), _NO_TIME), to_checkpoint_id=to_checkpoint_id, promoted=promoted)
        sealed = [SealedEntry(entry, state.digest, "a rewind to be")]
        try:
            return fold(state, sealed, self._page_source)
        except PageLost:
            return fold(self._read_all(), sealed, self._page_source)

    def aliases_after_rewind(self, state: ChainState, to_checkpoint_id: str | None) -> dict[str, str]:
        """The aliases that a rewind to there gives back to a checkpoint that stays, and to which: {alias: id}."""
        if to_checkpoint_id is None or not state.promoted:
            return {}
        return restored_aliases(state, self.line(), to_checkpoint_id, self.entries)


def _without_secrets(entry: Addition) -> Addition:
    """The entry with what a person gave as its reason masked: it is kept for ever, for every reader of the store."""
    reason = getattr(entry, "reason", "")
    masked = redact_text(reason)
    return entry if masked == reason else msgspec.structs.replace(cast("Any", entry), reason=masked)
