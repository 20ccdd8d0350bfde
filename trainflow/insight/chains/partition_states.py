"""State of each partition of a chain (trained, a hole, ready, refused), as ranges of one state: what a calendar draws,
however many there are.

All of it follows from the state of the ledger, which is small however long the chain is. What lies in the samples is
shown as far as it was seen: nothing is listed here.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from enum import StrEnum
from itertools import chain as joined
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection

from trainflow.checkpoints.chain import OfChain
from trainflow.checkpoints.ledger.ancestors import KeptLine
from trainflow.checkpoints.ledger.entries import HoleRecord
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger.state import ChainState, CheckpointSummary, without
from trainflow.checkpoints.upkeep.changed_samples import open_holes, republished
from trainflow.clock import ensure_utc
from trainflow.metadata.queries import run_queries, xcom_queries
from trainflow.metadata.queries.dag_queries import Versions
from trainflow.samples.partitions import (
    after_watermark,
    at_or_after,
    end_of,
    length_label,
    limit,
    origin,
    place_of,
    shift,
)
from trainflow.samples.spec import Samples
from trainflow.samples.splits.late_partitions import arrived
from trainflow.samples.table.inventory import Inventory, open_inventory
from trainflow.samples.table.readiness import Readiness
from trainflow.states import DagRunState
from trainflow.workspace.workspace import Workspace

#: so many partitions beyond the chain's end are looked at
MOST_BEYOND = 1000


class PartitionStatus(StrEnum):
    """The state of a partition. What no range covers is not known: it lies beyond what was looked at."""

    #: before the chain began: it went on from weights that stand for it
    INHERITED = "inherited"
    ABSENT = "absent"
    #: something is there, and a condition of `ready` does not hold yet
    ARRIVING = "arriving"
    READY = "ready"
    #: a gate refused what was trained on it, and a person has to decide
    REFUSED = "refused"
    #: a run under way was handed it
    TRAINING = "training"
    TRAINED = "trained"
    #: policy stepped over it, since it was missing
    HOLE = "hole"
    #: a hole that has arrived since
    LATE = "late"
    #: trained, and it has another content now
    REPUBLISHED = "republished"
    #: a gate or a person left it out on purpose
    LEFT_OUT = "left_out"
    #: trained by checkpoints that a rewind left behind
    UNDONE = "undone"


#: what is so of samples alone
_PRESENCE = frozenset({PartitionStatus.ABSENT, PartitionStatus.ARRIVING, PartitionStatus.READY})

#: first (0: the table's first partition), how many, in which state
PartitionStretch = tuple[int, int, str]


class PartitionMark(msgspec.Struct, frozen=True):
    """What stands at the end of a partition: its number, what (`head`, `promoted`, `began`), and the name of
    it: of a promotion the alias, of where the chain began `fork` or `adoption`."""

    place: int
    what: str
    name: str
    #: of the checkpoint; None: it is of another chain
    checkpoint: int | None = None


class PartitionRanges(OfChain, frozen=True, kw_only=True):
    """The partitions of a chain. Number `n` is the one that starts `n` times `length` after `first`; there are `count`,
    as far as time has come or anything is known. `entries`: how many the ledger has. `ranges` are in order
    and do not overlap."""

    entries: int
    head: int
    watermark: datetime | None
    first: datetime
    length: str
    count: int
    ranges: list[PartitionStretch]
    marks: list[PartitionMark]


class CheckpointBorder(NamedTuple):
    """A checkpoint of the line, whose newest partition is `place`; the next one begins behind it."""

    place: int
    number: int
    size: int


class Seen(msgspec.Struct, frozen=True):
    """What is known of samples beside the ledger: starts and exclusive ends, each with its state."""

    stretches: Sequence[tuple[datetime, datetime, PartitionStatus]] = ()


def partition_ranges(ledger: Ledger, samples: Samples, now: datetime, seen: Seen | None = None) -> PartitionRanges:
    """The ranges of a chain. Raises LedgerCorrupt, StoreFailure."""
    state = ledger.state()
    looked = seen.stretches if seen is not None else ()
    # samples that a gate refused, or that a rewind left behind, are there as well: what became of them is said
    beneath, above = ([each for each in looked if (each[2] in _PRESENCE) is there] for there in (True, False))
    layers = [_placed(samples, each) for each in (*beneath, *ledger_stretches(state, samples), *above)]
    found = list(painted(layer for layer in layers if layer is not None))
    return PartitionRanges(
        **ledger.chain.names,
        entries=state.sequence,
        head=state.head_number,
        watermark=state.watermark,
        first=origin(samples),
        length=length_label(samples),
        count=_count(samples, found, now),
        ranges=found,
        marks=_marks(ledger, state, samples),
    )


def _count(samples: Samples, found: Sequence[PartitionStretch], now: datetime) -> int:
    end = limit(samples)
    come = place_of(samples, now if end is None else min(now, end)) + (1 if end is None else 0)
    return max(0, come, *(first + length for first, length, _ in found))


def _marks(ledger: Ledger, state: ChainState, samples: Samples) -> list[PartitionMark]:
    def at(watermark: datetime, what: str, name: str, checkpoint: int | None) -> PartitionMark:
        return PartitionMark(place_of(samples, watermark) - 1, what, name, checkpoint)

    found = []
    if state.start is not None:
        found.append(at(state.start.watermark, "began", type(state.start).__name__.lower(), None))
    for alias, checkpoint_id in sorted(state.promoted.items()):
        promoted = state.recently(checkpoint_id) or ledger.find(checkpoint_id)
        if promoted is not None:
            found.append(at(promoted.watermark, "promoted", alias, promoted.number))
    if state.head is not None:
        found.append(at(state.head.watermark, "head", "", state.head.number))
    return found


def checkpoint_borders(ledger: Ledger, samples: Samples, first: int, end: int) -> list[CheckpointBorder]:
    """Where the kept checkpoints of the line end whose newest partition is one of `[first, end)`. Raises LedgerCorrupt,
    StoreFailure."""
    found: list[CheckpointBorder] = []
    for each in ledger.back():
        place = place_of(samples, each.watermark) - 1
        # a filled hole has the watermark of its parent: the order of the line is not that of time alone
        if each.on_line and first <= place < end:
            found.append(CheckpointBorder(place, each.number, each.size))
        elif place < first:
            break
    return found[::-1]


# -- what the ledger says ------------------------------------------------------------------------------------------

#: a stretch of time, and what its partitions are
_Stretch = tuple[datetime, datetime, PartitionStatus]


def ledger_stretches(state: ChainState, samples: Samples) -> Iterator[_Stretch]:
    """What a ledger says of its partitions; where stretches overlap, the later one counts."""
    begins = state.root or (state.start.watermark if state.start is not None else None)
    if state.start is not None:
        yield origin(samples), state.start.watermark, PartitionStatus.INHERITED
    behind = _left_behind(state.recent)
    after = state.watermark or origin(samples)
    if behind is not None and behind > after:
        yield after, behind, PartitionStatus.UNDONE
    if state.head is not None and begins is not None:
        yield begins, state.head.watermark, PartitionStatus.TRAINED
    on_purpose = [(each.start, each.end) for each in state.left_out]
    for hole in joined((each.hole for each in state.holes), state.skips):
        yield from _hole(hole, on_purpose)
    if state.stopped is not None:
        yield state.stopped.split.start, state.stopped.split.end, PartitionStatus.REFUSED


def _left_behind(recent: Iterable[CheckpointSummary]) -> datetime | None:
    """How far a line went that a rewind left behind."""
    return max((each.watermark for each in recent if not each.on_line), default=None)


def _hole(hole: HoleRecord, on_purpose: Sequence[tuple[datetime, datetime]]) -> Iterator[_Stretch]:
    yield hole.start, hole.end, PartitionStatus.LEFT_OUT
    for start, end in without((hole.start, hole.end), on_purpose):
        yield start, end, PartitionStatus.HOLE


# -- what is known of the samples ----------------------------------------------------------------------------------


def training_seen(workspace: Workspace, dag_id: str) -> list[_Stretch]:
    """What the running runs of a DAG were handed to train on, as the database knows it."""
    database = workspace.existing_database
    return [] if database is None else database.read(lambda connection: _in_training(connection, dag_id))


def _in_training(connection: Connection, dag_id: str) -> list[_Stretch]:
    found: list[_Stretch] = []
    versions = Versions()
    for run in run_queries.unfinished_of(connection, dag_id):
        if run.state != DagRunState.RUNNING or run.released_at is not None:
            continue
        document, _ = versions.get(connection, run.version_id)
        tasks = {task.task_id for task in document.tasks if task.role == "samples"}
        for (task_id, key), value in xcom_queries.of_run(connection, run.id).items():
            if task_id in tasks and key == "return_value" and isinstance(value, dict):
                found += _split_of(value)
    return found


def _split_of(xcom: dict[str, Any]) -> Iterator[_Stretch]:
    try:
        start, end = (datetime.fromisoformat(xcom[name]) for name in ("start", "end"))
    except (KeyError, TypeError, ValueError):
        return  # it found nothing to train on
    yield ensure_utc(start), ensure_utc(end), PartitionStatus.TRAINING


def looked_at(ledger: Ledger, samples: Samples, root: Path, now: datetime) -> list[_Stretch]:
    """What a look at the samples shows: the partitions beyond the chain's end, holes that have arrived, trained ones
    that were published again. Lists folders: so many as policy looks at, and `MOST_BEYOND` at most beyond the end.

    Raises SampleUnreadable, LedgerCorrupt, StoreFailure.
    """
    state, inventory = ledger.state(), open_inventory(samples, root, now)
    again = republished(KeptLine(ledger, state), samples, root, now)
    late = arrived(samples, open_holes(state), inventory)
    return [
        *((each.start, each.end, PartitionStatus.REPUBLISHED) for each in again),
        *((start, end_of(samples, start), PartitionStatus.LATE) for start in late),
        *_beyond(state, samples, inventory),
    ]


_SEEN = {
    Readiness.MISSING: PartitionStatus.ABSENT,
    Readiness.NOT_READY: PartitionStatus.ARRIVING,
    Readiness.READY: PartitionStatus.READY,
}


def _beyond(state: ChainState, samples: Samples, inventory: Inventory) -> Iterator[_Stretch]:
    first = after_watermark(samples, state.edge)
    there = islice(inventory.later(shift(samples, first, -1)), MOST_BEYOND)
    states = {each.start: each for each in inventory.states([start for start in there if start >= first])}
    if not states:
        return
    yield first, end_of(samples, max(states)), PartitionStatus.ABSENT
    for start, found in states.items():
        yield start, end_of(samples, start), _SEEN[found.presence]


# -- drawing -------------------------------------------------------------------------------------------------------


class Layer(NamedTuple):
    """The partitions `[first, end)` in one state."""

    first: int
    end: int
    state: str


def _placed(samples: Samples, stretch: _Stretch) -> Layer | None:
    """A stretch of time as partitions; None where it holds none of the table."""
    start, end, state = stretch
    first, last = place_of(samples, at_or_after(samples, start)), place_of(samples, at_or_after(samples, end))
    return Layer(first, last, state.value) if first < last else None


def painted(layers: Iterable[Layer]) -> Iterator[PartitionStretch]:
    """Ranges, in order and without overlap, neighbours of one state made one; a later layer covers earlier ones. Costs
    `n log n` for `n` layers."""
    ordered = sorted(enumerate(layers), key=lambda each: each[1].first)
    borders = sorted({border for _, layer in ordered for border in (layer.first, layer.end)})
    above: list[tuple[int, Layer]] = []
    position = 0
    pending: PartitionStretch | None = None
    for border, following in pairwise(borders):
        while position < len(ordered) and ordered[position][1].first <= border:
            number, layer = ordered[position]
            heapq.heappush(above, (-number, layer))
            position += 1
        while above and above[0][1].end <= border:
            heapq.heappop(above)
        if not above:
            continue
        state = above[0][1].state
        if pending is not None and pending[2] == state and pending[0] + pending[1] == border:
            pending = (pending[0], following - pending[0], state)
            continue
        if pending is not None:
            yield pending
        pending = (border, following - border, state)
    if pending is not None:
        yield pending
