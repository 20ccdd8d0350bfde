"""What the next run of a chain finds: where it begins, how far it may go, whether its upstream lets it go, and what of
its samples stops it: a gap that policy does not allow, a partition that a check refuses or that cannot be read.

The rule is that of the runs themselves, asked of ledger and samples, so it holds where no database is left.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from trainflow.checkpoints.ledger.entries import Author, Skip
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger.state import ChainState
from trainflow.checkpoints.ledger_changes.import_external import find
from trainflow.checkpoints.ledger_changes.import_spec import Adopt
from trainflow.checkpoints.ledger_changes.rewind import skip
from trainflow.checkpoints.stages.init_from import InitFrom
from trainflow.checkpoints.stages.start_checkpoint import (
    StartFromOwn,
    StartRefused,
    WaitForUpstream,
    choose_for,
    read_upstream_chain,
)
from trainflow.checkpoints.stages.upstream_rewinds import state_after_rewind
from trainflow.errors import CheckpointNotFound, SampleCheckFailed, SampleDamaged, SampleGap, SampleUnreadable
from trainflow.samples.partitions import after_watermark, end_of
from trainflow.samples.spec import Samples, SplitLimits
from trainflow.samples.splits.gap_policy import TableView
from trainflow.samples.splits.next_split import decide
from trainflow.samples.table.inventory import open_inventory
from trainflow.serialization.document import ChainDocument


class NextRun(msgspec.Struct, frozen=True):
    """`watermark`: where the next split begins (None: with the first partition). `bounds`: see
    `trainflow.samples.splits.next_split`. `waits`: why there is nothing to start from. `pin`: the newest checkpoint of
    the upstream, as a run's conf names it."""

    watermark: datetime | None
    #: the end of what was skipped after the head; None: nothing was
    edge: datetime | None = None
    bounds: tuple[datetime, ...] = ()
    waits: str | None = None
    pin: dict[str, Any] | None = None
    #: a stage that starts from its upstream once has a checkpoint of its own
    begun: bool = False
    #: the run that committed that checkpoint
    pinned_run: str | None = None
    #: the chain stands on what its upstream has undone: before anything else it goes back
    goes_back: bool = False
    #: of the split that the chain was trained on last, see `trainflow.samples.splits.split`
    columns: tuple[tuple[str, str], ...] = ()

    @property
    def begins(self) -> datetime | None:
        """Where the next run begins to look for samples."""
        return self.edge if self.edge is not None else self.watermark


def adopting(ahead: NextRun, adopt: Adopt, root: Path, now: datetime) -> NextRun:
    """The same for a chain that has not begun, and begins with what it adopts. Raises SampleUnreadable."""
    try:
        return msgspec.structs.replace(ahead, watermark=find(adopt, root, now).watermark)
    except CheckpointNotFound as error:
        return msgspec.structs.replace(ahead, waits=str(error))


def next_run_of(chain: ChainDocument, ledger: Ledger) -> NextRun:
    """What the next run of the chain finds. Raises LedgerCorrupt, StoreFailure, InputError for a watermark that is
    inside a partition."""
    state, init = state_after_rewind(ledger), chain.init_from
    found = _next_run(chain, ledger, state, init)
    return msgspec.structs.replace(
        found,
        goes_back=state.generation > ledger.state().generation,
        columns=state.head.split.columns if state.head else (),
    )


def _next_run(chain: ChainDocument, ledger: Ledger, state: ChainState, init: InitFrom | None) -> NextRun:
    skipped_to = state.skips[-1].end if state.skips else None
    if init is None or (init.once and (state.head or state.start)):
        return NextRun(state.watermark, skipped_to, begun=True)
    upstream = read_upstream_chain(Ledger(ledger.store, init.chain), state.watermark, through=init.through)
    choice = choose_for(init, upstream, state.watermark, state.edge, chain.samples)
    if isinstance(choice, WaitForUpstream | StartRefused):
        return NextRun(state.watermark, skipped_to, waits=choice.reason)
    if isinstance(choice, StartFromOwn):
        return NextRun(state.watermark, skipped_to)
    forked = state.watermark is None and init.chain.is_same_stage(ledger.chain)
    found = upstream.find(choice.last.id)
    return NextRun(
        watermark=choice.candidates[-1].watermark if forked else state.watermark,
        edge=skipped_to,
        bounds=tuple(each.watermark for each in choice.candidates) if choice.bounded else (),
        pin={**msgspec.to_builtins(init.chain), "id": choice.last.id, "number": choice.last.number},
        pinned_run=found.run_id if found else None,
    )


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
