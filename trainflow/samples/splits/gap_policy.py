"""What a partition that is not ready means (`samples.gaps`): wait, step over it, fail, or nothing is left. Pure.

`TableView` is what is known of a table when that is asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Protocol

import msgspec

from trainflow.errors import SampleGap
from trainflow.samples.partitions import end_of, label, origin
from trainflow.samples.spec import Samples
from trainflow.samples.splits.split import ColumnUnifier
from trainflow.samples.splits.split_content import Columns, Hole, SplitPartition
from trainflow.samples.table.readiness import PartitionState, Readiness

#: how many later partitions are looked at to find a ready one, before the newest ones are asked whether there is one
LOOK_AHEAD = 64


class TableView(Protocol):
    """What the rule needs to know of a table."""

    now: datetime

    def state(self, start: datetime) -> PartitionState:
        """The state of the partition that starts there."""
        ...

    def later(self, start: datetime) -> Iterator[datetime]:
        """Starts after `start` of partitions that have a folder, ascending."""
        ...

    def content(self, start: datetime) -> SplitPartition:
        """A ready partition with its files. Raises SampleUnreadable, SampleCheckFailed."""
        ...

    def newest(self, after: datetime, upto: datetime | None = None) -> datetime | None:
        """Start of the newest partition from `after` to `upto`, both included, that is ready and not empty; None: there
        is none, or none of the last ones is ready."""
        ...

    def table_exists(self) -> bool:
        """Whether the folder or bucket of the table is there."""
        ...

    def unified(self, chain: Columns) -> ColumnUnifier:
        """A schema of the partitions to be added; `chain`: the columns that the chain was trained on."""
        ...


class Waiting(msgspec.Struct, frozen=True):
    """Answer that there is nothing now, and something is on its way."""

    #: the partition that is waited for
    partition_start: datetime
    #: one sentence for people
    reason: str
    #: when time alone may change the answer; None: only a write can
    check_again_at: datetime | None = None
    #: by its listing the partition is ready, and a file of it cannot be read yet: `PartitionState.listing` of it
    unfinished: str | None = None


def judge_gap(samples: Samples, state: PartitionState, seen: TableView) -> Hole | Waiting | SampleGap | str:
    """What a partition that is not ready means: step over it, wait, fail, or (a sentence) nothing is left.

    The wait runs from when the first later partition became ready. A partition that is there and not ready is being
    written: it is waited for at least that long after its own last write, and without end when policy gives no wait.
    """
    first_later, ready = ready_later(state.start, seen)
    missing = state.presence is Readiness.MISSING
    what = f"the partition {label(state.start)} is {'missing' if missing else f'not ready: {state.reason}'}"
    if ready is None:
        if missing and first_later is None:
            return _nothing_left(samples, state.start, seen)
        more = f"; {label(first_later)} is there and not ready either" if first_later is not None and missing else ""
        return Waiting(state.start, what + more, state.check_again_at)
    what += f", while {label(ready.start)} is ready"
    policy = samples.gaps
    if not missing and not policy.wait_seconds:
        return Waiting(state.start, what, state.check_again_at)
    became = ready.changed or end_of(samples, ready.start)
    if not missing and state.changed is not None:
        became = max(became, state.changed)
    give_up_at = became + timedelta(seconds=policy.wait_seconds)
    if seen.now < give_up_at:
        again = min(filter(None, (give_up_at, state.check_again_at)))
        return Waiting(state.start, f"{what}; {policy.then} at {label(give_up_at)}", again)
    if policy.then == "fail":
        wait = "" if policy.wait_seconds else "wait for it with gaps: {wait: 1h}, "
        return SampleGap(
            f"{what} since {label(became)}, and samples.gaps says fail after {policy.wait_seconds:g} s. "
            f"Have it written, {wait}allow the gap with gaps: {{then: skip}}, or leave this one out: "
            "'trainflow resume PIPELINE --skip'",
            partition=state.start,
        )
    end = first_later if missing and first_later is not None else end_of(samples, state.start)
    return Hole(state.start, end, "missing" if missing else f"not ready: {state.reason}")


def ready_later(start: datetime, seen: TableView) -> tuple[datetime | None, PartitionState | None]:
    """The first later partition that has anything, and the first that is ready."""
    first: datetime | None = None
    for number, moment in enumerate(seen.later(start)):
        # what was not completed for long is looked through where something is ready behind it, and only then
        if number == LOOK_AHEAD and seen.newest(moment) is None:
            break
        state = seen.state(moment)
        if state.presence is Readiness.MISSING:  # an empty folder
            continue
        first = first or moment
        if state.presence is Readiness.READY:
            return first, state
    return first, None


def _nothing_left(samples: Samples, start: datetime, seen: TableView) -> str:
    if not seen.table_exists():
        return f"nothing is there yet: the folder above the partitions of {samples.path} does not exist"
    if start == origin(samples):
        return f"nothing is there yet: no partition at or after {label(start)} in {samples.path}"
    return f"nothing after {label(start)}: the partition {label(start)} is not there yet, nor a later one"
