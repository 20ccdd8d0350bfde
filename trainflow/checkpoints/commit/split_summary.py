"""Summary of the split a run trained on, as its checkpoint keeps it: partitions without their files."""

from __future__ import annotations

from trainflow.checkpoints.ledger.entries import HoleRecord, SplitSummary, TrainedPartition
from trainflow.samples.splits.split import Split


def summary_of(split: Split) -> SplitSummary:
    """What the ledger records of a split. Its digest still names every file."""
    return SplitSummary(
        start=split.start,
        end=split.end,
        partitions=[
            TrainedPartition(partition.start, partition.end, partition.fingerprint, partition.rows, partition.hint)
            for partition in split.partitions
        ],
        holes=[HoleRecord(hole.start, hole.end, hole.reason) for hole in split.holes],
        rows=split.rows,
        bytes=split.bytes,
        digest=split.digest,
        columns=split.columns,
    )
