"""Every partition that the weights of a checkpoint ever learnt from."""

from __future__ import annotations

from datetime import datetime

import msgspec

from trainflow.checkpoints.audit.lineage import LineageStep, lineage_of
from trainflow.checkpoints.ledger.entries import CheckpointRef
from trainflow.workspace.names import checkpoint_ever
from trainflow.workspace.pipelines import PipelineChain


class LineagePartition(msgspec.Struct, frozen=True):
    """One partition, and the checkpoint whose training it was part of, committed `at`. `filled`: it had been a hole."""

    start: datetime
    end: datetime
    fingerprint: str
    rows: int | None
    chain: str
    checkpoint_id: str
    sequence: int
    run_id: str
    at: datetime
    filled: bool


class CheckpointLineage(msgspec.Struct, frozen=True, kw_only=True):
    """Lineage of one checkpoint, in the order of training. `began_with`: the folder it was adopted from; `rows`: of all
    partitions, None where one does not say."""

    chain: str
    id: str
    sequence: int
    watermark: datetime
    began_with: str | None
    rows: int | None
    partitions: list[LineagePartition]


def lineage(chain: PipelineChain, which: str) -> CheckpointLineage:
    """The lineage of a checkpoint by its number, its id or `head`, be it pruned or rewound. Raises InputError,
    LedgerCorrupt, StoreFailure."""
    ledger = chain.ledger()
    checkpoint = checkpoint_ever(ledger, which, list(ledger.entries()))
    found = lineage_of(CheckpointRef(ledger.chain, checkpoint.id), lambda key: list(chain.ledger(key).entries()))
    return CheckpointLineage(
        chain=str(ledger.chain),
        id=checkpoint.id,
        sequence=checkpoint.sequence,
        watermark=checkpoint.watermark,
        began_with=found.began_with or None,
        rows=found.rows,
        partitions=[partition_of(step) for step in found.steps],
    )


def partition_of(step: LineageStep) -> LineagePartition:
    """A partition as programs read it."""
    return LineagePartition(
        step.start,
        step.end,
        step.fingerprint,
        step.rows,
        str(step.chain),
        step.checkpoint_id,
        step.sequence,
        step.run_id,
        step.at,
        step.filled,
    )
