"""What stops a chain at its samples - a gap that policy does not allow, a partition that a check refuses or that cannot
be read - and stepping over it by a person's decision. Asks the rule that the runs ask; nothing of it is in the ledger
until it is decided."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import msgspec

from trainflow.checkpoints.actions.skip import skip
from trainflow.checkpoints.ledger.entries import Author, Skip
from trainflow.checkpoints.ledger.ledger import Ledger
from trainflow.errors import SampleCheckFailed, SampleDamaged, SampleGap, SampleUnreadable
from trainflow.insight.chains.next_run import NextRun, next_run_of
from trainflow.samples.inventory import open_inventory
from trainflow.samples.next_split import TableView, decide
from trainflow.samples.partitions import after_watermark, end_of
from trainflow.samples.spec import Samples, SplitLimits
from trainflow.serialization.document import ChainDocument

#: so many problems of a partition are told
_SHOWN = 3


class SampleStop(msgspec.Struct, frozen=True):
    """The next run cannot train on [start, end), which comes first or after what policy steps over anyway."""

    #: where the chain ends, with the skips after its head
    edge: datetime
    start: datetime
    end: datetime
    #: it is there, and a check refuses it or it cannot be read; otherwise it is missing
    refused: bool
    #: what is wrong with it: a clause for people
    problem: str


def sample_stop(chain: ChainDocument, ledger: Ledger, samples: Samples, root: Path, now: datetime) -> SampleStop | None:
    """What stops the chain; None: its next run finds samples to train on, or waits, or is caught up.

    Raises SampleUnreadable, InputError, LedgerCorrupt, StoreFailure.
    """
    ahead = next_run_of(chain, ledger)
    if ahead.waits is not None or ahead.goes_back:
        return None
    seen, limits = open_inventory(samples, root, now), chain.limits or SplitLimits()
    first = _problem(samples, ahead.begins, limits, seen, ahead)
    if first is None:
        return None
    assert first.partition is not None
    end = end_of(samples, first.partition)
    if isinstance(first, SampleGap):
        # neighbours that are missing are one gap
        while isinstance(more := _problem(samples, end, limits, seen, ahead), SampleGap) and more.partition == end:
            end = end_of(samples, end)
    edge = ahead.begins or after_watermark(samples, None)
    if isinstance(first, SampleGap):
        return SampleStop(edge, first.partition, end, False, "missing")
    if isinstance(first, SampleUnreadable):
        problem = first.problem if isinstance(first, SampleDamaged) else str(first)
        return SampleStop(edge, first.partition, end, True, f"not readable: {problem}")
    return SampleStop(edge, first.partition, end, True, f"not good: {'; '.join(first.problems[:_SHOWN])}")


def step_over(
    ledger: Ledger, stop: SampleStop, *, expected_head: str | None, by: Author, now: datetime, reason: str = ""
) -> Skip | None:
    """Leave it out, and record who said so. None: it was left out before. Raises ChainMoved."""
    why = reason or stop.problem
    return skip(ledger, stop.edge, stop.end, expected_head=expected_head, by=by, now=now, reason=why)


def _problem(
    samples: Samples, edge: datetime | None, limits: SplitLimits, seen: TableView, ahead: NextRun
) -> SampleGap | SampleCheckFailed | SampleUnreadable | None:
    try:
        decide(samples, edge, limits, seen, ahead.bounds, ahead.columns)
    except (SampleGap, SampleCheckFailed) as error:
        return error
    except SampleUnreadable as error:
        if error.partition is None:  # the storage as a whole is out of reach
            raise
        return error
    return None
