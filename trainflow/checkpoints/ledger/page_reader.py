"""Where a fold finds in the store what its state does not hold: full checkpoints, and pages of older ones."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.chain_listing import ChainListing
from trainflow.checkpoints.ledger.entries import Checkpoint
from trainflow.checkpoints.ledger.entry_encoding import decode_entry
from trainflow.checkpoints.ledger.entry_files import read_entries
from trainflow.checkpoints.ledger.pages import decode_page
from trainflow.checkpoints.ledger.state import CheckpointSummary, Page
from trainflow.errors import LedgerCorrupt
from trainflow.identifiers import digest
from trainflow.storage.store import Store


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
        return entry

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
        "edited. Restore it from a backup or another copy of the store, then run 'trainflow audit'",
        location=location,
    )
