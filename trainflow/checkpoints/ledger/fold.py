"""The state of a chain: a pure fold over its ledger.

What may follow what is in `rules`; what an entry changes is here, and which aliases a rewind gives back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from trainflow.checkpoints.ledger.entries import (
    Adoption,
    Checkpoint,
    Fork,
    HoleFilled,
    HoleRecord,
    LedgerEntry,
    Loss,
    Promotion,
    Prune,
    Regrid,
    Resume,
    Rewind,
    Skip,
    SplitSummary,
    Stop,
)
from trainflow.checkpoints.ledger.rules import refuses
from trainflow.checkpoints.ledger.state import (
    ChainState,
    CheckpointSummary,
    KeptCheckpoints,
    LineFill,
    LineHole,
    PageSource,
    Stretch,
    last_number,
    numbered,
)
from trainflow.errors import LedgerCorrupt


class SealedEntry(msgspec.Struct, frozen=True):
    """An entry with the digest of its bytes and where it lies."""

    entry: LedgerEntry
    digest: str
    location: str


def fold(state: ChainState, entries: Iterable[SealedEntry], page_source: PageSource) -> ChainState:
    """The state after `entries`. Raises LedgerCorrupt at the first one that breaks a rule."""
    work = _Fold(state, page_source)
    for sealed in entries:
        problem = refuses(work.state, work.kept, sealed.entry)
        if problem:
            raise LedgerCorrupt(
                f"ledger entry {sealed.location}: {problem}. The ledger was edited or entries were lost; restore it "
                "from a backup or another copy of the store, then run 'trainflow audit PIPELINE'",
                location=sealed.location,
            )
        work.apply(sealed)
    return work.result()


class _Fold:
    """What a chain has kept can be changed in place on the inside, so that a long ledger folds in linear time."""

    def __init__(self, state: ChainState, page_source: PageSource) -> None:
        self.state = state
        self.kept = KeptCheckpoints(state, page_source)
        self._page_source = page_source

    def result(self) -> ChainState:
        return msgspec.structs.replace(self.state, **self.kept.fields())

    def apply(self, sealed: SealedEntry) -> None:
        changes = self._changes(sealed)
        self.state = msgspec.structs.replace(
            self.state,
            sequence=sealed.entry.sequence,
            digest=sealed.digest,
            last_number=last_number(self.state.last_number, sealed.entry),
            **changes,
        )
        self.kept.settle()

    def _changes(self, sealed: SealedEntry) -> dict[str, object]:
        match sealed.entry:
            case HoleFilled() as fill:
                return self._fill(fill, sealed.digest)
            case Checkpoint() as checkpoint:
                return self._advance(checkpoint, sealed.digest)
            case Skip() as skip:
                return self._skip(skip)
            case Stop() as stop:
                return {"stopped": stop}
            case Regrid() as regrid:
                return self._regrid(regrid)
            case Resume():
                return {"stopped": None, "gate_rewinds": []}
            case Promotion() as promotion:
                return self._promote(promotion)
            case Prune() as prune:
                return self._drop(prune)
            case Rewind() as rewind:
                return self._rewind(rewind)
            case Loss() as loss:
                lost = [*self.state.lost, *loss.checkpoint_ids]
                return {"lost": lost, "generation": self.state.generation + loss.rewinds}
            case Fork() | Adoption() as start:
                return {"start": start}

    def _advance(self, entry: Checkpoint, digest: str) -> dict[str, object]:
        changes = self._add(entry, digest)
        if entry.split.holes:
            holes = [LineHole(entry.sequence, hole) for hole in entry.split.holes]
            changes["recorded"] = [*self.state.recorded, *holes]
        if self.state.skips:
            changes["skips"] = []
        if entry.parent_id is None:
            changes["root"] = entry.split.start
        if entry.origin and entry.parent_id is None:
            changes["origins"] = [*self.state.origins, entry.origin]
        return changes

    def _skip(self, entry: Skip) -> dict[str, object]:
        left_out = [LineFill(entry.sequence, entry.start, entry.end)] if entry.on_purpose else []
        return {
            "skips": [*self.state.skips, HoleRecord(entry.start, entry.end, entry.reason)],
            "left_out": [*self.state.left_out, *left_out],
            "stopped": None,
        }

    def _regrid(self, entry: Regrid) -> dict[str, object]:
        holes = [LineHole(entry.sequence, hole) for hole in entry.holes]
        return {"regrid": entry, "recorded": [*self.state.recorded, *holes]}

    def _fill(self, entry: HoleFilled, digest: str) -> dict[str, object]:
        fills = [LineFill(entry.sequence, start, end) for start, end in trained_stretches(entry.split)]
        return self._add(entry, digest) | {"fills": [*self.state.fills, *fills]}

    def _add(self, entry: Checkpoint, digest: str) -> dict[str, object]:
        entry = numbered(entry, self.state.last_number)
        parent = self.kept.get(entry.parent_id) if entry.parent_id else None
        if parent and entry.evaluation:
            self.kept.change(msgspec.structs.replace(parent, scores=entry.evaluation))
        self.kept.change(
            CheckpointSummary(
                id=entry.id,
                sequence=entry.sequence,
                parent_id=entry.parent_id,
                watermark=entry.watermark,
                run_id=entry.by.run_id,
                number=entry.number,
                place=parent.place + 1 if parent else 1,
                partitions=(parent.partitions if parent else 0) + len(entry.split.partitions),
                size=entry.artifacts.size,
                at=entry.at,
                digest=digest,
                on_line=True,
                metrics=entry.metrics,
                scores={},
                owners=(owners := entry.artifacts.owners),
            )
        )
        return {"head": entry, "stopped": None, "regrid": None, **self._share(owners, 1)}

    def _drop(self, entry: Prune) -> dict[str, object]:
        owners: list[str] = []
        for name in entry.checkpoint_ids:
            owners += self.kept.drop(name).owners
        return {"last_pruned": list(entry.checkpoint_ids), **self._share(owners, -1)}

    def _share(self, owners: Iterable[str], change: int) -> dict[str, object]:
        shared = dict(self.state.shared)
        for owner in owners:
            shared[owner] = shared.get(owner, 0) + change
        return {"shared": {owner: count for owner, count in shared.items() if count}} if owners else {}

    def _rewind(self, entry: Rewind) -> dict[str, object]:
        target = self.kept.get(entry.to_checkpoint_id) if entry.to_checkpoint_id else None
        last = target.sequence if target else 0
        self.kept.leave_behind(last)
        return {
            "head": self._page_source.checkpoint(target) if target else None,
            "recorded": [hole for hole in self.state.recorded if hole.sequence <= last],
            "fills": [fill for fill in self.state.fills if fill.sequence <= last],
            "left_out": [each for each in self.state.left_out if each.sequence <= last],
            "skips": [],
            "regrid": None,
            "root": self.state.root if target else None,
            "stopped": None,
            "gate_rewinds": self._gate_rewinds(entry, target),
            **self._demote(entry),
            "generation": self.state.generation + 1,
        }

    def _promote(self, entry: Promotion) -> dict[str, object]:
        demoted = {alias: names for alias, names in self.state.demoted.items() if alias != entry.alias}
        return {"promoted": {**self.state.promoted, entry.alias: entry.checkpoint_id}, "demoted": demoted}

    def _demote(self, entry: Rewind) -> dict[str, object]:
        stays = {alias: name for alias, name in self.state.promoted.items() if self._on_line(name)}
        demoted = dict(self.state.demoted)
        for alias, name in self.state.promoted.items():
            if alias not in stays:
                demoted[alias] = [*demoted.get(alias, ()), name]
        return {"promoted": {**stays, **entry.promoted}, "demoted": demoted}

    def _on_line(self, checkpoint_id: str) -> bool:
        # what is in a page after a rewind came before its target
        found = self.kept.recently(checkpoint_id)
        return found is None or found.on_line

    def _gate_rewinds(self, entry: Rewind, target: CheckpointSummary | None) -> list[HoleRecord]:
        if entry.refused and entry.cause == "gate":
            refused = entry.refused
            return [*self.state.gate_rewinds, HoleRecord(refused.start, refused.end, "; ".join(refused.reasons))]
        # after a rewind that a person decided, all of it is trained anew
        return [each for each in self.state.gate_rewinds if target and each.end <= target.watermark]


def restored_aliases(
    state: ChainState,
    line: Sequence[CheckpointSummary],
    to_checkpoint_id: str | None,
    entries: Callable[[], Iterable[LedgerEntry]],
) -> dict[str, str]:
    """Aliases whose checkpoint a rewind to there leaves behind, and who has each again: the one that was promoted to it
    before, of those that stay and have files. An alias that no checkpoint has again is not among them.

    `line`: the checkpoints from the root to the head. `entries` is called only where an alias is lost at all.
    """
    last = next((each.sequence for each in line if each.id == to_checkpoint_id), 0)
    staying = {each.id for each in line if each.sequence <= last}
    lost = {alias for alias, name in state.promoted.items() if name not in staying}
    if not lost or not staying:
        return {}
    promotions = [entry for entry in entries() if isinstance(entry, Promotion)]
    return {
        each.alias: each.checkpoint_id for each in promotions if each.alias in lost and each.checkpoint_id in staying
    }


def trained_stretches(split: SplitSummary) -> list[Stretch]:
    """The partitions of a split, neighbours made one."""
    found: list[Stretch] = []
    for each in sorted(split.partitions, key=lambda partition: partition.start):
        if found and found[-1][1] == each.start:
            found[-1] = (found[-1][0], each.end)
        else:
            found.append((each.start, each.end))
    return found
