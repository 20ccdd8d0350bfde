"""Where a chain stands, and how much is ready beyond its head. Reads the ledger and the samples, nothing else."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import msgspec

from trainflow.checkpoints.ledger import Ledger
from trainflow.errors import TrainflowError
from trainflow.samples.inventory import open_inventory
from trainflow.samples.partitions import after_watermark, length_of
from trainflow.samples.readiness import Presence
from trainflow.samples.spec import Samples

#: so many partitions beyond the head are looked at; more are "at least so many"
MOST = 1000


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A chain now. `problem`: why the ledger or the samples could not be read."""

    #: 0: nothing is committed yet
    head_sequence: int = 0
    head_id: str | None = None
    watermark: datetime | None = None
    #: partitions that are ready and not trained; None: not known
    lag: int | None = None
    #: there are at least `lag`
    lag_is_more: bool = False
    problem: str | None = None


def standing(ledger: Ledger, samples: Samples | None, root: Path, now: datetime) -> Standing:
    """Where the chain stands. Never raises for what is wrong with the store or the samples: `problem` says it."""
    try:
        state = ledger.state()
    except TrainflowError as error:
        return Standing(problem=str(error))
    known = Standing(
        head_sequence=state.head_sequence, head_id=state.head.id if state.head else None, watermark=state.watermark
    )
    if samples is None:
        return known
    try:
        ready, more = ready_beyond(samples, state.watermark, root, now)
    except TrainflowError as error:
        return msgspec.structs.replace(known, problem=str(error))
    return msgspec.structs.replace(known, lag=ready, lag_is_more=more)


def ready_beyond(
    samples: Samples, watermark: datetime | None, root: Path, now: datetime, most: int = MOST
) -> tuple[int, bool]:
    """How many partitions after the watermark are ready, and whether looking ended before the last one."""
    inventory = open_inventory(samples, root, now)
    first = after_watermark(samples, watermark)
    starts: list[datetime] = []
    more = False
    for start in inventory.later(first - length_of(samples)):
        more = len(starts) == most
        if more:
            break
        if start >= first:
            starts.append(start)
    return sum(state.presence is Presence.READY for state in inventory.states(starts)), more
