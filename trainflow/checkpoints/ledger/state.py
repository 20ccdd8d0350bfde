"""What a chain is after its newest entry: a value, made by the fold and kept in snapshots.

Small however long the chain is: the head in full, one line for each of the newest checkpoints that were not pruned;
the lines of older ones are in pages that are read only by who asks for them. What was pruned is in the ledger only.
"""

from __future__ import annotations

from datetime import datetime

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
    Regrid,
    Stop,
)
from trainflow.checkpoints.ledger.tiling import without
from trainflow.samples.grid import Grid


class CheckpointSummary(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One line about a checkpoint whose artifacts are kept. Thousands are read at once, so the collector skips them."""

    id: str
    sequence: int
    parent_id: str | None
    watermark: datetime
    run_id: str
    #: its place on the line from the root, counted from 1
    number: int
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
    retried: list[HoleRecord] = []
    #: alias → checkpoint
    promoted: dict[str, str] = {}
    #: alias → the checkpoints that rewinds took it from, since one was promoted to it
    demoted: dict[str, list[str]] = {}
    #: how the chain began, when it did not begin with nothing
    start: Fork | Adoption | None = None
    #: checkpoints of entries that are lost for good, as persons accepted; their files are left alone
    lost: list[str] = []
    #: rewinds so far: training a split again is told from training it the first time
    generation: int = 0
    #: what the newest prune entry names: its deletion may have been cut short
    last_pruned: list[str] = []
    #: checkpoints of other chains that a first checkpoint of this one was trained from
    origins: list[CheckpointRef] = []

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
    def bases(self) -> list[CheckpointRef]:
        """Checkpoints of other chains that this one began with, would begin with again, or last went on from."""
        forked = self.start.origin if isinstance(self.start, Fork) else None
        newest = self.head.origin if self.head else None
        return [*self.origins, *(each for each in (forked, newest) if each and each not in self.origins)]

    @property
    def head_sequence(self) -> int:
        """The head's number in the ledger; 0: there is no head."""
        return self.head.sequence if self.head else 0

    def recently(self, checkpoint_id: str) -> CheckpointSummary | None:
        """The checkpoint of this id, when it is one of the newest."""
        return next((found for found in reversed(self.recent) if found.id == checkpoint_id), None)
