"""The lineage of a checkpoint: every partition its weights ever learnt from, in the order they did, and by which run.

Follows the weights: through parents, and where a checkpoint's weights came from another chain (an earlier stage, the
chain it was forked from) through that one. What an adopted chain learnt before is not known.

`compare` lays two checkpoints, of a chain or of two branches, side by side: their scores over the watermark, and their
lineages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import takewhile
from typing import Literal

import msgspec

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.entries import Adoption, Checkpoint, CheckpointRef, HoleFilled, LedgerEntry
from trainflow.errors import CheckpointNotFound

#: the entries of a chain; none where it has no ledger
EntriesOf = Callable[[ChainKey], list[LedgerEntry]]


class LineagePartition(msgspec.Struct, frozen=True):
    """One partition, and the checkpoint whose training it was part of."""

    start: datetime
    #: exclusive
    end: datetime
    fingerprint: str
    rows: int | None
    #: pipeline/stage/branch
    chain: str
    checkpoint_id: str
    number: int
    run_id: str
    #: when the checkpoint was committed
    at: datetime
    #: it had been a hole
    filled: bool = False


class Lineage(msgspec.Struct, frozen=True):
    """All of it, oldest first. `began_with`: the foreign folder the weights began with; empty: with nothing."""

    of: CheckpointRef
    partitions: list[LineagePartition]
    began_with: str = ""

    @property
    def rows(self) -> int | None:
        """Rows of all partitions; None when one does not say."""
        counts = [each.rows for each in self.partitions]
        return None if None in counts else sum(count for count in counts if count is not None)


def lineage_of(of: CheckpointRef, entries_of: EntriesOf) -> Lineage:
    """The lineage of a checkpoint. Raises CheckpointNotFound for one that no ledger knows, or that it began with."""
    ledgers = _Ledgers(entries_of)
    lineage: list[tuple[ChainKey, Checkpoint]] = []
    place: CheckpointRef | None = of
    began_with = ""
    while place is not None:
        entry = ledgers.find(place)
        lineage.append((place.chain, entry))
        chain = place.chain
        place = entry.origin or (CheckpointRef(chain, entry.parent_id) if entry.parent_id else None)
        if place is None:
            began_with = ledgers.adopted(chain)
        elif len(lineage) > ledgers.size:
            raise CheckpointNotFound(f"{of.checkpoint_id} of {of.chain} comes from itself: a ledger was forged")
    partitions = [each for chain, entry in reversed(lineage) for each in _partitions(chain, entry)]
    return Lineage(of, partitions, began_with)


def _partitions(chain: ChainKey, entry: Checkpoint) -> list[LineagePartition]:
    return [
        LineagePartition(
            start=each.start,
            end=each.end,
            fingerprint=each.fingerprint,
            rows=each.rows,
            chain=str(chain),
            checkpoint_id=entry.id,
            number=entry.number,
            run_id=entry.by.run_id,
            at=entry.at,
            filled=isinstance(entry, HoleFilled),
        )
        for each in entry.split.partitions
    ]


class _Ledgers:
    """The checkpoints of the chains that were met on the way, read once each."""

    def __init__(self, entries_of: EntriesOf) -> None:
        self._entries_of = entries_of
        self._checkpoints: dict[ChainKey, Mapping[str, Checkpoint]] = {}
        self._adopted: dict[ChainKey, str] = {}

    @property
    def size(self) -> int:
        return sum(len(found) for found in self._checkpoints.values())

    def find(self, place: CheckpointRef) -> Checkpoint:
        self._read(place.chain)
        found = self._checkpoints[place.chain].get(place.checkpoint_id)
        if found is None:
            raise CheckpointNotFound(f"the ledger of chain {place.chain} has no checkpoint {place.checkpoint_id}")
        return found

    def adopted(self, chain: ChainKey) -> str:
        self._read(chain)
        return self._adopted.get(chain, "")

    def _read(self, chain: ChainKey) -> None:
        if chain in self._checkpoints:
            return
        entries = self._entries_of(chain)
        self._checkpoints[chain] = {entry.id: entry for entry in entries if isinstance(entry, Checkpoint)}
        for entry in entries[:1]:
            if isinstance(entry, Adoption):
                self._adopted[chain] = entry.uri


class ComparedScore(msgspec.Struct, frozen=True):
    """What both were measured at one watermark; None: that line has no checkpoint there, or it was not scored."""

    watermark: datetime
    a: dict[str, float] | None
    b: dict[str, float] | None


class ChangedPartition(msgspec.Struct, frozen=True):
    """One partition that both were trained on, with another content."""

    a: LineagePartition
    b: LineagePartition


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """What sets two checkpoints apart. `common` counts partitions with the same content; `parted_at` is the end of what
    both learnt from the same checkpoints (None: nothing).

    `measured` says what the scores are, the same for both and for all of them: by `evaluation`, each line's checkpoint
    before, on the samples that end at the watermark and that it had not seen; or, where nothing ever was evaluated, by
    `training`: the trainer's own metrics.
    """

    scores: list[ComparedScore]
    measured: Literal["evaluation", "training"]
    only_a: list[LineagePartition]
    only_b: list[LineagePartition]
    changed: list[ChangedPartition]
    common: int
    parted_at: datetime | None


def compare(line_a: Iterable[Checkpoint], line_b: Iterable[Checkpoint], a: Lineage, b: Lineage) -> Comparison:
    """Compare; the lines are those that lead to the two checkpoints, in any order."""
    first, second = list(line_a), list(line_b)
    measured: Literal["evaluation", "training"] = (
        "evaluation" if any(entry.evaluation for entry in (*first, *second)) else "training"
    )
    scores_a, scores_b = _scores(first, measured), _scores(second, measured)
    partitions_a, partitions_b = _by_time(a.partitions), _by_time(b.partitions)
    both = [(partitions_a[time], partitions_b[time]) for time in sorted(partitions_a.keys() & partitions_b.keys())]
    return Comparison(
        scores=[
            ComparedScore(watermark, scores_a.get(watermark), scores_b.get(watermark))
            for watermark in sorted(scores_a.keys() | scores_b.keys())
        ],
        measured=measured,
        only_a=[partitions_a[time] for time in sorted(partitions_a.keys() - partitions_b.keys())],
        only_b=[partitions_b[time] for time in sorted(partitions_b.keys() - partitions_a.keys())],
        changed=[ChangedPartition(one, other) for one, other in both if one.fingerprint != other.fingerprint],
        common=sum(one.fingerprint == other.fingerprint for one, other in both),
        parted_at=_parted_at(a, b),
    )


def _parted_at(a: Lineage, b: Lineage) -> datetime | None:
    same = list(takewhile(lambda pair: pair[0] == pair[1], zip(a.partitions, b.partitions, strict=False)))
    return same[-1][0].end if same else None


def _scores(line: Iterable[Checkpoint], measured: str) -> dict[datetime, dict[str, float]]:
    """A filled hole says nothing about its watermark, which was there before; an evaluation that was skipped, nothing
    at all."""
    found = {
        entry.watermark: dict(entry.evaluation if measured == "evaluation" else entry.metrics)
        for entry in line
        if not isinstance(entry, HoleFilled)
    }
    return {watermark: metrics for watermark, metrics in found.items() if metrics}


def _by_time(partitions: Sequence[LineagePartition]) -> dict[tuple[datetime, datetime], LineagePartition]:
    """A partition that was eaten in two chains counts as the later one was."""
    return {(each.start, each.end): each for each in partitions}
