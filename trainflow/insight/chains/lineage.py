"""What the weights of a checkpoint ever learnt from, and what sets two checkpoints, or two branches, apart."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

import msgspec

from trainflow.checkpoints.audit.lineage import Comparison, Lineage, LineagePartition, lineage_of
from trainflow.checkpoints.audit.lineage import compare as difference
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.entries import Checkpoint, CheckpointRef, Fork, LedgerEntry
from trainflow.checkpoints.ledger_changes.prune import chains_of
from trainflow.workspace.names import HEAD, checkpoint_ever
from trainflow.workspace.pipelines import PipelineChain


class CheckpointLineage(msgspec.Struct, frozen=True, kw_only=True):
    """Lineage of one checkpoint, in the order of training. `began_with`: the folder it was adopted from; `rows`: of all
    partitions, None where one does not say."""

    chain: str
    id: str
    number: int
    watermark: datetime
    began_with: str | None
    rows: int | None
    partitions: list[LineagePartition]


def lineage(chain: PipelineChain, which: str) -> CheckpointLineage:
    """The lineage of a checkpoint by its number, its id, an alias or `head`, be it pruned or rewound. Raises
    InputError, LedgerCorrupt, StoreFailure."""
    ledger = chain.ledger()
    checkpoint = checkpoint_ever(ledger, which, list(ledger.entries()))
    found = lineage_of(CheckpointRef(ledger.chain, checkpoint.id), lambda key: list(chain.ledger(key).entries()))
    return CheckpointLineage(
        chain=str(ledger.chain),
        id=checkpoint.id,
        number=checkpoint.number,
        watermark=checkpoint.watermark,
        began_with=found.began_with or None,
        rows=found.rows,
        partitions=found.partitions,
    )


class ComparedCheckpoint(msgspec.Struct, frozen=True):
    """One of the two. `forked_from`: the chain it lies in, where that is what a branch without checkpoints of its own
    was forked from."""

    chain: str
    id: str
    number: int
    watermark: datetime
    partitions: int
    forked_from: str | None


class ComparedCheckpoints(Comparison, frozen=True, kw_only=True):
    """Both side by side."""

    a: ComparedCheckpoint
    b: ComparedCheckpoint


def compare(chain: PipelineChain, a: str, b: str) -> ComparedCheckpoints:
    """Compare two sides, each a branch (its head), a checkpoint's number, id or @ALIAS, or BRANCH@NUMBER.

    Raises InputError, LedgerCorrupt, StoreFailure.
    """
    entries_of = _Entries(chain)
    one, other = _side(chain, a, entries_of), _side(chain, b, entries_of)
    found = difference(one.line, other.line, one.lineage, other.lineage)
    return ComparedCheckpoints(a=_described(one), b=_described(other), **msgspec.structs.asdict(found))


class _Side(NamedTuple):
    """A checkpoint, the `line` that leads to it, and what its weights learnt from."""

    chain: ChainKey
    checkpoint: Checkpoint
    line: list[Checkpoint]
    lineage: Lineage
    forked_from: ChainKey | None = None


class _Entries:
    """The entries of chains, read once each."""

    def __init__(self, chain: PipelineChain) -> None:
        self._chain = chain
        self._read: dict[ChainKey, list[LedgerEntry]] = {}

    def __call__(self, key: ChainKey) -> list[LedgerEntry]:
        if key not in self._read:
            self._read[key] = list(self._chain.ledger(key).entries())
        return self._read[key]


def _side(chain: PipelineChain, which: str, entries_of: _Entries) -> _Side:
    own = chain.key
    store = chain.ledger().store
    branches = {key.branch for key in chains_of(store, own.pipeline) if key.stage == own.stage}
    branch, at, number = which.partition("@")
    if which in branches:
        branch, number = which, HEAD
    elif not at or not branch:
        branch, number = own.branch, which
    key = ChainKey(own.pipeline, own.stage, branch)
    start = chain.ledger(key).state().start if number == HEAD else None
    if isinstance(start, Fork) and chain.ledger(key).state().head is None:
        there = start.origin.chain
        origin = checkpoint_ever(chain.ledger(there), start.origin.checkpoint_id, entries_of(there))
        return _Side(key, origin, [], lineage_of(start.origin, entries_of), there)
    checkpoint = checkpoint_ever(chain.ledger(key), number, entries_of(key))
    learnt = lineage_of(CheckpointRef(key, checkpoint.id), entries_of)
    return _Side(key, checkpoint, _line(checkpoint, entries_of(key)), learnt)


def _line(checkpoint: Checkpoint, entries: list[LedgerEntry]) -> list[Checkpoint]:
    by_id = {entry.id: entry for entry in entries if isinstance(entry, Checkpoint)}
    line: list[Checkpoint] = []
    place: Checkpoint | None = checkpoint
    while place is not None:
        line.append(place)
        place = by_id.get(place.parent_id or "")
    return line


def _described(side: _Side) -> ComparedCheckpoint:
    return ComparedCheckpoint(
        str(side.chain),
        side.checkpoint.id,
        side.checkpoint.number,
        side.checkpoint.watermark,
        len(side.lineage.partitions),
        str(side.forked_from) if side.forked_from else None,
    )
