"""The checkpoints whose files are kept: the newest at hand, the older ones in pages.

Which are in pages depends on the entries alone, never on who reads them when: so a fold that begins at a snapshot and
one that begins at the first entry come to the same state.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Protocol

import msgspec

from trainflow.checkpoints.ledger.entries import Checkpoint
from trainflow.checkpoints.ledger.state import ChainState, CheckpointSummary, Page
from trainflow.identifiers import digest

#: lines in a page; between one and two times as many are at hand
PAGE = 256


class PageSource(Protocol):
    """Where a fold finds what its state does not hold."""

    def checkpoint(self, summary: CheckpointSummary) -> Checkpoint:
        """A checkpoint in full: needed when a rewind makes an older one the head."""
        ...

    def page(self, page: Page) -> list[CheckpointSummary]:
        """The lines of a page."""
        ...

    def put(self, page: Page, data: bytes) -> None:
        """Take a new page; it is asked for again by its name."""
        ...


class KeptCheckpoints:
    """The kept checkpoints of a chain while its entries are folded."""

    def __init__(self, state: ChainState, page_source: PageSource) -> None:
        self._recent = {summary.id: summary for summary in state.recent}
        self._pages = list(state.pages)
        self._page_source = page_source

    def recently(self, checkpoint_id: str) -> CheckpointSummary | None:
        """One of the newest."""
        return self._recent.get(checkpoint_id)

    def get(self, checkpoint_id: str) -> CheckpointSummary | None:
        """Any that is kept. Takes pages back until it is at hand, with all that came after it."""
        while checkpoint_id not in self._recent and self._pages:
            self._take_back()
        return self._recent.get(checkpoint_id)

    def change(self, summary: CheckpointSummary) -> None:
        """Add one, or replace the line of one at hand."""
        self._recent[summary.id] = summary

    def drop(self, checkpoint_id: str) -> None:
        """Forget one that is at hand."""
        del self._recent[checkpoint_id]

    def leave_behind(self, sequence: int) -> None:
        """Take everything after this entry off the line."""
        while self._pages and self._pages[-1].last > sequence:
            self._take_back()
        for name, summary in self._recent.items():
            if summary.sequence > sequence and summary.on_line:
                self._recent[name] = msgspec.structs.replace(summary, on_line=False)

    def settle(self) -> None:
        """Put the oldest at hand into pages. Called after every entry."""
        while len(self._recent) >= 2 * PAGE:
            oldest = list(islice(self._recent.values(), PAGE))
            data = encode_page(oldest)
            page = Page(_name(oldest, data), oldest[0].sequence, oldest[-1].sequence, len(oldest))
            self._page_source.put(page, data)
            self._pages.append(page)
            for summary in oldest:
                del self._recent[summary.id]

    def fields(self) -> dict[str, object]:
        """Fields of a state that say the same."""
        return {"recent": list(self._recent.values()), "pages": list(self._pages)}

    def _take_back(self) -> None:
        older = self._page_source.page(self._pages.pop())
        self._recent = {summary.id: summary for summary in older} | self._recent


def encode_page(summaries: Iterable[CheckpointSummary]) -> bytes:
    """The bytes of a page's file."""
    return msgspec.json.encode(list(summaries))


def decode_page(page: Page, data: bytes) -> list[CheckpointSummary]:
    """The lines of a page. Raises ValueError when these are not the bytes its name speaks of."""
    if not page.name.endswith(_short(data)):
        raise ValueError(f"{page.name} is not what it was")
    return _DECODER.decode(data)


def _name(summaries: list[CheckpointSummary], data: bytes) -> str:
    return f"{summaries[0].sequence:010d}-{summaries[-1].sequence:010d}-{_short(data)}"


def _short(data: bytes) -> str:
    return digest(data).removeprefix("sha256:")[:32]


_DECODER = msgspec.json.Decoder(list[CheckpointSummary])
