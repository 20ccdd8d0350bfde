"""The state of a chain: a pure fold over its ledger, and the rules every entry must obey.

The same rules refuse an entry before it is written and call a ledger corrupt when it is read. The state is compact:
the head in full, one line for each checkpoint that was not pruned; what was pruned is in the ledger only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

import msgspec

from trainflow.checkpoints.entries import (
    Checkpoint,
    CheckpointRef,
    HoleRecord,
    LedgerEntry,
    Prune,
    Rewind,
    SplitSummary,
    TrainedPartition,
)
from trainflow.errors import LedgerCorrupt


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


class ChainState(msgspec.Struct, frozen=True):
    """A chain after its newest entry. `sequence` and `digest` are that entry's (0 and empty: no entry yet)."""

    sequence: int = 0
    digest: str = ""
    head: Checkpoint | None = None
    #: not pruned, in the order of their sequence; those off the line (rewound) included
    checkpoints: list[CheckpointSummary] = []
    holes: list[LineHole] = []
    #: what the newest prune entry names: its deletion may have been cut short
    last_pruned: list[str] = []
    #: checkpoints of other chains that this one ever started from
    origins: list[CheckpointRef] = []

    @property
    def watermark(self) -> datetime | None:
        """The exclusive end of what the head has trained on; None: nothing yet."""
        return self.head.watermark if self.head else None

    @property
    def head_sequence(self) -> int:
        """The head's number in the ledger; 0: there is no head."""
        return self.head.sequence if self.head else 0

    @property
    def line(self) -> list[CheckpointSummary]:
        """The kept checkpoints from the root to the head."""
        return [summary for summary in self.checkpoints if summary.on_line]

    def find(self, checkpoint_id: str) -> CheckpointSummary | None:
        """The kept checkpoint of this id."""
        return next((found for found in reversed(self.checkpoints) if found.id == checkpoint_id), None)


class SealedEntry(msgspec.Struct, frozen=True):
    """An entry with the digest of its bytes and where it lies."""

    entry: LedgerEntry
    digest: str
    location: str


#: reads a checkpoint in full again: needed when a rewind makes an older one the head
Recall = Callable[[CheckpointSummary], Checkpoint]


def fold(state: ChainState, entries: Iterable[SealedEntry], recall: Recall) -> ChainState:
    """The state after `entries`. Raises LedgerCorrupt at the first one that breaks a rule."""
    work = _Fold(state, recall)
    for sealed in entries:
        problem = work.refuses(sealed.entry)
        if problem:
            raise LedgerCorrupt(
                f"ledger entry {sealed.location}: {problem}. The ledger was edited or entries were lost; restore it "
                "from a backup or another copy of the store, then run 'trainflow audit'",
                location=sealed.location,
            )
        work.apply(sealed)
    return work.state()


def refusal(state: ChainState, entry: LedgerEntry) -> str | None:
    """Why `entry` may not follow `state`; None when it may."""
    return _Fold(state, _never).refuses(entry)


def split_problem(split: SplitSummary) -> str | None:
    """Why a split does not tile its time; None when it does."""
    if not split.partitions:
        return "the split has no partition"
    tiles: list[TrainedPartition | HoleRecord] = sorted(
        [*split.partitions, *split.holes], key=lambda tile: (tile.start, tile.end)
    )
    edge = split.start
    for tile in tiles:
        if tile.start >= tile.end:
            return f"{_span(tile.start, tile.end)} in the split is empty or ends before it starts"
        if tile.start != edge:
            what = "overlaps what comes before" if tile.start < edge else "leaves a gap that no hole records"
            return f"{_span(tile.start, tile.end)} in the split {what} (expected start {edge.isoformat()})"
        edge = tile.end
    if edge != split.end:
        return f"the split says it ends at {split.end.isoformat()}, its last piece ends at {edge.isoformat()}"
    if tiles[-1] in split.holes:
        return "the split ends with a hole: a watermark may only pass a hole together with a partition after it"
    return None


class _Fold:
    """Mutable on the inside, so that a long ledger folds in linear time."""

    def __init__(self, state: ChainState, recall: Recall) -> None:
        self._sequence, self._digest, self._head = state.sequence, state.digest, state.head
        self._kept = {summary.id: summary for summary in state.checkpoints}
        self._holes = list(state.holes)
        self._last_pruned = list(state.last_pruned)
        self._origins = list(state.origins)
        self._recall = recall

    def state(self) -> ChainState:
        return ChainState(
            sequence=self._sequence,
            digest=self._digest,
            head=self._head,
            checkpoints=list(self._kept.values()),
            holes=self._holes,
            last_pruned=self._last_pruned,
            origins=self._origins,
        )

    def refuses(self, entry: LedgerEntry) -> str | None:
        if entry.sequence != self._sequence + 1:
            return f"it calls itself number {entry.sequence}, number {self._sequence + 1} is due"
        if entry.previous != self._digest:
            return "it does not hold the digest of the entry before it"
        match entry:
            case Checkpoint():
                return self._refuses_checkpoint(entry)
            case Prune():
                return self._refuses_prune(entry)
            case Rewind():
                return self._refuses_rewind(entry)

    def apply(self, sealed: SealedEntry) -> None:
        match sealed.entry:
            case Checkpoint() as checkpoint:
                self._add(checkpoint, sealed.digest)
            case Prune() as prune:
                self._drop(prune)
            case Rewind() as rewind:
                self._rewind(rewind)
        self._sequence, self._digest = sealed.entry.sequence, sealed.digest

    def _refuses_checkpoint(self, entry: Checkpoint) -> str | None:
        head = self._head
        if entry.parent_id != (head.id if head else None):
            return f"its parent is {entry.parent_id or 'none'}, the head is {head.id if head else 'none yet'}"
        if head and entry.split.start != head.watermark:
            return f"its split starts at {entry.split.start}, the head's watermark is {head.watermark}"
        if head and entry.origin:
            return "it has a parent and an origin in another chain"
        if entry.watermark != entry.split.end:
            return f"its watermark {entry.watermark} is not the end of its split {entry.split.end}"
        if entry.id in self._kept:
            return f"checkpoint {entry.id} is in the ledger already"
        if not entry.artifacts.files:
            return "it has no artifacts"
        return split_problem(entry.split)

    def _refuses_prune(self, entry: Prune) -> str | None:
        if not entry.checkpoint_ids:
            return "it prunes nothing"
        if len(set(entry.checkpoint_ids)) != len(entry.checkpoint_ids):
            return "it prunes a checkpoint twice"
        if self._head and self._head.id in entry.checkpoint_ids:
            return f"it prunes the head {self._head.id}"
        unknown = [name for name in entry.checkpoint_ids if name not in self._kept]
        return f"it prunes checkpoints that are not kept: {', '.join(unknown)}" if unknown else None

    def _refuses_rewind(self, entry: Rewind) -> str | None:
        if self._head is None:
            return "it rewinds a chain that has no head"
        target = entry.to_checkpoint_id
        if target is None:
            return None
        found = self._kept.get(target)
        if found is None:
            return f"it rewinds to {target}, which is not a kept checkpoint of this chain"
        if not found.on_line or target == self._head.id:
            return f"it rewinds to {target}, which is not an ancestor of the head {self._head.id}"
        return None

    def _add(self, entry: Checkpoint, digest: str) -> None:
        parent = self._kept[entry.parent_id] if entry.parent_id else None
        if parent and entry.evaluation:
            self._kept[parent.id] = msgspec.structs.replace(parent, scores=entry.evaluation)
        self._kept[entry.id] = CheckpointSummary(
            id=entry.id,
            sequence=entry.sequence,
            parent_id=entry.parent_id,
            watermark=entry.watermark,
            run_id=entry.by.run_id,
            number=parent.number + 1 if parent else 1,
            partitions=(parent.partitions if parent else 0) + len(entry.split.partitions),
            size=entry.artifacts.size,
            at=entry.at,
            digest=digest,
            on_line=True,
            metrics=entry.metrics,
            scores={},
        )
        self._holes += [LineHole(entry.sequence, hole) for hole in entry.split.holes]
        self._origins += [entry.origin] if entry.origin else []
        self._head = entry

    def _drop(self, entry: Prune) -> None:
        for name in entry.checkpoint_ids:
            del self._kept[name]
        self._last_pruned = list(entry.checkpoint_ids)

    def _rewind(self, entry: Rewind) -> None:
        target = self._kept[entry.to_checkpoint_id] if entry.to_checkpoint_id else None
        last = target.sequence if target else 0
        for name, summary in self._kept.items():
            if summary.sequence > last and summary.on_line:
                self._kept[name] = msgspec.structs.replace(summary, on_line=False)
        self._holes = [hole for hole in self._holes if hole.sequence <= last]
        self._head = self._recall(target) if target else None


def _never(summary: CheckpointSummary) -> Checkpoint:
    raise AssertionError(f"{summary.id}: asking whether an entry is legal applies nothing")


def _span(start: datetime, end: datetime) -> str:
    return f"[{start.isoformat()}, {end.isoformat()})"
