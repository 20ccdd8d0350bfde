"""The lineage of a checkpoint: every partition its weights ever learnt from, in the order they did, and by which run.

Follows the weights: through parents, and where a checkpoint's weights came from another chain (an earlier stage, the
chain it was forked from) through that one. What an adopted chain learnt before is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

import msgspec

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.entries import Adoption, Checkpoint, CheckpointRef, HoleFilled, LedgerEntry
from trainflow.errors import CheckpointNotFound

#: the entries of a chain; none where it has no ledger
EntriesOf = Callable[[ChainKey], list[LedgerEntry]]


class LineageStep(msgspec.Struct, frozen=True):
    """One partition, and the checkpoint whose training it was part of."""

    start: datetime
    #: exclusive
    end: datetime
    fingerprint: str
    rows: int | None
    chain: ChainKey
    checkpoint_id: str
    sequence: int
    run_id: str
    #: when the checkpoint was committed
    at: datetime
    #: it had been a hole
    filled: bool = False


class Lineage(msgspec.Struct, frozen=True):
    """All of it, oldest first. `began_with`: the foreign folder the weights began with; empty: with nothing."""

    of: CheckpointRef
    steps: list[LineageStep]
    began_with: str = ""

    @property
    def rows(self) -> int | None:
        """Rows of all partitions; None when one does not say."""
        counts = [step.rows for step in self.steps]
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
    steps = [step for chain, entry in reversed(lineage) for step in _partitions(chain, entry)]
    return Lineage(of, steps, began_with)


def _partitions(chain: ChainKey, entry: Checkpoint) -> list[LineageStep]:
    return [
        LineageStep(
            start=each.start,
            end=each.end,
            fingerprint=each.fingerprint,
            rows=each.rows,
            chain=chain,
            checkpoint_id=entry.id,
            sequence=entry.sequence,
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
