"""A ledger of made-up entries."""

from __future__ import annotations

from typing import Any

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.entries import (
    ArtifactFile,
    Artifacts,
    Author,
    Checkpoint,
    CheckpointRef,
    HoleFilled,
    LedgerEntry,
    Skip,
)
from trainflow.checkpoints.ledger.entry_files import encode_entry
from trainflow.checkpoints.ledger.fold import SealedEntry, fold
from trainflow.checkpoints.ledger.rules import refusal
from trainflow.checkpoints.ledger.state import ChainState, CheckpointSummary, Page, decode_page, numbered
from trainflow.identifiers import digest
from trainflow.testing.chains import day, split_of

ORIGIN = CheckpointRef(ChainKey("p", "main", "main"), "x")


class MemoryShelf:
    """Finds what a state does not hold in the book it is of."""

    def __init__(self, sealed: list[SealedEntry]) -> None:
        self.sealed = sealed
        self.pages: dict[str, bytes] = {}

    def checkpoint(self, summary: CheckpointSummary) -> Checkpoint:
        entry = self.sealed[summary.sequence - 1].entry
        assert isinstance(entry, Checkpoint)
        return numbered(entry, summary.number - 1)

    def page(self, page: Page) -> list[CheckpointSummary]:
        return decode_page(page, self.pages[page.name])

    def put(self, page: Page, data: bytes) -> None:
        self.pages[page.name] = data


class Book:
    """A ledger in memory: adds entries without asking, and folds them."""

    def __init__(self) -> None:
        self.sealed: list[SealedEntry] = []
        self.page_source = MemoryShelf(self.sealed)

    @property
    def state(self) -> ChainState:
        return fold(ChainState(), self.sealed, self.page_source)

    def refusal(self, entry: LedgerEntry) -> str | None:
        return refusal(self.state, entry, self.page_source)

    @property
    def line(self) -> list[CheckpointSummary]:
        state = self.state
        older = [summary for page in state.pages for summary in self.page_source.page(page)]
        return [summary for summary in [*older, *state.recent] if summary.on_line]

    def next(self, kind: type[Any], **fields: Any) -> Any:
        last = self.sealed[-1] if self.sealed else None
        numbered = {"sequence": len(self.sealed) + 1, "previous": last.digest if last else ""}
        return kind(**{**numbered, "at": day(0), "by": Author(f"run{len(self.sealed)}")} | fields)

    def checkpoint(self, name: str, first: int, days: int = 1, parent: str | None = None, **fields: Any) -> Checkpoint:
        split = fields.pop("split", None) or split_of(first, days, fields.pop("skip", ()))
        artifacts = Artifacts(f"p/{name}", [ArtifactFile("m", 7, "sha256:00")])
        known = {"id": name, "parent_id": parent, "watermark": split.end, "split": split, "artifacts": artifacts}
        found = self.next(Checkpoint, **known | fields)
        assert isinstance(found, Checkpoint)
        return found

    def fill(self, name: str, first: int, days: int = 1, parent: str = "c", **fields: Any) -> HoleFilled:
        """A child of `parent` that trains what was a hole; the watermark is day 6's, as in `book`."""
        split = fields.pop("split", None) or split_of(first, days, fields.pop("skip", ()))
        artifacts = Artifacts(f"p/{name}", [ArtifactFile("m", 7, "sha256:00")])
        known = {"id": name, "parent_id": parent, "watermark": day(6), "split": split, "artifacts": artifacts}
        found = self.next(HoleFilled, **known | fields)
        assert isinstance(found, HoleFilled)
        return found

    def skip(self, first: int, days: int = 1, parent: str | None = "c", **fields: Any) -> Skip:
        known = {"parent_id": parent, "start": day(first), "end": day(first + days), "reason": "bad data"}
        found = self.next(Skip, **known | fields)
        assert isinstance(found, Skip)
        return found

    def add(self, *entries: LedgerEntry) -> ChainState:
        for entry in entries:
            self.sealed.append(SealedEntry(entry, digest(encode_entry(entry)), f"ledger/{entry.sequence}"))
        return self.state
