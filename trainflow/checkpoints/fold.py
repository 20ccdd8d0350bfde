"""The state of a chain: a pure fold over its ledger.

What may follow what is in `rules`; what an entry changes is here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from trainflow.checkpoints.entries import (
    Adoption,
    Checkpoint,
    Fork,
    HoleFilled,
    HoleRecord,
    LedgerEntry,
    Promotion,
    Prune,
    Rewind,
    Skip,
)
from trainflow.checkpoints.rules import refuses
from trainflow.checkpoints.state import ChainState, CheckpointSummary, LineFill, LineHole
from trainflow.checkpoints.tiling import trained_stretches
from trainflow.errors import LedgerCorrupt


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
        problem = refuses(work.state, work.kept, sealed.entry)
        if problem:
            raise LedgerCorrupt(
                f"ledger entry {sealed.location}: {problem}. The ledger was edited or entries were lost; restore it "
                "from a backup or another copy of the store, then run 'trainflow audit'",
                location=sealed.location,
            )
        work.apply(sealed)
    return work.result()


def refusal(state: ChainState, entry: LedgerEntry) -> str | None:
    """Why `entry` may not follow `state`; None when it may."""
    return refuses(state, {summary.id: summary for summary in state.checkpoints}, entry)


class _Fold:
    """What a chain has kept is a dictionary on the inside, so that a long ledger folds in linear time."""

    def __init__(self, state: ChainState, recall: Recall) -> None:
        self.state = state
        self.kept = {summary.id: summary for summary in state.checkpoints}
        self._recall = recall

    def result(self) -> ChainState:
        return msgspec.structs.replace(self.state, checkpoints=list(self.kept.values()))

    def apply(self, sealed: SealedEntry) -> None:
        changes = self._changes(sealed)
        self.state = msgspec.structs.replace(
            self.state, sequence=sealed.entry.sequence, digest=sealed.digest, **changes
        )

    def _changes(self, sealed: SealedEntry) -> dict[str, object]:
        match sealed.entry:
            case HoleFilled() as fill:
                return self._fill(fill, sealed.digest)
            case Checkpoint() as checkpoint:
                return self._advance(checkpoint, sealed.digest)
            case Skip() as skip:
                return {"skips": [*self.state.skips, HoleRecord(skip.start, skip.end, skip.reason)]}
            case Promotion() as promotion:
                return {"promoted": {**self.state.promoted, promotion.alias: promotion.checkpoint_id}}
            case Prune() as prune:
                return self._drop(prune)
            case Rewind() as rewind:
                return self._rewind(rewind)
            case Fork() | Adoption() as start:
                return {"start": start}

    def _advance(self, entry: Checkpoint, digest: str) -> dict[str, object]:
        changes = self._add(entry, digest)
        if entry.split.holes:
            holes = [LineHole(entry.sequence, hole) for hole in entry.split.holes]
            changes["recorded"] = [*self.state.recorded, *holes]
        if self.state.skips:
            changes["skips"] = []
        if entry.origin and entry.parent_id is None:
            changes["origins"] = [*self.state.origins, entry.origin]
        return changes

    def _fill(self, entry: HoleFilled, digest: str) -> dict[str, object]:
        fills = [LineFill(entry.sequence, start, end) for start, end in trained_stretches(entry.split)]
        return self._add(entry, digest) | {"fills": [*self.state.fills, *fills]}

    def _add(self, entry: Checkpoint, digest: str) -> dict[str, object]:
        parent = self.kept[entry.parent_id] if entry.parent_id else None
        if parent and entry.evaluation:
            self.kept[parent.id] = msgspec.structs.replace(parent, scores=entry.evaluation)
        self.kept[entry.id] = CheckpointSummary(
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
        return {"head": entry}

    def _drop(self, entry: Prune) -> dict[str, object]:
        for name in entry.checkpoint_ids:
            del self.kept[name]
        return {"last_pruned": list(entry.checkpoint_ids)}

    def _rewind(self, entry: Rewind) -> dict[str, object]:
        target = self.kept[entry.to_checkpoint_id] if entry.to_checkpoint_id else None
        last = target.sequence if target else 0
        for name, summary in self.kept.items():
            if summary.sequence > last and summary.on_line:
                self.kept[name] = msgspec.structs.replace(summary, on_line=False)
        return {
            "head": self._recall(target) if target else None,
            "recorded": [hole for hole in self.state.recorded if hole.sequence <= last],
            "fills": [fill for fill in self.state.fills if fill.sequence <= last],
            "skips": [],
            "promoted": {alias: name for alias, name in self.state.promoted.items() if self.kept[name].on_line},
            "generation": self.state.generation + 1,
        }
