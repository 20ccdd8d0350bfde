"""What a chain is after its newest entry: a value, made by the fold and kept in snapshots.

Small however long the chain is: the head in full, one line for each of the newest checkpoints that were not pruned;
the lines of older ones are in pages that are read only by who asks for them. What was pruned is in the ledger only.

Which are in pages depends on the entries alone, never on who reads them when: so a fold that begins at a snapshot and
one that begins at the first entry come to the same state.

Numbers of checkpoints, what people call them, are a function of the ledger alone:

- The first checkpoint of a chain is number 1, each one that is committed later has the next number.
- Nothing takes a number back: not a rewind, whose undone checkpoints keep theirs, nor a prune.
- A branch counts on from the checkpoint it was forked from, so along its line each number is there once.
- What a lost ledger may have numbered is left out, except for checkpoints that are committed again: they keep theirs.

So a number means one checkpoint of a chain for ever, and grows along every line.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import islice
from typing import Protocol

import msgspec

from trainflow.checkpoints.ledger.entries import (
    Adoption,
    Author,
    Checkpoint,
    CheckpointRef,
    EntryHeader,
    Fork,
    HoleFilled,
    HoleRecord,
    LedgerEntry,
    Loss,
    Regrid,
    Stop,
)
from trainflow.identifiers import digest
from trainflow.samples.grid import Grid


class CheckpointSummary(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One line about a checkpoint whose artifacts are kept. Thousands are read at once, so the collector skips them."""

    id: str
    sequence: int
    parent_id: str | None
    watermark: datetime
    run_id: str
    #: what people call it (`numbered`)
    number: int
    #: how many checkpoints the line has from the root up to it
    place: int
    #: partitions trained from the root up to here
    partitions: int
    size: int
    at: datetime
    #: digest of its ledger entry
    digest: str
    #: False after a rewind to before it
    on_line: bool
    metrics: dict[str, float]
    #: what the next run measured of it, on samples it had not seen
    scores: dict[str, float]
    #: `Artifacts.owners`
    owners: tuple[str, ...] = ()


class LineHole(msgspec.Struct, frozen=True, array_like=True):
    """A hole on the line, and the checkpoint that stepped over it."""

    sequence: int
    hole: HoleRecord


class LineFill(msgspec.Struct, frozen=True, array_like=True):
    """A stretch of a hole, and the entry that did something about it. `end` is exclusive."""

    sequence: int
    start: datetime
    end: datetime


class Page(msgspec.Struct, frozen=True, array_like=True):
    """Lines of older checkpoints, `count` of them, from the entries `first` to `last`. Its name holds their digest."""

    name: str
    first: int
    last: int
    count: int


class ChainState(msgspec.Struct, frozen=True):
    """A chain after its newest entry. `sequence` and `digest` are that entry's (0 and empty: no entry yet)."""

    sequence: int = 0
    digest: str = ""
    head: Checkpoint | HoleFilled | None = None
    #: the newest that were not pruned, in the order of their sequence; those off the line (rewound) included
    recent: list[CheckpointSummary] = []
    #: the older ones
    pages: list[Page] = []
    #: holes of the line as they were stepped over, and what was trained of them since
    recorded: list[LineHole] = []
    fills: list[LineFill] = []
    #: what a gate or a person left out on purpose; the samples were there
    left_out: list[LineFill] = []
    #: stretches after the head that the next split has to record as holes
    skips: list[HoleRecord] = []
    #: the samples have another grid since the head
    regrid: Regrid | None = None
    #: where the line's first split began
    root: datetime | None = None
    #: gates refused a checkpoint, and no person has decided yet
    stopped: Stop | None = None
    #: splits for which gates caused a rewind; it is not tried again, unless a person went back further
    gate_rewinds: list[HoleRecord] = msgspec.field(default_factory=list, name="retried")
    #: alias → checkpoint
    promoted: dict[str, str] = {}
    #: alias → the checkpoints that rewinds took it from, since one was promoted to it
    demoted: dict[str, list[str]] = {}
    #: how the chain began, when it did not begin with nothing
    start: Fork | Adoption | None = None
    #: checkpoints of entries that are lost for good, as persons accepted; their files are left alone
    lost: list[str] = []
    #: the highest number that a checkpoint has or had (`numbered`)
    last_number: int = 0
    #: rewinds so far: training a split again is told from training it the first time
    generation: int = 0
    #: what the newest prune entry names: its deletion may have been cut short
    last_pruned: list[str] = []
    #: checkpoints of other chains that a first checkpoint of this one was trained from
    origins: list[CheckpointRef] = []
    #: folder of artifacts, pruned perhaps or of another chain → how many kept checkpoints have files in it that are not
    #: their own
    shared: dict[str, int] = {}

    def header(self, by: Author, now: datetime) -> EntryHeader:
        """The first fields of the entry that may come next."""
        return EntryHeader(sequence=self.sequence + 1, previous=self.digest, at=now, by=by)

    @property
    def watermark(self) -> datetime | None:
        """The exclusive end of what was trained; before the first checkpoint where the chain goes on; None: nothing
        yet."""
        if self.head:
            return self.head.watermark
        return self.start.watermark if self.start else None

    @property
    def edge(self) -> datetime | None:
        """The exclusive end of what was trained or skipped; None: nothing yet."""
        return self.skips[-1].end if self.skips else self.watermark

    @property
    def grid(self) -> Grid | None:
        """The grid of the samples that the chain goes on with; None: nothing says."""
        if self.regrid is not None:
            return self.regrid.grid
        return self.head.grid if self.head else None

    @property
    def first(self) -> datetime | None:
        """Where the line begins, or what is recorded before it; None: not known, or it went on from elsewhere, so that
        nothing has to be there before it."""
        if self.root is None or self.start is not None or self.origins:
            return None
        return min([self.root, *(each.hole.start for each in self.recorded)])

    @property
    def holes(self) -> list[LineHole]:
        """What the line stepped over and has not trained since, in order of time."""
        fills = [(fill.start, fill.end) for fill in self.fills]
        return [
            LineHole(each.sequence, HoleRecord(start, end, each.hole.reason))
            for each in self.recorded
            for start, end in without((each.hole.start, each.hole.end), fills)
        ]

    @property
    def upstreams(self) -> list[CheckpointRef]:
        """Checkpoints of other chains that this one began with, would begin with again, or last went on from."""
        forked = self.start.origin if isinstance(self.start, Fork) else None
        newest = self.head.origin if self.head else None
        return [*self.origins, *(each for each in (forked, newest) if each and each not in self.origins)]

    @property
    def head_sequence(self) -> int:
        """The head's number in the ledger; 0: there is no head."""
        return self.head.sequence if self.head else 0

    @property
    def head_number(self) -> int:
        """What people call the head; 0: there is none."""
        return self.head.number if self.head else 0

    def recently(self, checkpoint_id: str) -> CheckpointSummary | None:
        """The checkpoint of this id, when it is one of the newest."""
        return next((found for found in reversed(self.recent) if found.id == checkpoint_id), None)


#: [start, end)
Stretch = tuple[datetime, datetime]


def without(stretch: Stretch, others: Iterable[Stretch]) -> list[Stretch]:
    """What is left of a stretch when the others are taken away, in order."""
    edge, end = stretch
    left: list[Stretch] = []
    for start, stop in sorted(others):
        if stop <= edge or start >= end:
            continue
        if start > edge:
            left.append((edge, start))
        edge = stop
    if edge < end:
        left.append((edge, end))
    return left


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

    def drop(self, checkpoint_id: str) -> CheckpointSummary:
        """Forget one that is at hand; returns what its line was."""
        return self._recent.pop(checkpoint_id)

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


def numbered(checkpoint: Checkpoint, last: int) -> Checkpoint:
    """The checkpoint with its number, where its entry does not say it; `last` is the highest number before it."""
    return checkpoint if checkpoint.number else msgspec.structs.replace(checkpoint, number=last + 1)


def last_number(last: int, entry: LedgerEntry) -> int:
    """The highest number in a chain after `entry`, when it was `last` before it."""
    match entry:
        case Checkpoint(number=number):
            return max(last, number or last + 1)
        case Fork(number=number):
            return number
        case Loss():
            return last + entry.last - entry.first + 1
        case _:
            return last


def with_numbers(entries: Iterable[LedgerEntry], last: int = 0) -> Iterator[LedgerEntry]:
    """The entries that follow where the highest number is `last`, with the numbers of their checkpoints."""
    for entry in entries:
        yield numbered(entry, last) if isinstance(entry, Checkpoint) else entry
        last = last_number(last, entry)


def number_problem(checkpoint: Checkpoint, head: int, last: int) -> str | None:
    """Why a checkpoint cannot have its number behind a head of number `head`, where `last` is the highest; None when it
    can."""
    first = head + 1 if checkpoint.recovered else last + 1
    if checkpoint.number == 0 or first <= checkpoint.number <= last + 1:
        return None
    return f"it calls itself checkpoint {checkpoint.number}, checkpoint {last + 1} is due"
